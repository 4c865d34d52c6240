"""`zoo data prompts`: which prompts of a pool models are to answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.base import AsJson, Output, say, style_of
from zoo.cli.installed import check_installed
from zoo.cli.made import ENTRY, file_input, file_inputs
from zoo.report.text import Format, show


def prompts(
    pool: Annotated[Path, typer.Argument(help="Battles, a log, or JSONL with `prompt` or `conversation`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .jsonl or .jsonl.gz; a report goes beside it.")],
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many. A larger sample holds the smaller one.")],
    like: Annotated[
        Path | None, typer.Option("--like", metavar="FILE", help="Match the languages, lengths, turns and topics of this.")
    ] = None,
    worst_of: Annotated[
        list[Path] | None,
        typer.Option("--worst-of", metavar="TABLE", help="Out-of-fold probabilities: where their loss is worst. Repeatable."),
    ] = None,
    battles: Annotated[
        Path | None, typer.Option("--battles", metavar="FILE", help="What --worst-of is of, with labels.")
    ] = None,
    floor: Annotated[float, typer.Option("--floor", help="Share that chance alone draws: nothing is without any.")] = 0.15,
    never: Annotated[
        list[Path] | None,
        typer.Option("--never", metavar="FILE", help="Prompts that are left out, with near-copies. Repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same prompts.")] = 0,
    style: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Choose prompts for models to answer: like a file's, or where held-out loss is worst.

    Prompts that the file or the battles ask themselves are left out, with near-copies: they would be masked wherever those are
    held out. Every row has the chance that it had, and they stand in the order in which a growing sample takes them.

    Example: zoo data prompts log.jsonl.gz --like test.csv --rows 2000 -o prompts.jsonl

    Example: zoo data prompts log.jsonl.gz --worst-of oof.csv --battles train.csv --rows 2000 -o prompts.jsonl
    """
    from zoo.contracts import PromptsRequest
    from zoo.data.made import CHOSEN, beside, copy_out
    from zoo.errors import ZooError
    from zoo.pipeline.runner import run_stage
    from zoo.report.chosen import prompts_page
    from zoo.settings import store_folder
    from zoo.store import check_output
    from zoo.tracking.sync import log_stage

    check_installed()
    wanted = style_of(style, as_json)
    if (like is None) == (not worst_of):
        raise ZooError(
            "give --like FILE, or --worst-of TABLE with --battles FILE; `zoo data generate --rows` takes any prompts"
        )
    if bool(worst_of) != (battles is not None):
        raise ZooError("--worst-of and --battles go together: the table's loss is that of the battles' labels")
    if not 0.01 <= floor <= 1:
        raise ZooError(f"--floor {floor:g}: give a share from 0.01 to 1; without a floor some prompts could never be drawn")
    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise ZooError(f"{out}: name a file that ends in .jsonl or .jsonl.gz")
    for path in (out, beside(out)):
        check_output(path, pool, like, battles, *(worst_of or []), *(never or []))
    request = PromptsRequest(
        entry=ENTRY,
        pool=file_input(pool),
        like=file_input(like) if like else None,
        worst_of=file_inputs(worst_of),
        battles=file_input(battles) if battles else None,
        never=file_inputs(never),
        rows=rows,
        floor=floor,
        seed=seed,
    )
    artifact = run_stage(request, store_folder(), say=say)
    log_stage(artifact.manifest, artifact.path)
    written = copy_out(artifact, out, CHOSEN)
    say(f"{out}: from {artifact.path.name}")
    report = json.loads(written.read_bytes())
    show(prompts_page(report, out, written), wanted, data=report)
