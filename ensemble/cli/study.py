"""`ensemble study`: the trials behind a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.base import AsJson, Output, say, style_of
from zoo.report.text import Format
from zoo.report.text import show as show_page

PlanFile = Annotated[Path, typer.Argument(help="A plan of `ensemble build`.")]
Pictures = Annotated[Path | None, typer.Option("-o", "--output", help="Folder for pictures of the study, as PNG.")]


def study(
    plan: PlanFile = Path("plan.json"),
    output: Pictures = None,
    format_: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """The study behind a plan: Optuna's best trials, what mattered, and a browser's view.

    Every build has one beside its exact search, unless `--trials 0`. A trial draws members, rows, pool and shrinkage that fit
    the budget; its log loss is out of fold, and flatters the best of many. Whether the study changed the plan was rehearsed.

    Example: ensemble study plan.json

    Example: ensemble study plan.json -o pictures
    """
    from ensemble.plan import load_plan
    from ensemble.report.study import read_study, study_data, study_of, study_page
    from ensemble.report.study_figures import FILES, draw_study
    from zoo.settings import home
    from zoo.store import check_output

    style = style_of(format_, as_json)
    if output is not None:
        for file in FILES:
            check_output(output / file, plan)
    loaded = load_plan(plan)
    view = read_study(*study_of(loaded, plan, home()))
    show_page(study_page(view, loaded), style, data=study_data(view))
    if output is not None:
        say("wrote " + ", ".join(map(str, draw_study(view, output))))
