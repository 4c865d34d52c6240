"""Score battles with vLLM: the probabilities of the three labels, row by row, chunked and resumable.

Rows are cut into chunks once, the longest first (or in the order listed), and each finished chunk is a file under
`<variant>/chunks/`. A killed run loses at most one chunk a variant; since a chunk always holds the same rows and starts from an
empty prefix cache, the resumed run ends with the same table.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from zoo.battles import assign_folds, dataset_digest, read_battles, select_rows, unusable_ids
from zoo.contracts import Cost, Measurements, ScoreCard, ScoreRequest, StageResult, Variant
from zoo.cost import Piece, fit_cost
from zoo.errors import ZooError
from zoo.metrics import score_metrics
from zoo.prompts import Codec, Encoded, encode_battles, label_probabilities, load_codec
from zoo.scores import probabilities, read_scores, score_table, unscored_table, write_card, write_scores
from zoo.stages import progress
from zoo.stages.engine import Engine, engine_arguments, engine_version, prepare_environment
from zoo.store import write_atomic
from zoo.targets import load_target, machine_fingerprint

ENCODE_ROWS = 1024  # battles tokenized at a time
LOADING = "loading.json"  # kept apart: a resumed run whose chunks are all there starts no engine
BAD_ROW = "bad row: see `zoo data validate`"


@dataclass(frozen=True)
class Loading:
    """What came before the first row: `load_seconds` whatever the file, `prepare_seconds` of reading and tokenizing it."""

    load_seconds: float
    prepare_seconds: float


@dataclass(frozen=True)
class Work:
    """One variant's rows in the order they are scored: ids, token ids, and what was cut off."""

    variant: Variant
    ids: list[str]
    encoded: list[Encoded]

    def lengths(self) -> np.ndarray:
        return np.array([len(e.ids) for e in self.encoded], dtype=np.int64)


def run(request: ScoreRequest, out_dir: Path) -> StageResult:
    """Write `<variant>/scores.parquet` and `<variant>/scores.json` for each of the request's variants."""
    prepare_environment()
    from zoo.stages.labels import gpu_peak_bytes

    folder = request.model.path / "model"
    codec = load_codec(folder, request.prompt)
    started = progress.process_age_seconds()
    battles = read_battles(request.battles.path)
    frame = select_rows(battles, request.selection, request.held)
    if frame.empty:
        raise ZooError(f"{request.battles.path}: no rows to score ({request.selection.rows})")
    works = [prepare(frame, variant, codec, request) for variant in request.spec.variants]
    prepare_seconds = progress.process_age_seconds() - started
    todo = [(work, index) for index in range(chunk_count(works[0], request)) for work in works]
    todo = [(work, index) for work, index in todo if not chunk_file(out_dir, work.variant, index).exists()]
    if todo:
        engine = start_engine(folder, works, codec, request)
        load_seconds = progress.process_age_seconds() - prepare_seconds
        write_atomic(out_dir / LOADING, json.dumps(asdict(Loading(load_seconds, prepare_seconds))))
        score_chunks(engine, todo, request, out_dir)
    loading = Loading(**json.loads((out_dir / LOADING).read_text()))
    tokens = int(sum(work.lengths().sum() for work in works))
    metrics: dict[str, float] = {}
    bad, digest, run_seconds = unusable_ids(battles, request.selection), dataset_digest(battles), loading.prepare_seconds
    for work in works:
        tables, pieces = zip(*chunk_tables(work, request, out_dir), strict=True)
        run_seconds += sum(piece.seconds for piece in pieces)
        cost = price(pieces, loading, tokens, request)
        metrics |= finish(work, assemble(work, tables, frame, bad, request), frame, cost, request, out_dir, digest)
    return StageResult(
        metrics=metrics,
        measurements=Measurements(
            load_seconds=loading.load_seconds,
            run_seconds=run_seconds,
            rows=sum(len(w.ids) for w in works),
            tokens=tokens,
            peak_bytes=gpu_peak_bytes(),
        ),
    )


def prepare(frame: pd.DataFrame, variant: Variant, codec: Codec, request: ScoreRequest) -> Work:
    """Tokenize the rows of a variant and put them in scoring order: longest first, or as listed."""
    turns = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
    encoded: list[Encoded] = []
    for start in range(0, len(turns), ENCODE_ROWS):
        part = turns[start : start + ENCODE_ROWS]
        encoded += encode_battles(part, codec, request.prompt, variant.order, variant.max_tokens)
    order = list(range(len(encoded)))
    if request.selection.rows != "listed":
        order.sort(key=lambda i: -len(encoded[i].ids))
    ids = frame["id"].tolist()
    return Work(variant, [ids[i] for i in order], [encoded[i] for i in order])


def start_engine(folder: Path, works: list[Work], codec: Codec, request: ScoreRequest) -> Engine:
    """Load the model for the longest row there is, and warm it up with one short row."""
    progress.note(f"loading {folder.parent.name} into {engine_version()}")
    longest = max(int(work.lengths().max()) for work in works)
    arguments = engine_arguments(folder, request.spec, request.serve, longest, load_target(request.target).gpus)
    engine = Engine(arguments, codec.label_ids)
    engine.logits([min((e.ids for w in works for e in w.encoded), key=len)])
    return engine


def chunk_count(work: Work, request: ScoreRequest) -> int:
    return -(-len(work.ids) // request.spec.chunk_rows)


def chunk_file(out_dir: Path, variant: Variant, index: int) -> Path:
    return out_dir / variant.slug / "chunks" / f"{index:05d}.parquet"


def score_chunks(engine: Engine, todo: list[tuple[Work, int]], request: ScoreRequest, out_dir: Path) -> None:
    """Score and write the chunks that are not there yet."""
    size = request.spec.chunk_rows
    started = time.monotonic()
    total = sum(len(work.ids[i * size : (i + 1) * size]) for work, i in todo)
    tokens = 0
    with progress.bar(total, "score", "row") as bar:
        for work, index in todo:
            begun = time.monotonic()
            ids, encoded = work.ids[index * size : (index + 1) * size], work.encoded[index * size : (index + 1) * size]
            table = score_rows(engine, ids, encoded, work.variant)
            file = chunk_file(out_dir, work.variant, index)
            file.parent.mkdir(parents=True, exist_ok=True)
            piece = measure(encoded, time.monotonic() - begun)
            write_atomic(file.with_suffix(".json"), json.dumps(asdict(piece)))
            write_scores(table, file)
            tokens += piece.tokens
            bar.set_postfix(tokens_s=f"{tokens / (time.monotonic() - started):.0f}", variant=work.variant.slug)
            bar.update(len(ids))


def measure(encoded: list[Encoded], seconds: float) -> Piece:
    lengths = [len(e.ids) for e in encoded]
    return Piece(len(lengths), sum(lengths), sum(n * n for n in lengths), seconds)


def score_rows(engine: Engine, ids: list[str], encoded: list[Encoded], variant: Variant) -> pd.DataFrame:
    """Score-table rows of one chunk. If the engine refuses the chunk, rows go one by one and keep the reason of the refusal."""
    status = ["ok"] * len(ids)
    try:
        logits = engine.logits([e.ids for e in encoded])
    except ValueError:
        logits = np.full((len(ids), 3), np.nan)
        for i, row in enumerate(encoded):
            try:
                logits[i] = engine.logits([row.ids])[0]
            except ValueError as error:
                status[i] = f"refused: {str(error).splitlines()[0][:200]}"
    finite = np.isfinite(logits).all(axis=1)
    p = np.full((len(ids), 3), np.nan)
    p[finite] = label_probabilities(logits[finite], variant.order)
    for i in np.flatnonzero(~finite):
        status[i] = status[i] if status[i] != "ok" else "not finite: the engine returned no number"
    lengths = [len(e.ids) for e in encoded]
    return score_table(ids, p, n_tokens=lengths, n_truncated_tokens=[e.n_truncated for e in encoded], status=status)


def chunk_tables(work: Work, request: ScoreRequest, out_dir: Path) -> Iterator[tuple[pd.DataFrame, Piece]]:
    for index in range(chunk_count(work, request)):
        file = chunk_file(out_dir, work.variant, index)
        yield read_scores(file), Piece(**json.loads(file.with_suffix(".json").read_text()))


def price(pieces: Sequence[Piece], loading: Loading, tokens: int, request: ScoreRequest) -> Cost:
    """The cost of a variant from its chunks. Reading and tokenizing grow with the file, so they go to the chunks by tokens."""
    a_token = loading.prepare_seconds / max(1, tokens)
    target = load_target(request.target)
    return fit_cost(
        [replace(piece, seconds=piece.seconds + a_token * piece.tokens) for piece in pieces],
        load_seconds=loading.load_seconds,
        target=request.target,
        machine=machine_fingerprint(),
        gpus=min(target.gpus, 1) if request.serve.layout == "replicas" else target.gpus,
    )


def assemble(
    work: Work, tables: Sequence[pd.DataFrame], frame: pd.DataFrame, bad: list[str], request: ScoreRequest
) -> pd.DataFrame:
    """A variant's whole table in the file's order, rows that could not be read at the end with their status."""
    table = pd.concat([*tables, unscored_table(bad, BAD_ROW)] if bad else tables)
    table = table.set_index("id").loc[[*frame["id"], *bad]].reset_index()
    if request.selection.rows == "held_out":
        table["fold"] = assign_folds(frame, request.held.n_folds)
    return table


def finish(
    work: Work, table: pd.DataFrame, frame: pd.DataFrame, cost: Cost, request: ScoreRequest, out_dir: Path, digest: str
) -> dict[str, float]:
    """Write a variant's table with its card, and return its metrics."""
    slug = work.variant.slug
    write_scores(table, out_dir / slug / "scores.parquet")
    failed = int((table["status"] != "ok").sum())
    card = ScoreCard(
        member=f"{request.entry}@{slug}",
        entry=request.entry,
        variant=work.variant,
        target=request.target,
        engine=engine_version(),
        dataset_digest=digest,
        rows=len(table),
        failed_rows=failed,
        checkpoint=request.model.fingerprint,
        cost=cost,
        request=request.model_dump(mode="json"),
    )
    write_card(card, out_dir / slug / "scores.json")
    return metrics_of(table, frame, slug, failed)


def metrics_of(table: pd.DataFrame, frame: pd.DataFrame, slug: str, failed: int) -> dict[str, float]:
    """Counts, and where the battles are labelled the log loss and its parts, each under the variant's name."""
    counts: dict[str, Any] = {
        "rows/failed": failed,
        "rows/truncated": int((table["n_truncated_tokens"] > 0).sum()),
        "rows/mean_tokens": float(table["n_tokens"].mean()),
    }
    ok = (table["status"].to_numpy() == "ok")[: len(frame)] & (frame["label"].to_numpy() >= 0)
    if ok.any():
        labels, lengths = frame["label"].to_numpy()[ok], table["n_tokens"].to_numpy()[: len(frame)][ok]
        counts |= score_metrics(probabilities(table)[: len(frame)][ok], labels, lengths)
    return {f"{slug}:{name}": float(value) for name, value in counts.items()}
