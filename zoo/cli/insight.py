"""`zoo insight` and `zoo report`: pages on a member and on a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import MOST_BAD, MaxBadRows
from zoo.cli.base import AsJson, Output, check_page, say, style_of
from zoo.errors import ZooError
from zoo.report.text import Format, show

MOST_SHOWN = 500  # rows of each kind: a page of more is too large to open

Worst = Annotated[
    int, typer.Option("--worst", min=1, max=MOST_SHOWN, help="So many of the worst rows on the page, and of the best.")
]
PageFile = Annotated[Path, typer.Option("-o", "--output", help="Page to write, .html; it needs nothing else.")]


def insight(
    member: Annotated[str, typer.Argument(help="Scored member, as `zoo leaderboard` lists it, or a table's fingerprint.")],
    data: Annotated[Path, typer.Option("--data", help="The labelled battles that it was scored on; see `zoo data --help`.")],
    worst: Worst = 20,
    page: PageFile = Path("insight.html"),
    max_bad_rows: MaxBadRows = MOST_BAD,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Where a member is wrong: its log loss by slice, its calibration, and its worst rows.

    Slices go by language, lengths, turns, label and code blocks, each beside all other rows with an error by prompts. The page
    has the worst and the best rows with their texts: mind that when you share it.

    Example: zoo insight lexical@ab --data battles.csv

    Example: zoo insight smollm2-135m@ab-512 --data battles.csv --worst 50 -o smollm2.html
    """
    from zoo.data.usable import usable_battles
    from zoo.pipeline.members import score_tables
    from zoo.report.insight import insight_data, insight_page, member_insight
    from zoo.report.insight_page import insight_html
    from zoo.settings import store_folder
    from zoo.store import check_output, write_atomic

    style = style_of(output, as_json)
    check_page(page)
    check_output(page, data)
    battles = usable_battles(data, say=say, most_bad=max_bad_rows)
    if not battles.labelled:
        raise ZooError(f"{data}: has no winner columns; give the labelled battles that {member} was scored on")
    found = member_insight(score_tables(store_folder()), member, battles)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(page, insight_html(found, worst))
    show(insight_page(found, worst, str(page)), style, data=insight_data(found, worst))


def report(
    run: Annotated[str, typer.Argument(help="Scored member, or a stage's fingerprint or folder.", metavar="RUN")],
    page: Annotated[
        Path, typer.Option("-o", "--output", help="Page to write, .html; the same as markdown goes beside it, .md.")
    ] = Path("report.html"),
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """All of a run in one page and one markdown: data, recipe, curves, ladder, slices, cost.

    And the lineage: everything that it was made from. Of a member all its folds, each stage of its chain among them.

    Example: zoo report lexical@ab

    Example: zoo report smollm2-135m@ab-512 -o smollm2.html
    """
    from zoo.report.run_report import find_run, report_of
    from zoo.report.sections import sections_data, sections_html, sections_markdown
    from zoo.settings import store_folder
    from zoo.store import check_output, write_atomic
    from zoo.tracking.facts import curves_of
    from zoo.tracking.recipe import stage_params

    style = style_of(output, as_json)
    check_page(page)
    text = page.with_suffix(".md")
    for file in (page, text):
        check_output(file)
    found = report_of(store_folder(), find_run(store_folder(), run), stage_params, curves_of)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(page, sections_html(found.title, found.subtitle, found.tiles, found.sections))
    write_atomic(text, sections_markdown(found.title, found.subtitle, found.tiles, found.sections))
    numbers = "; ".join(f"{value} {label}" for value, label in found.tiles)
    lines = [f"{found.title}: {numbers}", f"{page}: the page", f"{text}: the same as markdown"]
    show(lines, style, data=sections_data(found.sections))
