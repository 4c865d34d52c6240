"""`ensemble insight`: where a plan is wrong, and who would help."""

from __future__ import annotations

from pathlib import Path

from ensemble.cli.options import BattlesFile, ColumnNames, PlanFile, ScoreFiles
from zoo.cli.base import AsJson, Output, check_page, say, style_of
from zoo.cli.insight import PageFile, Worst
from zoo.errors import ZooError
from zoo.report.text import Format, show


def insight(
    plan: PlanFile = Path("plan.json"),
    worst: Worst = 20,
    page: PageFile = Path("insight.html"),
    scores: ScoreFiles = None,
    battles: BattlesFile = None,
    columns: ColumnNames = None,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Where a plan is wrong: slices, calibration, its members' agreement, and its worst rows.

    On the rows that it was fitted on. Slices go by language, lengths, turns, label and code blocks. Of each pair of members it
    says who is right where they differ, and of other scored members in which slices they beat the plan. The page has the worst
    and the best rows with their texts: mind that when you share it.

    Example: ensemble insight plan.json

    Example: ensemble insight plan.json --worst 50 -o plan-insight.html

    Of a plan of files alone: ensemble insight plan.json --scores a.csv --scores b.csv --labels train.csv
    """
    from ensemble.members.files import named_files
    from ensemble.plan import load_plan
    from ensemble.report.at_hand import fitted_rows, fitted_rows_of_files, other_tables
    from ensemble.report.insight import plan_insight
    from zoo.pipeline.table_columns import parse_columns
    from zoo.report.insight import insight_data, insight_page
    from zoo.report.insight_page import insight_html
    from zoo.settings import store_folder
    from zoo.store import check_output, write_atomic

    style = style_of(output, as_json)
    check_page(page)
    files = named_files(scores or ())
    if bool(files) != (battles is not None) or (columns is not None and not files):
        raise ZooError("--scores, --labels: go together, for a plan of files; of any other plan the home has the tables")
    check_output(page, plan, *files.values(), *([battles] if battles else []))
    loaded = load_plan(plan)
    if battles is None:
        rows, others = fitted_rows(loaded, store_folder()), other_tables(loaded, store_folder())
    else:
        named = None if columns is None else parse_columns(columns)
        rows, others = fitted_rows_of_files(loaded, files, battles, columns=named, say=say)
    found = plan_insight(loaded, rows, others, plan.stem)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(page, insight_html(found, worst))
    say(f"{page}: {page.stat().st_size / 2**10:,.0f} KiB")
    show(insight_page(found, worst, str(page)), style, data=insight_data(found, worst))
