"""`zoo data mine` and `zoo data label`: training data made of logs and of judges' verdicts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.base import AsJson, Output, say, style_of
from zoo.cli.installed import check_installed
from zoo.report.text import Format, show

if TYPE_CHECKING:
    from zoo.contracts import Input, LabelRequest, MineRequest

ENTRY = "data"  # what these stages' artifacts are listed under: no entry of the zoo makes them


class Filter(StrEnum):
    """Filters of pairs; zoo/contracts/made.py has them, and that of --language."""

    identical = "identical"
    empty = "empty"
    cut = "cut"
    near_duplicate = "near-duplicate"
    coin_flip = "coin-flip"
    other_language = "other-language"


Out = Annotated[Path, typer.Option("-o", "--output", help="File to write: .csv, .csv.gz or .parquet; a report goes beside it.")]


Languages = Annotated[
    list[str] | None,
    typer.Option("--language", metavar="CODE", help="Only prompts in this language, or in none that is sure. Repeatable."),
]


def mine(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG...", help="Logs of conversations, in LMSYS-Chat-1M's shape.")],
    out: Out,
    rows: Annotated[
        int | None, typer.Option("--rows", min=1, help="At most this many pairs, in rounds over the prompts.")
    ] = None,
    per_prompt: Annotated[
        int | None, typer.Option("--per-prompt", min=1, help="At most this many pairs of a prompt. Default: 1 without --rows.")
    ] = None,
    never: Annotated[
        list[Path] | None,
        typer.Option("--never", metavar="FILE", help="Battles whose prompts, and near-copies, are left out. Repeatable."),
    ] = None,
    judged: Annotated[
        list[Path] | None,
        typer.Option("--judged", metavar="FILE", help="Only pairs that this file of preferences judges. Repeatable."),
    ] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="Of conversations that name none.")] = None,
    source: Annotated[
        str | None, typer.Option("--source", help="Of conversations that name none. Default: the log's name.")
    ] = None,
    language: Languages = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same pairs.")] = 0,
    style: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Make pairs of different models' answers to one prompt, from logs.

    A log is JSONL or parquet with conversation_id, model and conversation (messages of role and content), and where it has them
    source, licence and language. What cannot be used is counted by reason. The pairs have no labels: score them, or give a
    judge's table to `zoo data label`.

    Example: zoo data mine log.jsonl.gz -o pairs.csv.gz --licence CC-BY-NC-4.0

    Example: zoo data mine log.jsonl -o pairs.parquet --rows 20000 --never test.csv
    """
    from zoo.contracts import Log, MineRequest
    from zoo.data.languages import check_languages
    from zoo.data.rows import LARGE_ROW_CHARACTERS
    from zoo.report.made import mine_page

    check_installed()
    wanted = style_of(style, as_json)
    check_made(out, *logs, *(never or []), *(judged or []))
    request = MineRequest(
        entry=ENTRY,
        logs=tuple(Log(file=file_input(path), source=source or _stem(path), licence=licence) for path in logs),
        never=file_inputs(never),
        judged=file_inputs(judged),
        rows=rows,
        per_prompt=per_prompt or (None if rows else 1),
        most_characters=LARGE_ROW_CHARACTERS,
        languages=check_languages(language or ()),
        seed=seed,
    )
    report, beside = _make(request, out)
    show(mine_page(report, out, beside), wanted, data=report)


def label(
    pairs: Annotated[Path, typer.Argument(help="Pairs: of `zoo data mine`, or battles that a judge has labelled.")],
    human: Annotated[
        Path, typer.Option("--human", metavar="FILE", help="Battles that humans judged, some of them the judge too.")
    ],
    out: Out,
    judge: Annotated[
        list[Path] | None,
        typer.Option(
            "--judge", metavar="TABLE", help="Score table, labels or preferences. Default: PAIRS' own winners. Repeatable."
        ),
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option(
            "--map", metavar="REPORT", help="An earlier report, whose map serves judges that no human was asked beside."
        ),
    ] = None,
    drop: Annotated[
        list[Filter] | None,
        typer.Option(
            "--drop",
            metavar="FILTER",
            help="identical, empty (the default), cut, near-duplicate, coin-flip, other-language. Repeatable.",
        ),
    ] = None,
    language: Languages = None,
    style: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Turn judges' verdicts on pairs into shares of human votes, with a certificate.

    A map that is symmetric in A and B is fitted on battles that humans judged too, and judged by prompt folds beside the raw
    verdicts, the prior and length alone. A judge that is not below the prior is refused. Several score tables, as of both
    response orders, are pooled.

    Example: zoo data label llm_judged.csv.gz --human human_train.csv.gz -o labelled.csv.gz

    Example: zoo data label pairs.csv --judge gpt4.csv --human human.csv -o labelled.csv --drop cut
    """
    from zoo.contracts import LabelRequest
    from zoo.data.languages import check_languages
    from zoo.report.made import label_page

    check_installed()
    wanted = style_of(style, as_json)
    check_made(out, pairs, human, *(judge or []), maps)
    languages = check_languages(language or ())
    drops = [each.value for each in dict.fromkeys(drop or (Filter.identical, Filter.empty))]
    request = LabelRequest(
        entry=ENTRY,
        pairs=file_input(pairs),
        judges=file_inputs(judge),
        names=_judge_names(judge or []),
        human=file_input(human),
        source=_stem(pairs),
        maps=file_input(maps) if maps else None,
        drop=(*drops, *(["language"] if languages else [])),
        languages=languages,
    )
    report, beside = _make(request, out)
    show(label_page(report, out, beside), wanted, data=report)


def _make(request: MineRequest | LabelRequest, out: Path) -> tuple[dict[str, Any], Path]:
    """Run the stage or take its artifact, and put the file and its report where they were asked for."""
    from zoo.data.made import copy_out
    from zoo.pipeline.runner import run_stage
    from zoo.settings import store_folder
    from zoo.tracking.sync import log_stage

    artifact = run_stage(request, store_folder(), say=say)
    log_stage(artifact.manifest, artifact.path)
    beside = copy_out(artifact, out)
    say(f"{out}: from {artifact.path.name}")
    report: dict[str, Any] = json.loads(beside.read_bytes())
    return report, beside


def check_made(out: Path, *inputs: Path | None) -> None:
    """ZooError where a file or its report cannot be written, or would replace an input."""
    from zoo.data.made import beside, check_suffix
    from zoo.store import check_output

    check_suffix(out)
    for path in (out, beside(out)):
        check_output(path, *inputs)


def file_input(path: Path) -> Input:
    """A file as a stage's input, by its content."""
    from zoo.contracts import Input
    from zoo.reading import check_ordinary
    from zoo.store import file_sha256

    check_ordinary(path, mend="give a file")
    return Input(path=path.absolute(), fingerprint=file_sha256(path)[:16])


def file_inputs(paths: Sequence[Path] | None) -> tuple[Input, ...]:
    """Several files, each by its content."""
    return tuple(file_input(path) for path in paths or ())


def _judge_name(path: Path) -> str:
    """The member of a store's table, the judges of a table of `zoo data judge`, or the file's name."""
    from zoo.data.made import BESIDE
    from zoo.scores.tables import CARD, SCORES, read_card

    card, beside = path.parent / CARD, path.with_name(path.name + BESIDE)
    if path.name == SCORES and card.is_file():
        return read_card(card).member
    with suppress(OSError, ValueError, AttributeError):
        report = json.loads(beside.read_text())
        if report.get("stage") == "judge":
            return " + ".join(report["judges"])
    return _stem(path)


def _stem(path: Path) -> str:
    return path.name.split(".")[0] or path.name


def _judge_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """A name for each table: its member's or judges' where that is known, else the file's; numbered where two are the same."""
    names = [_judge_name(path) for path in paths]
    counts = Counter(names)
    return tuple(f"{name} {number}" if counts[name] > 1 else name for number, name in enumerate(names, start=1))
