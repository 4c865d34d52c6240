"""The `zoo` app: every command by panel, and the entry point.

Commands come in the order in which a newcomer needs them.
"""

from __future__ import annotations

from zoo.cli.app import app
from zoo.cli.base import DATA, HOME, MACHINES, MEMBERS, STAGES, START, TRACKING, add_commands, run_app
from zoo.cli.bundling import bundle, export, unbundle
from zoo.cli.caps import caps
from zoo.cli.cost import cost
from zoo.cli.data import data_app
from zoo.cli.entries import check, import_, list_, register, show
from zoo.cli.experiments import experiment
from zoo.cli.home import du, gc, rm, verify
from zoo.cli.insight import insight, report
from zoo.cli.jobs import jobs
from zoo.cli.ladder import ladder
from zoo.cli.lineage import lineage
from zoo.cli.remote import pull, push
from zoo.cli.stages import fetch, merge, quantize, run, score, train
from zoo.cli.targets import target_app
from zoo.cli.tracking import leaderboard, promote, sync, ui
from zoo.cli.tune import tune

add_commands(
    app,
    {
        START: (list_, show, run, leaderboard, insight, report),
        STAGES: (fetch, train, merge, quantize, score, ladder, caps, tune, experiment, jobs),
        MEMBERS: (register, import_, promote),
        MACHINES: (check, cost, bundle, unbundle, export),
        TRACKING: (ui, sync),
        HOME: (du, verify, lineage, push, pull, rm, gc),
    },
)
app.add_typer(target_app, name="target", rich_help_panel=MACHINES)
app.add_typer(data_app, name="data", rich_help_panel=DATA)


def main() -> None:
    """Entry point of the `zoo` command."""
    run_app(app, "zoo")
