"""`zoo list`, `show`, `check`, `register` and `import`: entries, and tables made elsewhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import MOST_BAD, MaxBadRows, Name, Settings, TargetName
from zoo.cli.base import AsJson, Output, say, style_of
from zoo.errors import ZooError
from zoo.report.text import Format
from zoo.report.text import show as show_page


def list_(output: Output = Format.table, as_json: AsJson = False) -> None:
    """Entries of the zoo, and which of their stages are in the store.

    Example: zoo list
    """
    from zoo.report.views import entries_page

    style = style_of(output, as_json)
    page, records = entries_page()
    show_page(page, style, data=records)


def show(name: Name, as_json: AsJson = False) -> None:
    """An entry's settings, every default filled in, as TOML or as JSON.

    Example: zoo show smollm2-135m
    """
    from zoo.entries.load import load_entry
    from zoo.entries.toml import contract_toml

    entry = load_entry(name)
    show_page(
        [contract_toml(entry).rstrip()], style_of(Format.table, as_json), data=entry.model_dump(mode="json", exclude_none=True)
    )


def check(
    name: Name,
    target: TargetName = "t4x2",
    train: Annotated[bool, typer.Option("--train", help="Check training on one of its cards, too.")] = False,
    engine: Annotated[
        str | None, typer.Option("--engine", help="Version of vLLM there; default: the target's, or else the one here.")
    ] = None,
    settings: Settings = None,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Whether an entry can serve on a target, what does not hold, and the mend.

    Exit code 1 if anything fails.

    Example: zoo check llama-3-8b --target t4x2 --train

    Example: zoo check gemma-2-9b --target t4x2 --set quantize.scheme=int8
    """
    from zoo.checks import check_entry
    from zoo.entries.load import load_entry, override
    from zoo.pipeline.weights import fetched_folder
    from zoo.report.views import findings_table
    from zoo.settings import store_folder
    from zoo.targets import load_target

    style, entry = style_of(output, as_json), override(load_entry(name), settings or [])
    folder = fetched_folder(entry, store_folder())
    findings = check_entry(entry, load_target(target), model_folder=folder, train=train, engine=engine)
    show_page([findings_table(findings)], style, data=[f.model_dump() for f in findings])
    if any(f.verdict == "fail" for f in findings):
        raise typer.Exit(1)


def register(
    name: Annotated[str, typer.Argument(help="Name of the new entry.")],
    base: Annotated[str | None, typer.Option("--base", help="Model folder, or ORG/MODEL on the hub.")] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option("--adapter", metavar="FOLDER", help="PEFT adapter trained elsewhere; by fold: 0=FOLDER, 1=FOLDER, ..."),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", metavar="FOLDER", help="Merged or quantized model from elsewhere.")
    ] = None,
    template: Annotated[
        Path | None,
        typer.Option("--template", metavar="FILE|NAME", help="Prompt it was trained with: a text, prompt.json or public one."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", metavar="A,B,TIE", help="Order of its classifier's outputs, as in b,a,tie.")
    ] = None,
    trained_on: Annotated[
        str | None, typer.Option("--trained-on", metavar="FILE|none", help="Battles it learned from; none: no battles.")
    ] = None,
    battles: Annotated[
        Path | None, typer.Option("--battles", metavar="FILE", help="Labelled battles: score 200 of them, and say what is odd.")
    ] = None,
    target: TargetName = "t4x2",
    out: Annotated[Path | None, typer.Option("--out", help="Default: first of ZOO_ENTRIES, else ./entries.")] = None,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Write a new entry for a model, or for weights that were trained elsewhere, and check it.

    It is checked against the target, and the command to run next is shown.

    With --adapter or --checkpoint the weights are copied into the store in the place of a training, and are then merged,
    quantized and scored like our own. Battles that they learned from (--trained-on), and near-copies, are scored but never
    judged on; where nobody says, builds leave the member out unless --include asks for it. Public prompts of LMSYS's
    competition have names: lmsys-tags, lmsys-tags-end, lmsys-model-a-b.

    Example: zoo register my-model --base path/to/model-folder --target t4x2

    Example: zoo register theirs --adapter path/to/peft-folder --base ORG/MODEL --template prompt.txt --trained-on train.csv

    Example: zoo register served --checkpoint path/to/awq-folder --template prompt.txt --trained-on none --battles battles.csv
    """
    from zoo.entries.register import next_steps
    from zoo.entries.register import register as write_entry
    from zoo.experiments.first_look import first_look
    from zoo.pipeline.adoption import Offered, adopt, parse_adapters
    from zoo.report.first_look import look_page
    from zoo.report.views import findings_table
    from zoo.settings import new_entries_folder, store_folder

    style, folder = style_of(output, as_json), out or new_entries_folder()
    offered = Offered(parse_adapters(adapter or []), checkpoint, base, template, classes, trained_on)
    notes: tuple[str, ...] = ()
    origin: str | None
    if battles is not None and not battles.exists():  # before weights are copied
        raise ZooError(f"--battles {battles}: no such file; give labelled battles")
    if offered.is_made:
        adopted = adopt(name, offered, target, folder, store_folder(), say)
        made, notes, origin = adopted.registered, adopted.notes, adopted.base
        steps = next_steps(made.path, target, origin, failed=made.failed, folds=offered.folds)
    else:
        origin = offered.check_plain(battles)
        made = write_entry(name, origin, target, folder)
        steps = next_steps(made.path, target, origin, failed=made.failed)
    failed = f", which fails {made.failed} of its checks on {target}" if made.failed else ""
    record: dict[str, object] = {
        "path": str(made.path),
        "findings": [f.model_dump() for f in made.findings],
        "next": steps,
        "notes": notes,
    }
    seen = first_look(made.path, battles, origin, target, store_folder(), say=say) if battles is not None else []
    if battles is not None:
        record["battles"] = [dataclasses.asdict(one) for one in seen]
    note = f"wrote {made.path}{failed}; next:"
    page = [
        findings_table(made.findings),
        "",
        *notes,
        *(look_page(seen, battles) if battles else []),
        note,
        "\n" + "\n".join(steps),
    ]
    show_page(page, style, data=record)


def import_(
    name: Annotated[str, typer.Argument(help="Name the member gets.")],
    scores: Annotated[
        Path,
        typer.Option("--scores", help="CSV, parquet or JSONL: id, p_a, p_b, p_tie[, fold, n_tokens], or alike."),
    ],
    labels: Annotated[Path, typer.Option("--labels", help="Battles that the scores are of; ids and winners are enough.")],
    columns: Annotated[
        str | None,
        typer.Option("--columns", metavar="NAMES", help="Other columns: a=..., b=..., tie=..., id=..., with commas between."),
    ] = None,
    target: TargetName = "t4x2",
    load_seconds: Annotated[float, typer.Option("--load-seconds", min=0, help="From process start to first row.")] = 0.0,
    seconds_per_row: Annotated[float | None, typer.Option("--seconds-per-row", min=0, help="Of one copy.")] = None,
    seconds_per_1k_tokens: Annotated[
        float | None, typer.Option("--seconds-per-1k-tokens", min=0, help="Of one copy; the table needs n_tokens.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=0, help="GPUs that one copy takes. Default: all of the target.")
    ] = None,
    like: Annotated[
        str, typer.Option("--like", metavar="ENTRY[@VARIANT]", help="As dear as this entry, as `zoo cost` forecasts it.")
    ] = "",
    max_bad_rows: MaxBadRows = MOST_BAD,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Take a score table made elsewhere as a member beside the zoo's own.

    What cannot be right is refused, with row ids. What it is is shown: its log loss beside guessing, what it replaces, what was
    mended in reading, and what looks wrong (in-sample, partly leaked from the labels, worse than guessing).

    Its price is declared in seconds, or is that of an entry of the zoo; without one `ensemble build` asks for it.

    Example: zoo import theirs --scores oof.csv --labels battles.csv --target t4x2 --load-seconds 90 --seconds-per-row 0.6

    Example: zoo import theirs --scores oof.csv --labels battles.csv --like llama-3-8b@ab-2048

    Example: zoo import theirs --scores oof.parquet --labels battles.csv --columns a=x0,b=x1,tie=x2 --seconds-per-row 0.6
    """
    from zoo.experiments.imports import admit
    from zoo.pipeline.import_table import import_scores
    from zoo.pipeline.table_columns import parse_columns
    from zoo.settings import store_folder

    style = style_of(output, as_json)
    imported = import_scores(
        name,
        scores,
        labels,
        target=target,
        load_seconds=load_seconds,
        seconds_per_row=seconds_per_row,
        seconds_per_1k_tokens=seconds_per_1k_tokens,
        gpus=gpus,
        like=like,
        columns=parse_columns(columns) if columns is not None else None,
        store=store_folder(),
        say=say,
        most_bad=max_bad_rows,
    )
    page, record = admit(imported, store_folder())
    show_page(page, style, data=record)
