"""`zoo data report`: what a made file is, and whether it may be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.base import AsJson, Output, check_page, say, style_of
from zoo.report.text import Format, show


def report(
    file: Annotated[Path, typer.Argument(help="A file that a command of `zoo data` made.")],
    page: Annotated[Path | None, typer.Option("-o", "--output", help="Page to write, .html, with rows to read by eye.")] = None,
    never: Annotated[
        list[Path] | None,
        typer.Option("--never", metavar="FILE", help="Battles that no row should be near, beside those of mining. Repeatable."),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=0, max=100, help="Rows of each kind on the page.")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same rows.")] = 0,
    style: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Say what a made file is made of, what was left out and why, and what its labels are worth.

    Its chain of stages is found by content, so the file may lie anywhere. The page is one file that needs nothing else.

    Example: zoo data report labelled.csv.gz

    Example: zoo data report labelled.csv.gz -o labelled.html --never test.csv
    """
    from zoo.reading import check_ordinary
    from zoo.report.made_file import read_made
    from zoo.report.made_page import made_html
    from zoo.report.made_report import read_rows, report_data, report_page
    from zoo.report.made_sample import answer_strata, pair_strata
    from zoo.settings import store_folder
    from zoo.store import check_output, write_atomic

    wanted = style_of(style, as_json)
    if page is not None:
        check_page(page)
        check_output(page, file, *(never or []))
    for path in never or ():
        check_ordinary(path, mend="give a file of battles")
    made = read_made(store_folder(), file)
    battles = read_rows(made)
    data = report_data(made, battles, never or [])
    if page is not None:
        if battles is not None:
            sample = pair_strata(made, battles, seed, rows)
        else:
            sample = answer_strata(file, seed, rows) if made.stage == "generate" else {}
        page.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(page, made_html(data, sample, seed))
        say(f"{page}: {page.stat().st_size / 2**10:,.0f} KiB")
    show(report_page(data, page), wanted, data=data)
