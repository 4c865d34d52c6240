"""`ensemble submitted` and `submissions`: what the board said, beside what plans promised."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from ensemble.cli.options import PlanFile
from zoo.cli.base import AsJson, Output, say, style_of
from zoo.errors import ZooError
from zoo.report.text import Format, show

WORST_SCORE = 34.54  # -ln 1e-15: the least probability that the competition's metric counts


def submitted(
    plan: PlanFile,
    public: Annotated[float, typer.Option("--public", help="Log loss on the public board.")],
    private: Annotated[float | None, typer.Option("--private", help="Log loss on the private board.")] = None,
    note: Annotated[str, typer.Option("--note", help="What is to be remembered of it.")] = "",
) -> None:
    """Keep what the board said of a plan's submission, beside what the plan promised.

    A file of the home has it, and MLflow in the run of the plan's build. The same plan and public score again, with what came
    out later, add to it.

    Example: ensemble submitted plan.json --public 0.9812 --note "first one"

    Example: ensemble submitted plan.json --public 0.9812 --private 0.9954
    """
    from ensemble.plan import load_plan
    from ensemble.report.evaluate import promised
    from zoo.tracking.submissions import PRIVATE, PROMISE, PROMISE_SE, PUBLIC, keep_submission
    from zoo.tracking.sync import log_uses

    for option, score in (("--public", public), ("--private", private)):
        if score is not None and not (math.isfinite(score) and 0 <= score <= WORST_SCORE):
            raise ZooError(f"{option} {score:g}: a log loss is between 0 and {WORST_SCORE:g}; give what the board shows")
    loaded = load_plan(plan)
    loss, error, of = promised(loaded)
    numbers = {PUBLIC: public, PROMISE: loss, PROMISE_SE: error} | ({} if private is None else {PRIVATE: private})
    params = {"plan": plan.name, "target": loaded.target.name}
    try:
        path = keep_submission(loaded.model_dump(mode="json"), numbers, note=note, params=params)
    except OSError as fault:
        raise ZooError(f"{fault.filename}: {fault.strerror}; the score is not kept") from fault
    typer.echo(f"{plan}: public {public:.4f}, promised {loss:.4f} +- {error:.4f} ({of}): {public - loss:+.4f}")
    say(f"kept in {path}")
    log_uses()


def submissions(output: Output = Format.table, as_json: AsJson = False) -> None:
    """Every submission that was told: what its plan promised, and what the board said.

    From three on also by how much the board is off the promises in the mean, and whether it goes along with them.

    Example: ensemble submissions --format markdown
    """
    from ensemble.report.submissions import submissions_data, submissions_page
    from zoo.tracking.submissions import read_submissions

    style, found = style_of(output, as_json), read_submissions()
    show(submissions_page(found), style, data=submissions_data(found))
