"""The score stage: label probabilities of every battle by an engine, resumable by chunks.

This process tokenizes, hands chunks to the engines (each a process of its own, watched over by `engines`), and writes what
comes back: each finished chunk is a file under `<variant>/chunks/`. A killed run or engine loses one chunk a replica; since a
chunk always holds the same rows and starts from an empty prefix cache, the resumed run ends with the same table.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from zoo.contracts import Cost, Measurements, ScoreCard, ScoreRequest, StageResult, Variant
from zoo.cost.fit import Piece, fit_cost
from zoo.data.battles import Battles, dataset_digest, read_battles
from zoo.data.learned import POSSIBLY, WHOLLY, Learned, read_learned, seen, select_held_out
from zoo.data.splits import folds_of, groups_of, unusable_ids
from zoo.errors import ZooError
from zoo.models.prompts import Codec, load_codecs
from zoo.pipeline.runners.chosen import current_runner
from zoo.pipeline.runners.fleet import Fleet, Here, engine_fleet
from zoo.scores.metric_names import FAILED_ROWS, LEARNED_ROWS, SHARED_ROWS
from zoo.scores.metrics import score_metrics
from zoo.scores.tables import BAD_ROW, CARD, NO_FOLD, OK, SCORES, probabilities, unscored_table, write_card, write_scores
from zoo.stages import progress
from zoo.stages.score.chunks import PLAN, Answer, Chunk, adopt, plan_chunks, read_pieces, write_chunk
from zoo.stages.score.engines import TOKENS, Crew, EngineError
from zoo.stages.score.job import engine_job, engine_version
from zoo.stages.score.placement import gpus_of, places
from zoo.stages.score.shared_out import check_alone, machine_of, score_by_array
from zoo.stages.score.tally import Tally, load_tally
from zoo.stages.score.token_file import Encoding, write_tokens
from zoo.stages.score.work import Listener, Patience
from zoo.targets import load_target, visible_gpus

WORK = "work"  # token ids and the like: not needed once the tables are written


@dataclass(frozen=True)
class Rows:
    """What is scored, without its texts.

    Ids and labels (rows,), the fold of each (rows,) or NO_FOLD, the ids whose rows cannot be read, whether battles of this
    kind can be ties, and what is the same for rows of one prompt (`zoo.data.splits.prompt_groups`). `seen` (rows,): what a
    model from elsewhere has learned from; `suspect`: why none of its rows is believed.
    """

    ids: list[str]
    labels: np.ndarray
    folds: np.ndarray
    bad: list[str]
    digest: str
    ties: bool
    groups: np.ndarray
    seen: np.ndarray
    suspect: str = ""


def run(request: ScoreRequest, out_dir: Path) -> StageResult:
    """Write `<variant>/scores.parquet` and `<variant>/scores.json` for each variant.

    The variants are the request's.
    """
    serving = load_target(request.emulates or request.target)
    if current_runner() == "slurm":
        return score_by_slurm(request, out_dir)
    check_alone(out_dir)
    with engine_fleet(gpus_of(request.serve, serving), request.target, out_dir) as fleet:
        if fleet is None:
            return score(request, out_dir, places(request.serve, serving, visible_gpus()))
        return score(request, out_dir, ({},) * fleet.copies, fleet=fleet)


def score(
    request: ScoreRequest,
    out_dir: Path,
    where: Sequence[Mapping[str, str]],
    patience: Patience | None = None,
    fleet: Fleet | None = None,
) -> StageResult:
    """Score with one engine in each of the places, on this host or a fleet's.

    A place is the environment of its process.
    """
    fleet = fleet or Here()
    codecs = load_codecs(request.model.path / "model", request.prompt, request.spec.variants)
    label_ids = next(iter(codecs.values())).label_ids
    job = engine_job(request, out_dir / WORK, label_ids, where, on_gpu=fleet.on_gpu)
    job.folder.mkdir(parents=True, exist_ok=True)  # a run that was killed at its very end has it no more
    with ExitStack() as stack:
        crew = None
        if not (out_dir / PLAN).exists():  # a new run: the engine loads while rows are tokenized
            crew = stack.enter_context(Crew(job, patience, fleet=fleet))
            progress.note(f"loading {request.model.path.name} into {engine_version(request.spec)}")
        rows, encodings, prepare_seconds = prepare(request, codecs, job.tokens)
        chunks = plan_chunks(encodings, request.spec, listed=request.selection.rows == "listed")
        dropped = adopt(chunks, rows.ids, out_dir, engine=engine_version(request.spec), machine=fleet.machine)
        if dropped:
            progress.note(f"what was scored before is scored again: {dropped}")
        tally = replace(load_tally(out_dir), replicas=len(where), prepare_seconds=prepare_seconds)
        todo = [chunk for chunk in chunks if not chunk.done(out_dir)]
        if todo:
            crew = crew or stack.enter_context(Crew(job, patience, fleet=fleet))
            score_or_say_what_is_kept(crew, chunks, todo, rows.ids, tally, out_dir)
    result = finish(request, out_dir, rows, encodings, chunks, tally, fleet.machine)
    shutil.rmtree(job.folder)  # the tally stays: a run that is killed before it is committed comes by here again
    return result


def score_by_slurm(request: ScoreRequest, out_dir: Path) -> StageResult:
    """Score by the tasks of a Slurm array.

    This process reads rows, waits, and puts the chunks together.
    """
    codecs = load_codecs(request.model.path / "model", request.prompt, request.spec.variants)
    folder = out_dir / WORK
    folder.mkdir(parents=True, exist_ok=True)
    rows, encodings, prepare_seconds = prepare(request, codecs, folder / "tokens.new")
    (folder / "tokens.new").replace(folder / TOKENS)  # tasks that are at work have the earlier file open, of the same content
    chunks = plan_chunks(encodings, request.spec, listed=request.selection.rows == "listed")
    dropped = adopt(chunks, rows.ids, out_dir, engine=engine_version(request.spec), machine=machine_of(out_dir))
    if dropped:
        progress.note(f"what was scored before is scored again: {dropped}")
    tally = replace(load_tally(out_dir), prepare_seconds=prepare_seconds)
    if not all(chunk.done(out_dir) for chunk in chunks):
        score_by_array(chunks, encodings, rows.ids, tally, out_dir)
    result = finish(request, out_dir, rows, encodings, chunks, tally, machine_of(out_dir))
    shutil.rmtree(folder, ignore_errors=True)  # a task may be about to end
    return result


def prepare(request: ScoreRequest, codecs: Mapping[Variant, Codec], path: Path) -> tuple[Rows, list[Encoding], float]:
    """Read the battles, write their token ids to `path` for each variant, and forget the texts.

    Returns the seconds it took.
    """
    started = time.monotonic()
    battles = read_battles(request.battles.path)
    learned = read_learned(request.model.path)
    frame = select_held_out(battles, learned, request.selection, request.held, progress.note)
    if frame.empty:
        raise ZooError(f"{request.battles.path}: no rows to score ({request.selection.rows})")
    encodings = write_tokens(frame, codecs, request.prompt, path)
    return rows_of(battles, frame, request, learned), encodings, time.monotonic() - started


def rows_of(battles: Battles, frame: pd.DataFrame, request: ScoreRequest, learned: Learned | None = None) -> Rows:
    """What is scored.

    `learned`: what a model from elsewhere learned from; None of one that was trained here.
    """
    fold = request.held.fold if request.selection.rows == "held_out" else NO_FOLD
    rows = Rows(
        ids=frame["id"].tolist(),
        labels=frame["label"].to_numpy(),
        folds=np.full(len(frame), fold, dtype=np.int64),
        bad=unusable_ids(battles, request.selection, request.held),
        digest=dataset_digest(battles),
        ties=battles.can_tie,
        groups=groups_of(battles, frame["id"], request.held.rule),
        seen=np.zeros(len(frame), dtype=bool),
    )
    if learned is None or request.selection.rows == "listed":  # battles to come are nobody's to judge by
        return rows
    if not learned.known:
        return replace(rows, suspect=POSSIBLY)
    seen_ids = battles.frame["id"][seen(battles.frame, learned, request.held.rule)]
    was_seen = frame["id"].isin(seen_ids).to_numpy()
    if request.selection.rows == "all":
        folds = folds_of(battles, frame["id"], request.held.n_folds, request.held.rule)
    else:
        folds = rows.folds
    if was_seen.any():
        progress.note(
            f"{was_seen.sum():,} of {len(frame):,} rows were learned from, or are near-copies: scored, never judged on"
        )
    return replace(rows, seen=was_seen, folds=np.where(was_seen, NO_FOLD, folds), suspect=WHOLLY if was_seen.all() else "")


def score_or_say_what_is_kept(
    crew: Crew, chunks: Sequence[Chunk], todo: Sequence[Chunk], ids: Sequence[str], tally: Tally, out_dir: Path
) -> None:
    """`score_chunks`; where engines are given up, the error says what was kept.

    How to go on, the runner says.
    """
    try:
        score_chunks(crew, todo, ids, tally, out_dir)
    except EngineError as error:
        kept = sum(chunk.done(out_dir) for chunk in chunks)
        if not kept:
            raise
        raise EngineError(f"{error}; {kept} of {len(chunks)} chunks are kept") from error


def score_chunks(crew: Crew, todo: Sequence[Chunk], ids: Sequence[str], tally: Tally, out_dir: Path) -> None:
    """Have the chunks scored, and write each as it comes."""
    begun, seconds, restarts = time.monotonic(), tally.run_seconds, tally.restarts
    loads: dict[int, float] = {}  # of each replica, its first; one that is started again reads from a warm disk cache
    with progress.TokenBar(sum(chunk.tokens for chunk in todo), sum(len(chunk.spans) for chunk in todo)) as bar:

        def ready(replica: int, load_seconds: float, memory: Mapping[str, int]) -> None:
            nonlocal begun
            tally.see_memory(memory)
            if not loads:  # scoring begins with the first
                begun = time.monotonic()
                bar.begin()
            loads.setdefault(replica, crew.lead_seconds + load_seconds)
            tally.replicas = max(tally.replicas, len(loads))  # hosts may have come
            tally.load_seconds = max(loads.values())

        def take(number: int, answer: Answer, memory: Mapping[str, int]) -> None:
            write_chunk(todo[number], ids, answer, out_dir)
            tally.see_memory(memory)
            tally.tokens += todo[number].tokens
            tally.cached_tokens += int(answer.cached.sum())
            tally.restarts, tally.run_seconds = restarts + crew.restarts, seconds + time.monotonic() - begun
            tally.save(out_dir)

        crew.score(todo, Listener(take=take, step=bar.update, note=progress.note, ready=ready))


def finish(
    request: ScoreRequest,
    out_dir: Path,
    rows: Rows,
    encodings: Sequence[Encoding],
    chunks: Sequence[Chunk],
    tally: Tally,
    machine: str,
) -> StageResult:
    """Each variant's table and card from its chunks; the stage's result."""
    tokens = sum(chunk.tokens for chunk in chunks)
    metrics = tally.metrics()
    for encoding in encodings:
        tables, pieces = read_pieces(encoding, chunks, out_dir)
        table = assemble(tables, rows)
        cost = price(pieces, tally, tokens, request, machine)
        metrics |= finish_variant(encoding, table, rows, cost, request, out_dir)
        taken = sum(len(taker.places) for chunk in chunks for taker in chunk.takers if taker.encoding is encoding)
        metrics[f"{encoding.variant.slug}:{SHARED_ROWS}"] = float(taken)
    return StageResult(
        metrics=metrics,
        measurements=Measurements(
            load_seconds=tally.load_seconds,
            run_seconds=tally.run_seconds,
            rows=len(rows.ids) * len(encodings),
            tokens=tokens,
            peak_bytes=tally.card_bytes,
        ),
    )


def price(pieces: Sequence[Piece], tally: Tally, tokens: int, request: ScoreRequest, machine: str) -> Cost:
    """The cost of a variant on one copy of the model, from its chunks.

    Reading and tokenizing grow with the file, so they go to the chunks by tokens. They are counted whole, though they overlap
    with loading: a price may be a little above what is paid, not below. An emulated run is no measurement of any machine.
    """
    a_token = tally.prepare_seconds / max(1, tokens)
    serving = load_target(request.emulates or request.target)
    return fit_cost(
        [replace(piece, seconds=piece.seconds + a_token * piece.tokens) for piece in pieces],
        load_seconds=tally.load_seconds,
        target=request.target,
        machine=f"{machine} as {request.emulates}" if request.emulates else machine,
        gpus=gpus_of(request.serve, serving),
    )


def assemble(tables: Sequence[pd.DataFrame], rows: Rows) -> pd.DataFrame:
    """A variant's whole table in the file's order.

    Rows that could not be read stand at the end with their status.
    """
    table = pd.concat([*tables, unscored_table(rows.bad, BAD_ROW)] if rows.bad else tables)
    table = table.set_index("id").loc[[*rows.ids, *rows.bad]].reset_index()
    table["fold"] = [*rows.folds.tolist(), *[int(rows.folds.max()) if rows.folds.size else NO_FOLD] * len(rows.bad)]
    return table


def finish_variant(
    encoding: Encoding, table: pd.DataFrame, rows: Rows, cost: Cost, request: ScoreRequest, out_dir: Path
) -> dict[str, float]:
    """Write a variant's table with its card, and return its metrics."""
    slug = encoding.variant.slug
    write_scores(table, out_dir / slug / SCORES)
    failed = int((table["status"] != OK).sum())
    card = ScoreCard(
        member=f"{request.entry}@{slug}",
        entry=request.entry,
        variant=encoding.variant,
        target=request.target,
        emulates=request.emulates,
        engine=engine_version(request.spec),
        dataset_digest=rows.digest,
        rows=len(table),
        failed_rows=failed,
        checkpoint=request.model.fingerprint,
        cost=cost,
        fold_rule=request.held.rule if (rows.folds != NO_FOLD).any() else None,
        request=request,
        suspect=rows.suspect,
    )
    write_card(card, out_dir / slug / CARD)
    return metrics_of(table, rows, slug, failed)


def metrics_of(table: pd.DataFrame, rows: Rows, slug: str, failed: int) -> dict[str, float]:
    """Counts, and for labelled battles the log loss and its parts, by variant.

    Each stands under the variant's name.
    """
    labels = rows.labels
    count = len(labels)  # those that cannot be used come after
    counts: dict[str, Any] = {
        FAILED_ROWS: failed,
        "rows/truncated": int((table["n_truncated_tokens"] > 0).sum()),
        "rows/mean_tokens": float(table["n_tokens"][:count].mean()),
    }
    if rows.seen.any():
        counts[LEARNED_ROWS] = int(rows.seen.sum())
    unseen = ~rows.seen if not rows.seen.all() else np.ones(count, dtype=bool)
    ok = (table["status"].to_numpy() == OK)[:count] & (labels >= 0) & unseen
    if ok.any():
        lengths = table["n_tokens"].to_numpy()[:count][ok]
        counts |= score_metrics(probabilities(table)[:count][ok], labels[ok], lengths, ties=rows.ties, groups=rows.groups[ok])
    return {f"{slug}:{name}": float(value) for name, value in counts.items()}
