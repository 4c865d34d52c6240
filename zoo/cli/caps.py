"""`zoo caps`: how much of a battle a model should read, by log loss and by hours."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.app import (
    MOST_BAD,
    Data,
    Fold,
    FoldRule,
    MaxBadRows,
    MaxRows,
    Name,
    Settings,
    Source,
    TargetName,
)
from zoo.cli.base import AsJson, Output, say, style_of
from zoo.cli.installed import check_installed
from zoo.errors import ZooError
from zoo.experiments.held import N_FOLDS, held_of
from zoo.report.text import Format, show

if TYPE_CHECKING:
    from zoo.contracts import Shares


class Kept(StrEnum):
    """What is kept of a field that is too long, as `prompt.keep` spells it."""

    end = "end"
    both_ends = "both_ends"


def caps(
    name: Name,
    data: Data,
    target: TargetName = "t4x2",
    caps: Annotated[
        str | None,
        typer.Option("--caps", metavar="N,N,...", help="Token caps. Default: 256,512,768,1024,1536,2048, as the model allows."),
    ] = None,
    shares: Annotated[
        list[str] | None,
        typer.Option("--shares", metavar="P,A,B", help="Shares of prompt and answers: 0.1,0.45,0.45. Repeatable."),
    ] = None,
    keep: Annotated[
        list[Kept] | None,
        typer.Option("--keep", metavar="WHAT", help="What is kept of a long text: end or both_ends. Repeatable."),
    ] = None,
    templates: Annotated[
        list[Path] | None,
        typer.Option("--templates", metavar="FILE", help="Text file with another prompt.template. Repeatable."),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Write what is worth its hours into the entry's variants.")] = False,
    fold: Fold = None,
    folds: Annotated[int, typer.Option("--folds", min=2, help="How many folds the prompts are dealt into.")] = N_FOLDS,
    fold_rule: FoldRule = None,
    score_rows: MaxRows = None,
    settings: Settings = None,
    source: Source = None,
    max_bad_rows: MaxBadRows = MOST_BAD,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Log loss and hours of a model by how much of a battle it reads.

    One trained checkpoint is scored at each cap, with each of the shares, ends and templates, on the same held-out rows; the
    entry's own are among them. A row that is the same tokens twice is scored once. Hours are of 25,000 such rows on the target.

    Stages that are missing run first; what is scored here is for the comparison alone, never a member. With --write the
    variants that are worth their hours join the entry's, for `zoo run` to score and `ensemble build` to choose from.

    Example: zoo caps smollm2-135m --data battles.csv --target t4x2

    Example: zoo caps smollm2-135m --data battles.csv --caps 256,512 --keep both_ends --shares 0.1,0.45,0.45 --write
    """
    from zoo.entries.load import load_entry, override
    from zoo.entries.variants import add_variants
    from zoo.experiments.caps import Asked, compare_caps
    from zoo.experiments.run import RunOptions
    from zoo.pipeline.adoption import read_template
    from zoo.report.caps import caps_page
    from zoo.settings import store_folder

    if write and settings:
        raise ZooError(
            "--write: the entry's file has not what --set changes; write that into it first, or leave one of them out"
        )
    check_installed()
    style = style_of(output, as_json)
    entry = override(load_entry(name), settings or [])
    asked = Asked(
        caps=_caps(caps),
        shares=tuple(map(_shares, shares or [])),
        keep=tuple(one.value for one in keep or []),
        templates=tuple(read_template(path, "--templates") for path in templates or []),
    )
    options = RunOptions(
        last="score",
        battles=data,
        target=target,
        held=held_of(fold, folds, fold_rule, data, say=say),
        score_rows=score_rows,
        source=source,
        most_bad=max_bad_rows,
    )
    compared = compare_caps(entry, asked, options, store_folder(), say=say)
    notes = [*compared.assumed, str(compared.figure)]
    record = compared.report.model_dump(mode="json") | {"assumed": compared.assumed, "figure": str(compared.figure)}
    if write:
        path, new = add_variants(name, compared.report.worthwhile)
        told = f"{', '.join(variant.slug for variant in new)} written" if new else "nothing to write: the entry has them all"
        notes += ["", f"{path}: {told}"]
        record |= {"written": [variant.slug for variant in new], "entry_file": str(path)}
    show(caps_page(compared.report, notes), style, data=record)


def _caps(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() and len(part) < 8 and int(part) > 0 for part in parts):
        raise ZooError(f"--caps {text}: write numbers of tokens, as in --caps 256,512,1024")
    return tuple(int(part) for part in parts)


def _shares(text: str) -> Shares:
    try:
        prompt, a, b = (float(part) for part in text.split(","))
    except ValueError:
        raise ZooError(f"--shares {text}: write three numbers, as in --shares 0.1,0.45,0.45") from None
    if not (min(prompt, a, b) >= 0 and abs(prompt + a + b - 1) <= 1e-6):
        raise ZooError(f"--shares {text}: shares of prompt, answer A and answer B must sum to 1")
    return prompt, a, b
