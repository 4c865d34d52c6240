"""The `ensemble` command line: plans within a time budget, and predictions."""

from __future__ import annotations

import sys
import traceback

from ensemble.cli.bundling import bundle_app
from ensemble.cli.insight import insight
from ensemble.cli.planning import build, frontier, show
from ensemble.cli.pooling import pool
from ensemble.cli.predicting import evaluate, predict
from ensemble.cli.recalibrating import recalibrate
from ensemble.cli.study import study
from ensemble.cli.submitting import submissions, submitted
from zoo.cli.base import START, add_commands, new_app, open_standard_streams, run_app

app = new_app(
    """Blend scored members within a time budget and predict inside it.

    A first run:

    Example: ensemble build --budget 5m --target cpu

    Example: ensemble predict plan.json test.csv -o submission.csv
    """
)
add_commands(
    app, {START: (build, frontier, show, insight, study, predict, evaluate, recalibrate, pool, submitted, submissions)}
)
app.add_typer(bundle_app, name="bundle", rich_help_panel=START)


def main() -> None:
    """Entry point of the `ensemble` command."""
    command = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
    if command != "predict":
        run_app(app, "ensemble")
    from ensemble.predict.deadline import end_process

    code = _prediction()
    end_process(code)
    sys.exit(code)  # for those who run commands in a process of their own and keep it


def _prediction() -> int:
    """Run the command `predict`; its exit code.

    No output of it may wait for whoever reads it. And it ends without tearing the interpreter down: with its libraries loaded,
    on a busy machine, that takes longer than a deadline leaves.
    """
    from ensemble.predict.streams import unblocked

    open_standard_streams()
    with unblocked():
        try:
            run_app(app, "ensemble")
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:  # --debug
            traceback.print_exc()
    return 1
