"""Chunks of a scoring run: which rows share a file, and the files themselves.

Rows are cut into chunks once, the longest first (or in the order listed). The response orders of one token cap share their
chunks, both orders of a battle side by side: they have the prompt in common, and the engine computes it once. A chunk is the
unit of everything: the engine starts each with an empty prefix cache, so that its numbers depend on its own rows alone,
whichever replica computes it and whatever was computed before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from zoo.contracts import ScoreSpec, Variant
from zoo.cost.fit import Piece
from zoo.scores.tables import CHUNKS, OK, label_probabilities, read_scores, score_table, write_scores
from zoo.stages.score.tally import TALLY
from zoo.stages.score.token_file import Encoding
from zoo.store import write_atomic

PLAN = "chunks.json"  # what the finished chunks belong to: digest of the plan, engine, machine


@dataclass(frozen=True)
class Chunk:
    """Rows scored together: the `index`-th chunk of variants that differ in response order only.

    `rows` are row numbers of the frame, in scoring order. The engine sees, for each of them, one row of each encoding.
    """

    encodings: tuple[Encoding, ...]
    index: int
    rows: np.ndarray

    @property
    def spans(self) -> np.ndarray:
        """(rows x orders, 2) start and stop in the token file, both orders of a battle adjacent."""
        starts = np.stack([e.starts[self.rows] for e in self.encodings], axis=1).ravel()
        lengths = np.stack([e.lengths[self.rows] for e in self.encodings], axis=1).ravel()
        return np.stack([starts, starts + lengths], axis=1)

    @property
    def tokens(self) -> int:
        return int(sum(e.lengths[self.rows].sum() for e in self.encodings))

    def files(self, out_dir: Path) -> list[Path]:
        return [chunk_file(out_dir, e.variant, self.index) for e in self.encodings]

    def done(self, out_dir: Path) -> bool:
        return all(file.exists() for file in self.files(out_dir))


@dataclass(frozen=True)
class Answer:
    """What the engine said of a chunk's rows, in the order of its spans.

    `logits` (n, 3), NaN where refused; `cached` (n,) tokens not computed since another row of the chunk had the same prefix;
    `refused`: row -> the engine's reason.
    """

    logits: np.ndarray
    cached: np.ndarray
    refused: Mapping[int, str]
    seconds: float


def join_answers(rows: Sequence[Answer]) -> Answer:
    """The answer to a chunk whose rows were scored one by one."""
    return Answer(
        np.concatenate([row.logits for row in rows]),
        np.concatenate([row.cached for row in rows]),
        {i: reason for i, row in enumerate(rows) for reason in row.refused.values()},
        sum(row.seconds for row in rows),
    )


def chunk_file(out_dir: Path, variant: Variant, index: int) -> Path:
    return out_dir / variant.slug / CHUNKS / f"{index:05d}.parquet"


def plan_chunks(encodings: Sequence[Encoding], spec: ScoreSpec, *, listed: bool) -> list[Chunk]:
    """All chunks of a run in the order they are scored.

    Token caps come in turn, each with its longest (or first listed) rows first. A chunk holds at most `chunk_rows` rows,
    counting each response order.
    """
    caps: dict[int | None, list[Encoding]] = {}
    for encoding in encodings:
        caps.setdefault(encoding.variant.max_tokens, []).append(encoding)
    keyed = []
    for group, members in enumerate(caps.values()):
        lengths = np.sum([e.lengths for e in members], axis=0)
        order = np.arange(len(lengths)) if listed else np.argsort(-lengths, kind="stable")
        size = max(1, spec.chunk_rows // len(members))
        for index, begin in enumerate(range(0, len(order), size)):
            keyed.append(((begin, group), Chunk(tuple(members), index, order[begin : begin + size])))
    return [chunk for _, chunk in sorted(keyed, key=lambda item: item[0])]


def adopt(chunks: Sequence[Chunk], ids: Sequence[str], out_dir: Path, *, engine: str, machine: str) -> str:
    """Keep the finished chunks of an earlier part if they are of this very run.

    Returns why they were thrown away, empty where not. Of another plan their rows would not be these. Of another engine or
    machine their numbers differ in the last digits and their seconds at all, while one table names one engine and one price one
    machine.
    """
    digest = hashlib.sha256("\n".join(ids).encode())
    for chunk in chunks:
        digest.update(f"{chunk.index} {[e.variant.slug for e in chunk.encodings]} ".encode() + chunk.rows.tobytes())
    wanted = {"sha256": digest.hexdigest(), "engine": engine, "machine": machine}
    path = out_dir / PLAN
    known = json.loads(path.read_text()) if path.exists() else None
    if known == wanted:
        return ""
    files = {file for chunk in chunks for folder in chunk.files(out_dir) for file in folder.parent.glob("*")}
    for file in files:
        file.unlink()
    (out_dir / TALLY).unlink(missing_ok=True)  # the sums are of those chunks; before the plan, in case this is where it ends
    write_atomic(path, json.dumps(wanted))
    if known is None or not files:
        return ""
    differ = [f"{key} was {known.get(key, 'not noted')}" for key in ("engine", "machine") if known.get(key) != wanted[key]]
    return "; ".join(differ) or "the plan of chunks was another"


def write_chunk(chunk: Chunk, ids: Sequence[str], answer: Answer, out_dir: Path) -> None:
    """A file for each variant, its timing beside it.

    A file that is there is final and stays as it is.
    """
    seconds = alone_seconds(chunk, answer)
    for v, encoding in enumerate(chunk.encodings):
        file = chunk_file(out_dir, encoding.variant, chunk.index)
        if file.exists():
            continue
        lengths = encoding.lengths[chunk.rows]
        piece = Piece(len(lengths), int(lengths.sum()), int((lengths * lengths).sum()), float(seconds[v]))
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file.with_suffix(".json"), json.dumps(asdict(piece)))
        write_scores(chunk_table(chunk, v, ids, answer), file)


def chunk_table(chunk: Chunk, v: int, ids: Sequence[str], answer: Answer) -> pd.DataFrame:
    """Score-table rows of the `v`-th variant of a chunk.

    A row without numbers keeps the reason why.
    """
    encoding, width = chunk.encodings[v], len(chunk.encodings)
    logits = answer.logits[v::width]
    finite = np.isfinite(logits).all(axis=1)
    p = np.full((len(logits), 3), np.nan)
    p[finite] = label_probabilities(logits[finite], encoding.variant.order)
    status = [OK if ok else "not finite: the engine returned no number" for ok in finite]
    for i, reason in answer.refused.items():
        if i % width == v:
            status[i // width] = f"refused: {reason}"
    lengths, truncated = encoding.lengths[chunk.rows], encoding.truncated[chunk.rows]
    return score_table([ids[row] for row in chunk.rows], p, n_tokens=lengths, n_truncated_tokens=truncated, status=status)


def alone_seconds(chunk: Chunk, answer: Answer) -> np.ndarray:
    """Seconds that each variant of a chunk would take by itself (orders,).

    Variants are priced one by one, and one that is scored alone has nobody to share the prompt with: time goes by computed
    tokens, and a second order's are taken as those of the order that was computed first.
    """
    width = len(chunk.encodings)
    lengths = np.stack([e.lengths[chunk.rows] for e in chunk.encodings], axis=1)
    cached = answer.cached.reshape(-1, width)
    computed = max(1, int((lengths - cached).sum()))
    alone = lengths - np.minimum(cached.min(axis=1, keepdims=True), lengths - 1)
    seconds: np.ndarray = answer.seconds * alone.sum(axis=0) / computed
    return seconds


def read_pieces(encoding: Encoding, count: int, out_dir: Path) -> tuple[list[pd.DataFrame], list[Piece]]:
    """Tables and timings of a variant's `count` finished chunks."""
    files = [chunk_file(out_dir, encoding.variant, index) for index in range(count)]
    pieces = [Piece(**json.loads(file.with_suffix(".json").read_text())) for file in files]
    return [read_scores(file) for file in files], pieces
