"""`ensemble pool`: one table of several, as of judges that label."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ensemble.cli.options import ColumnNames
from zoo.cli.app import MOST_BAD, MaxBadRows
from zoo.cli.base import AsJson, Output, say, style_of
from zoo.errors import ZooError, amount
from zoo.report.text import Cell, Column, Format, Page, Table, lowest, show

if TYPE_CHECKING:
    from ensemble.pools.tables import Pooled


def pool(
    tables: Annotated[list[str], typer.Argument(metavar="[NAME=]TABLE...", help="Score tables: CSV, parquet or JSONL.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The pooled table: a name that ends in .csv or .parquet.")],
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Winners of some of the rows; ids and winners are enough.")
    ] = None,
    columns: ColumnNames = None,
    max_bad_rows: MaxBadRows = MOST_BAD,
    format_: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Pool score tables into one, as of judges that label.

    With --labels the pool is fitted on the labelled rows, which get the probabilities of the folds that they were left out of;
    all other rows get those of the whole fit. Without, every table weighs the same: the mean of the probabilities. A row that
    some tables lack is pooled of the others. `zoo import` and train.teacher (parquet) read what is written.

    Example: ensemble pool gpt4.csv claude.csv llama.parquet --labels votes.csv -o judges.parquet

    Example: ensemble pool one=a.csv two=b.csv -o mean.csv
    """
    from dataclasses import asdict

    from ensemble.members.files import named_files
    from ensemble.report.pooled import pool_files
    from zoo.pipeline.table_columns import parse_columns
    from zoo.store import check_output

    style, files = style_of(format_, as_json), named_files(tables, "TABLE")
    check_output(output, labels, *files.values())
    if output.suffix not in (".csv", ".parquet"):
        raise ZooError(f"-o {output}: of which format? give a name that ends in .csv or .parquet")
    named = None if columns is None else parse_columns(columns)
    pooled = pool_files(files, output, labels, columns=named, most_bad=max_bad_rows, say=say)
    record = {
        "rows": len(pooled.p),
        "pools": [{"tables": list(names), "rows": n, "pool": kind} for names, (n, kind) in pooled.kinds.items()],
        "compared": [asdict(line) for line in (pooled.pool, *pooled.beside) if line is not None],
    }
    show(pooled_page(pooled), style, data=record)
    if better := pooled.better:
        loses = f"{better.difference:.4f} +- {better.difference_se:.4f}"
        say(f"warning: out of fold the pool loses {loses} more than {better.name}, which may be the better choice as it is")
    say(f"wrote {output}")


def pooled_page(pooled: Pooled) -> Page:
    """Which rows have which pool, and its log loss beside equal weights and each table."""
    made = [f"{amount(rows, 'row')}: {kind} of {' + '.join(names)}" for names, (rows, kind) in pooled.kinds.items()]
    if pooled.pool is None:
        return [*made, "no labels: every table weighs the same"]
    columns = [
        Column("table", "name"),
        Column("rows", form=",d", drop=1),
        Column("log loss", "log_loss", ".4f"),
        Column("se", "log_loss_se", ".4f"),
        Column("pool against it", "difference", "+.4f"),
        Column("se of that", "difference_se", ".4f", drop=2),
    ]
    lines = [pooled.pool, *sorted(pooled.beside, key=lambda line: line.log_loss)]
    rows: list[list[Cell]] = [["pool, out of fold", lines[0].rows, lines[0].log_loss, lines[0].log_loss_se, None, None]]
    for line in lines[1:]:
        rows.append([line.name, line.rows, line.log_loss, line.log_loss_se, line.difference, line.difference_se])
    return [*made, "", Table(columns, rows, lowest([line.log_loss for line in lines]))]
