"""Chunks of a scoring run: which rows share a file, and the files themselves.

Rows are cut into chunks once, the longest first (or in the order listed). The response orders of one token cap share their
chunks, both orders of a battle side by side: they have the prompt in common, and the engine computes it once. A chunk is the
unit of everything: the engine starts each with an empty prefix cache, so that its numbers depend on its own rows alone,
whichever replica computes it and whatever was computed before.

A row that is the same tokens in several variants, since it is whole under both caps say, is in a chunk of the first of them
alone. The others take its numbers: a finished chunk leaves a file for every variant that has rows in it.
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
from zoo.pipeline.runners.hosts import kind_of
from zoo.scores.tables import CHUNKS, OK, label_probabilities, read_scores, score_table, write_scores
from zoo.stages.score.tally import TALLY
from zoo.stages.score.token_file import Encoding
from zoo.store import write_atomic

PLAN = "chunks.json"  # what the finished chunks belong to: digest of the plan, engine, machine


@dataclass(frozen=True)
class Part:
    """A variant's rows in a chunk, at `places` of it.

    They are the same tokens as in the chunk's `source`-th encoding: the variant's own, or the one whose numbers it takes.
    """

    encoding: Encoding
    source: int
    places: np.ndarray


@dataclass(frozen=True)
class Chunk:
    """Rows scored together: the `index`-th chunk of a run.

    Its `encodings` are of variants that differ in response order only; `takers` have the numbers, too. `rows` are row numbers
    of the frame, in scoring order. The engine sees, for each of them, one row of each encoding.
    """

    encodings: tuple[Encoding, ...]
    index: int
    rows: np.ndarray
    takers: tuple[Part, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every variant that has rows here: the scored ones, then those that take their numbers."""
        whole = np.arange(len(self.rows))
        return (*(Part(encoding, v, whole) for v, encoding in enumerate(self.encodings)), *self.takers)

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
        return [chunk_file(out_dir, part.encoding.variant, self.index) for part in self.parts]

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

    Token caps (and other ways to read rows) come in turn, each with its longest (or first listed) rows first. A chunk holds at
    most `chunk_rows` rows, counting each response order.
    """
    by_reading: dict[object, list[Encoding]] = {}
    for encoding in encodings:
        by_reading.setdefault(encoding.variant.reads, []).append(encoding)
    groups = list(by_reading.values())
    owners = owners_of(groups)
    keyed = []
    for group, members in enumerate(groups):
        lengths = np.sum([e.lengths for e in members], axis=0)
        order = np.arange(len(lengths)) if listed else np.argsort(-lengths, kind="stable")
        order = order[owners[group][order] == group]
        size = max(1, spec.chunk_rows // len(members))
        keyed += [((begin, group), order[begin : begin + size]) for begin in range(0, len(order), size)]
    return [
        Chunk(tuple(groups[group]), index, rows, _takers(groups, group, [owner[rows] == group for owner in owners]))
        for index, ((_, group), rows) in enumerate(sorted(keyed, key=lambda item: item[0]))
    ]


def owners_of(groups: Sequence[Sequence[Encoding]]) -> list[np.ndarray]:
    """For each group of variants the group (rows,) that scores its rows.

    It is the first with the same tokens in each order.
    """
    found: list[np.ndarray] = []
    for number, members in enumerate(groups):
        owner = np.full(len(members[0].starts), number)
        for earlier in reversed(range(number)):
            by_order = {encoding.variant.order: encoding.starts for encoding in groups[earlier]}
            if all(one.variant.order in by_order for one in members):
                same = np.all([by_order[one.variant.order] == one.starts for one in members], axis=0)
                owner[same] = found[earlier][same]
        found.append(owner)
    return found


def _takers(groups: Sequence[Sequence[Encoding]], group: int, taken: Sequence[np.ndarray]) -> tuple[Part, ...]:
    """What other groups take of a chunk of the `group`-th.

    `taken`: for each group, which of the chunk's rows it leaves to this one.
    """
    sources = {encoding.variant.order: v for v, encoding in enumerate(groups[group])}
    return tuple(
        Part(encoding, sources[encoding.variant.order], np.flatnonzero(rows))
        for other, (members, rows) in enumerate(zip(groups, taken, strict=True))
        if other != group and rows.any()
        for encoding in members
    )


def adopt(chunks: Sequence[Chunk], ids: Sequence[str], out_dir: Path, *, engine: str, machine: str) -> str:
    """Keep the finished chunks of an earlier part if they are of this very run.

    Returns why they were thrown away, empty where not. Of another plan their rows would not be these. Of another engine or kind
    of machine their numbers differ in the last digits and their seconds at all, while one table names one engine and one price
    one machine. How many cards a host has changes neither: another runner sees them one by one.
    """
    digest = hashlib.sha256("\n".join(ids).encode())
    for chunk in chunks:
        digest.update(f"{chunk.index} {[e.variant.slug for e in chunk.encodings]} ".encode() + chunk.rows.tobytes())
        for taker in chunk.takers:
            digest.update(f"{taker.encoding.variant.slug} ".encode() + taker.places.tobytes())
    wanted = {"sha256": digest.hexdigest(), "engine": engine, "machine": machine}
    path = out_dir / PLAN
    known = json.loads(path.read_text()) if path.exists() else None
    if known and _alike(known) == _alike(wanted):
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


def _alike(plan: Mapping[str, str]) -> dict[str, str]:
    """What has to be the same for chunks to stand in one table."""
    return {**plan, "machine": kind_of(plan.get("machine", ""))}


def write_chunk(chunk: Chunk, ids: Sequence[str], answer: Answer, out_dir: Path) -> None:
    """A file for each variant that has rows here.

    Beside those of the scored ones lies their timing. A file that is there is final and stays as it is.
    """
    seconds = alone_seconds(chunk, answer)
    for number, (part, file) in enumerate(zip(chunk.parts, chunk.files(out_dir), strict=True)):
        if file.exists():
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        if number < len(chunk.encodings):
            lengths = part.encoding.lengths[chunk.rows]
            piece = Piece(len(lengths), int(lengths.sum()), int((lengths * lengths).sum()), float(seconds[number]))
            write_atomic(file.with_suffix(".json"), json.dumps(asdict(piece)))
        write_scores(chunk_table(chunk, part, ids, answer), file)


def chunk_table(chunk: Chunk, part: Part, ids: Sequence[str], answer: Answer) -> pd.DataFrame:
    """Score-table rows of one variant of a chunk.

    A row without numbers keeps the reason why.
    """
    encoding, width = part.encoding, len(chunk.encodings)
    rows, logits = chunk.rows[part.places], answer.logits[part.source :: width]
    finite = np.isfinite(logits).all(axis=1)
    p = np.full((len(logits), 3), np.nan)
    p[finite] = label_probabilities(logits[finite], encoding.variant.order)
    status = [OK if ok else "not finite: the engine returned no number" for ok in finite]
    for i, reason in answer.refused.items():
        if i % width == part.source:
            status[i // width] = f"refused: {reason}"
    return score_table(
        [ids[row] for row in rows],
        p[part.places],
        n_tokens=encoding.lengths[rows],
        n_truncated_tokens=encoding.truncated[rows],
        status=[status[place] for place in part.places],
    )


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


def read_pieces(encoding: Encoding, chunks: Sequence[Chunk], out_dir: Path) -> tuple[list[pd.DataFrame], list[Piece]]:
    """A variant's tables out of finished chunks, and the timings of these.

    Where it takes another's numbers the timing is of all the rows that were scored there: what it costs goes by tokens.
    """
    tables, pieces = [], []
    for chunk in chunks:
        part = next((part for part in chunk.parts if part.encoding is encoding), None)
        if part is None:
            continue
        tables.append(read_scores(chunk_file(out_dir, encoding.variant, chunk.index)))
        timed = chunk_file(out_dir, chunk.encodings[part.source].variant, chunk.index).with_suffix(".json")
        pieces.append(Piece(**json.loads(timed.read_text())))
    return tables, pieces
