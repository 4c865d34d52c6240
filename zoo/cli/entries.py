"""`zoo list`, `show`, `check`, `register` and `import`: entries, and tables made elsewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import Format, Name, TargetName, app


@app.command("list")
def list_(output: Annotated[Format, typer.Option("--format", help="table, markdown or json.")] = Format.table) -> None:
    """Entries of the zoo, and which of their stages are in the store."""
    from zoo.report.views import entries_table

    typer.echo(entries_table(output.value))


@app.command()
def show(name: Name) -> None:
    """An entry's settings, every default filled in, as TOML."""
    from zoo.entries.load import load_entry
    from zoo.report.views import entry_toml

    typer.echo(entry_toml(load_entry(name)))


@app.command()
def check(
    name: Name,
    target: TargetName = "t4x2",
    train: Annotated[bool, typer.Option("--train", help="Check training on one of its cards, too.")] = False,
    engine: Annotated[str | None, typer.Option("--engine", help="Version of vLLM there; default: the one here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False,
) -> None:
    """Whether an entry can serve on a target, what does not hold, and the mend.

    Exit code 1 if anything fails.
    """
    from zoo.checks import check_entry
    from zoo.entries.load import load_entry
    from zoo.pipeline.weights import fetched_folder
    from zoo.report.views import findings_table
    from zoo.settings import store_folder
    from zoo.targets import load_target

    entry = load_entry(name)
    folder = fetched_folder(entry, store_folder())
    findings = check_entry(entry, load_target(target), model_folder=folder, train=train, engine=engine)
    typer.echo(json.dumps([f.model_dump() for f in findings], indent=1) if as_json else findings_table(findings))
    if any(f.verdict == "fail" for f in findings):
        raise typer.Exit(1)


@app.command()
def register(
    name: Annotated[str, typer.Argument(help="Name of the new entry.")],
    base: Annotated[str, typer.Option("--base", help="Model folder, or ORG/MODEL on the hub.")],
    target: TargetName = "t4x2",
    out: Annotated[Path | None, typer.Option("--out", help="Default: first of ZOO_ENTRIES, else ./entries.")] = None,
) -> None:
    """Write a new entry from a model's own config and tokenizer, and check it.

    It is checked against the target, and the command to run next is shown.
    """
    from zoo.entries.register import next_steps
    from zoo.entries.register import register as write_entry
    from zoo.report.views import findings_table

    own = os.environ.get("ZOO_ENTRIES", "").split(os.pathsep)[0] or "entries"
    made = write_entry(name, base, target, out or Path(own))
    typer.echo(findings_table(made.findings))
    failed = f", which fails {made.failed} of its checks on {target}" if made.failed else ""
    typer.echo(f"\nwrote {made.path}{failed}; next:\n")
    typer.echo("\n".join(next_steps(made.path, target, base, failed=made.failed)))


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="Name the member gets.")],
    scores: Annotated[
        Path,
        typer.Option("--scores", help="CSV or parquet: id, p_a, p_b, p_tie[, fold, n_tokens]."),
    ],
    labels: Annotated[Path, typer.Option("--labels", help="CSV of labelled battles that the scores are of.")],
    target: TargetName = "t4x2",
    load_seconds: Annotated[float, typer.Option("--load-seconds", min=0, help="From process start to first row.")] = 0.0,
    seconds_per_row: Annotated[float | None, typer.Option("--seconds-per-row", min=0, help="Of one copy.")] = None,
    seconds_per_1k_tokens: Annotated[
        float | None, typer.Option("--seconds-per-1k-tokens", min=0, help="Of one copy; the table needs n_tokens.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=0, help="GPUs that one copy takes. Default: all of the target.")
    ] = None,
) -> None:
    """Take a score table made elsewhere as a member beside the zoo's own.

    What cannot be right is refused, with row ids.
    """
    from zoo.pipeline.import_table import import_scores
    from zoo.settings import store_folder
    from zoo.store import read_manifest
    from zoo.tracking.stages import log_stage

    path = import_scores(
        name,
        scores,
        labels,
        target=target,
        load_seconds=load_seconds,
        seconds_per_row=seconds_per_row,
        seconds_per_1k_tokens=seconds_per_1k_tokens,
        gpus=gpus,
        store=store_folder(),
    )
    log_stage(read_manifest(path), path)
    typer.echo(path)
