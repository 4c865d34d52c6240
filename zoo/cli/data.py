"""`zoo data`: look at a file of battles, or make one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.base import DATA, AsJson, Output, add_commands, complete_entry, new_group, say, style_of
from zoo.cli.data_generate import generate
from zoo.cli.data_judge import judge
from zoo.cli.data_prompts import prompts
from zoo.cli.data_report import report
from zoo.cli.data_worth import worth
from zoo.cli.made import label, mine
from zoo.report.text import Column, Format, Page, Table, show

if TYPE_CHECKING:
    from zoo.data.battles import Battles

File = Annotated[Path, typer.Argument(help="File of battles: CSV, parquet or JSONL, compressed or not.")]
Counting = Annotated[
    str | None,
    typer.Option("--entry", help="Count tokens with this entry's tokenizer.", autocompletion=complete_entry),
]


def validate(file: File, output: Output = Format.table, as_json: AsJson = False) -> None:
    """Say what is in a file of battles and what is wrong with it, with row ids.

    Exit code 0: usable, perhaps with warnings. 1: some row or the whole file cannot be used. 2: it cannot be read at all.

    Example: zoo data validate test.csv

    Example: zoo data validate train.csv.gz --format csv
    """
    from zoo.data.battles import read_battles
    from zoo.data.stats import validation
    from zoo.data.votes import VOTES

    style, battles = style_of(output, as_json), read_battles(file, strict=False, keep=VOTES)
    report = validation(battles)
    show(validation_page(battles, report), style, data=report)
    if not report["usable"]:
        raise typer.Exit(1)


def validation_page(battles: Battles, report: dict[str, Any]) -> Page:
    """The report as a table of problems and a line that says whether the file can be used."""
    from zoo.data.stats import problem_rows
    from zoo.data.votes import VOTES, unreadable_votes

    apart = report["rows"] - report["usable_rows"]
    kind = "labelled" if battles.labelled else "unlabelled"
    head = f"{battles.path}: {report['rows']:,} ids, {kind}, {report['usable_rows']:,} usable rows, {apart:,} kept apart"
    head += f"\nread as {battles.told}" if battles.format else ""
    if votes := [name for name in battles.extra_columns if name in VOTES]:
        head += f"\n{', '.join(votes)}: learned from where an entry has train.targets = 'votes'"
        head += f"; no counts in {len(odd)} rows, first {odd[0]}" if (odd := unreadable_votes(battles)) else ""
    if battles.labelled and not battles.can_tie:
        head += "\nbattles of this kind never end in a tie"
    columns = [
        Column("severity"),
        Column("problem"),
        Column("rows"),
        Column("ids", drop=1, prose=True),
        Column("for example", "example", prose=True),
    ]
    table = Table(columns, problem_rows(battles.problems))
    if any(p.fatal for p in battles.problems):
        verdict = "NOT USABLE: a submission for this file could not be keyed; mend what is listed as an error"
    elif battles.errors:
        verdict = "NOT USABLE as it is: mend the rows listed as errors (predict keeps them apart and still fills their ids)"
    else:
        verdict = "usable" + (", with warnings" if battles.problems else "")
    return [head, "", table, "", verdict] if battles.problems else [head, table, verdict]


def stats(
    file: File,
    entry: Counting = None,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Label shares, turns, and lengths in characters and in tokens.

    Example: zoo data stats train.csv

    Example: zoo data stats train.csv --entry smollm2-135m
    """
    from zoo.data.battles import read_battles
    from zoo.data.stats import battle_stats
    from zoo.data.usable import unusable_line

    style, count_tokens = style_of(output, as_json), None
    if entry is not None:
        from zoo.pipeline.weights import entry_tokenizer

        count_tokens = entry_tokenizer(entry).encode
    battles = read_battles(file)
    found = battle_stats(battles, count_tokens)
    say(f"{file}: {battles.told}")
    if battles.bad_ids:
        say(f"{file}: {unusable_line(battles)}")
    show(stats_page(file, found), style, data=found)


def stats_page(file: Path, found: dict[str, Any]) -> Page:
    """Label shares and turns as lines, lengths as a table."""
    page: list[str | Table] = [f"{file}: {found['rows']:,} usable rows, {found['distinct_prompts']:,} distinct prompts"]
    if near := found["near_copies"]:
        page.append(
            f"groups of prompts that differ little: {near['groups']:,}, the largest of {near['largest_prompts']:,} prompts in "
            f"{near['largest_rows']:,} rows (first id {near['largest_id']}); folds by near-prompts-1 keep each together"
        )
    if found["label_shares"]:
        page.append("label shares: " + ", ".join(f"{name} {share:.1%}" for name, share in found["label_shares"].items()))
    page.append("turns: " + ", ".join(f"{turns}: {share:.1%}" for turns, share in found["turns"].items()))
    if found["lengths"]:
        spread = next(iter(found["lengths"].values()))
        columns = [Column("length"), *(Column(name, form=",.0f") for name in spread)]
        page += ["", Table(columns, [[name, *values.values()] for name, values in found["lengths"].items()])]
    return page


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


data_app = new_group(
    """Look at a file of battles, or make one.

    A file is CSV (commas, semicolons, tabs or bars; UTF-8 or UTF-16), parquet, JSONL or a JSON list, also packed by gzip, zip,
    bzip2, xz or zstd.

    Its columns are the competition's (id, prompt, response_a, response_b and, where labelled, winner_model_a, winner_model_b,
    winner_tie), WSDM Cup's (winner in place of the last three), or an arena export's (conversation_a, conversation_b, winner).
    Texts are JSON lists of turns, or plain texts of one turn each.

    Example: zoo data sample battles.csv --rows 400

    Example: zoo data validate battles.csv
    """
)
add_commands(data_app, {DATA: (sample, validate, stats, prompts, generate, mine, judge, label, report, worth)})
