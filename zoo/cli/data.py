"""`zoo data`: look at a file of battles, or make one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from zoo.data.battles import Battles

data_app = typer.Typer(
    help="Look at a file of battles, or make one.\n\n"
    "A file is CSV (or .csv.gz) in the competition's columns: id, prompt, response_a, response_b and, where labelled, "
    "winner_model_a, winner_model_b, winner_tie. Texts are JSON lists of turns.\n\n"
    "Example: zoo data sample battles.csv --rows 400; zoo data validate battles.csv",
    no_args_is_help=True,
)

File = Annotated[Path, typer.Argument(help="CSV of battles, plain or gzipped.")]
AsJson = Annotated[bool, typer.Option("--json", help="Everything as JSON on stdout.")]


@data_app.command()
def validate(file: File, as_json: AsJson = False) -> None:
    """Say what is in a file of battles and what is wrong with it, with row ids.

    Exit code 0: usable, perhaps with warnings. 1: some row or the whole file cannot be used. 2: it cannot be read at all.

    Example: zoo data validate test.csv

    Example: zoo data validate train.csv.gz --json | jq '.problems[].row_id'
    """
    from zoo.data.battles import read_battles
    from zoo.data.stats import validation

    battles = read_battles(file, strict=False)
    report = validation(battles)
    typer.echo(json.dumps(report, indent=1) if as_json else validation_text(battles, report))
    if not report["usable"]:
        raise typer.Exit(1)


def validation_text(battles: Battles, report: dict[str, Any]) -> str:
    """The report as a table of problems and a line that says whether the file can be used."""
    from zoo.data.stats import problem_rows
    from zoo.report.text import text_table

    apart = report["rows"] - report["usable_rows"]
    kind = "labelled" if battles.labelled else "unlabelled"
    lines = [f"{battles.path}: {report['rows']:,} ids, {kind}, {report['usable_rows']:,} usable rows, {apart:,} kept apart"]
    if battles.problems:
        lines += ["", text_table(("severity", "problem", "rows", "ids", "for example"), problem_rows(battles.problems)), ""]
    if any(p.fatal for p in battles.problems):
        lines.append("NOT USABLE: a submission for this file could not be keyed; mend what is listed as an error")
    elif battles.errors:
        lines.append("NOT USABLE as it is: mend the rows listed as errors (predict keeps them apart and still fills their ids)")
    else:
        lines.append("usable" + (", with warnings" if battles.problems else ""))
    return "\n".join(lines)


@data_app.command()
def stats(
    file: File,
    entry: Annotated[str | None, typer.Option("--entry", help="Count tokens with this entry's tokenizer.")] = None,
    as_json: AsJson = False,
) -> None:
    """Label shares, turns, and lengths in characters and in tokens.

    Example: zoo data stats train.csv

    Example: zoo data stats train.csv --entry smollm2-135m
    """
    from zoo.data.battles import read_battles
    from zoo.data.stats import battle_stats

    count_tokens = None
    if entry is not None:
        from zoo.pipeline.weights import entry_tokenizer

        count_tokens = entry_tokenizer(entry).encode
    found = battle_stats(read_battles(file), count_tokens)
    typer.echo(json.dumps(found, indent=1) if as_json else stats_text(file, found))


def stats_text(file: Path, found: dict[str, Any]) -> str:
    from zoo.report.text import text_table

    lines = [f"{file}: {found['rows']:,} usable rows, {found['distinct_prompts']:,} distinct prompts"]
    if found["label_shares"]:
        lines.append("label shares: " + ", ".join(f"{name} {share:.1%}" for name, share in found["label_shares"].items()))
    lines.append("turns: " + ", ".join(f"{turns}: {share:.1%}" for turns, share in found["turns"].items()))
    if found["lengths"]:
        header = ("length", *next(iter(found["lengths"].values())))
        rows = [(name, *(f"{value:,.0f}" for value in spread.values())) for name, spread in found["lengths"].items()]
        lines += ["", text_table(header, rows)]
    return "\n".join(lines)


@data_app.command()
def sample(
    out: Annotated[Path, typer.Argument(help="CSV to write; gzipped where the name ends in .gz.")],
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many battles.")] = 500,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same rows; other seeds have other ids.")] = 0,
) -> None:
    """Write battles from a generator whose true label distribution is known.

    Says the best log loss that is possible on them.

    The true probabilities go beside the file (battles.csv: battles.truth.csv). A larger sample begins with the smaller one.

    Example: zoo data sample battles.csv --rows 400

    Example: zoo data sample test.csv --rows 200 --seed 1
    """
    from zoo.data.sample import write_sample

    made = write_sample(out, rows, seed)
    a, b, tie = made.label_shares
    typer.echo(
        f"{made.path}: {rows:,} battles; labels A {a:.1%}, B {b:.1%}, tie {tie:.1%}\n"
        f"{made.truth_path}: their true probabilities\n"
        f"best possible log loss: {made.expected_log_loss:.4f} expected, {made.realised_log_loss:.4f} on the labels drawn "
        f"(uniform 1.0986)"
    )
