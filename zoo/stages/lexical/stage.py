"""The lexical stages: train a model a fold, and score battles with them.

Folds go by prompt. `held_out` scores each row with the model that saw no row of its prompt's fold, whatever file the row is in;
`all` and `listed` serve the mean of the fold models, or one of them where a fold is named.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from zoo.contracts import (
    FoldRule,
    LexicalScoreRequest,
    LexicalTrainRequest,
    Measurements,
    ScoreCard,
    StageResult,
    Variant,
    rule_name,
)
from zoo.cost.fit import Piece, fit_cost
from zoo.data.battles import dataset_digest, read_battles
from zoo.data.columns import VOTES
from zoo.data.splits import assign_bad_folds, assign_folds, folds_of, groups_of, select_rows, unusable_ids
from zoo.errors import ZooError
from zoo.scores.metric_names import FAILED_ROWS
from zoo.scores.metrics import score_metrics
from zoo.scores.tables import (
    BAD_ROW,
    CARD,
    CHUNKS,
    NO_FOLD,
    OK,
    SCORES,
    probabilities,
    read_scores,
    score_table,
    unscored_table,
    write_card,
    write_scores,
)
from zoo.stages import progress
from zoo.stages.lexical.extra import extra_rows_of_folds
from zoo.stages.lexical.features import Features
from zoo.stages.lexical.model import (
    FoldModel,
    Terms,
    fit_fold,
    fit_vectorizer,
    load_fold,
    load_vectorizer,
    predict,
    save_fold,
    save_vectorizer,
    terms_of,
)
from zoo.stages.train.examples import with_votes
from zoo.store import write_atomic
from zoo.targets import machine_fingerprint, process_age_seconds

MODEL = "model"
VARIANT = Variant(order="ab")
CHUNK_ROWS = 500


def train(request: LexicalTrainRequest, out_dir: Path) -> StageResult:
    """Fit a model a fold under `model/`; the metrics are out of fold, over every labelled row."""
    spec = request.spec
    battles = read_battles(request.battles.path, keep=VOTES)
    folds = assign_folds(battles.frame, spec.folds, request.rule, progress.note)
    labelled = (battles.frame["label"] >= 0).to_numpy()
    frame, folds = battles.frame[labelled].reset_index(drop=True), folds[labelled]
    if frame.empty:
        raise ZooError(f"{request.battles.path}: no labelled rows to train on; give a file with winner columns")
    if (folds == folds[0]).all():
        kind = "near-copies of one prompt" if request.rule else "prompts of one fold"
        mend = "battles of several prompts" + (", or --fold-rule prompts to go by each text alone" if request.rule else "")
        raise ZooError(f"{request.battles.path}: all {len(frame):,} labelled rows have {kind}; give {mend}")
    folder = out_dir / MODEL
    folder.mkdir(exist_ok=True)
    y = frame["label"].to_numpy()
    targets, counts = np.eye(3)[y], {}
    if spec.targets == "votes":
        targets, voted = with_votes(targets, battles, frame["id"].tolist())
        counts["train/rows_with_votes"] = float(voted)
    added, more = extra_rows_of_folds(request, battles)
    counts |= more
    learned = pd.concat([frame, added.frame], ignore_index=True)
    targets = np.concatenate([targets, added.targets])
    progress.note(f"reading {len(learned):,} battles")
    features = Features(learned)
    vectorizer = fit_vectorizer(features, spec)
    terms = terms_of(vectorizer, features)
    load_seconds, started = process_age_seconds(), time.monotonic()
    p = np.empty((len(learned), 3))
    with progress.bar(spec.folds, "fit", "fold") as bar:
        for fold in range(spec.folds):
            model = fit_fold(features, terms, targets, np.concatenate([folds != fold, added.learned[:, fold]]), spec)
            own = np.flatnonzero(folds == fold)
            p[own] = predict(model, features, terms)[own]
            save_fold(model, folder / f"fold-{fold}.npz")
            bar.update()
    save_vectorizer(vectorizer, folder)
    described = {"folds": spec.folds, "engine": engine_version()}
    if request.rule:
        described |= {"rule": request.rule, "battles": dataset_digest(battles)}
    write_atomic(folder / "model.json", json.dumps(described))
    groups = groups_of(battles, frame["id"], request.rule)
    measured = Measurements(load_seconds=load_seconds, run_seconds=time.monotonic() - started, rows=len(learned))
    return StageResult(
        metrics=score_metrics(p[: len(frame)], y, ties=battles.can_tie, groups=groups) | counts, measurements=measured
    )


def engine_version() -> str:
    import sklearn

    return f"scikit-learn {sklearn.__version__}"


@dataclass(frozen=True)
class LexicalModel:
    """The fold models of a checkpoint, and the vocabulary they share.

    `rule` dealt prompts into the folds; where there is one, `digest` is of the battles whose groups it took.
    """

    folds: list[FoldModel]
    vectorizer: object
    rule: FoldRule | None = None
    digest: str = ""

    def predict(self, frame: pd.DataFrame, folds: np.ndarray | int | None = None) -> np.ndarray:
        """Probabilities (rows, 3).

        They are those of the fold model each row is held out of, of one fold's model, or of all models' mean.
        """
        features = Features(frame)
        terms: Terms = terms_of(self.vectorizer, features)
        if isinstance(folds, int):
            return predict(self.folds[folds], features, terms)
        each = np.stack([predict(model, features, terms) for model in self.folds])
        p: np.ndarray = each.mean(axis=0) if folds is None else each[folds, np.arange(len(frame))]
        return p


def load_model(folder: Path) -> LexicalModel:
    """Load a checkpoint that `train` left."""
    try:
        described = json.loads((folder / "model.json").read_text())
        folds = [load_fold(folder / f"fold-{fold}.npz") for fold in range(described["folds"])]
        return LexicalModel(folds, load_vectorizer(folder), described.get("rule"), described.get("battles", ""))
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise ZooError(f"{folder}: not a lexical checkpoint ({error}); train the entry again") from error


def score(request: LexicalScoreRequest, out_dir: Path) -> StageResult:
    """Write `ab/scores.parquet` and `ab/scores.json`.

    A killed run goes on from the finished pieces in `ab/chunks/`.
    """
    model = load_model(request.model.path / MODEL)
    load_seconds, started = process_age_seconds(), time.monotonic()
    battles = read_battles(request.battles.path)
    frame, bad = select_rows(battles, request.selection), unusable_ids(battles, request.selection)
    if frame.empty and not bad:
        raise ZooError(f"{request.battles.path}: no rows to score ({request.selection.rows})")
    folder = out_dir / VARIANT.slug
    (folder / CHUNKS).mkdir(parents=True, exist_ok=True)
    folds: np.ndarray | int | None = request.fold
    if request.fold is not None and request.fold >= len(model.folds):
        raise ZooError(f"{request.entry}: no fold {request.fold}; its model has {len(model.folds)}, numbered from 0")
    if request.selection.rows == "held_out":
        check_rule(request, model, dataset_digest(battles))
        folds = folds_of(battles, frame["id"], len(model.folds), request.rule, progress.note)
    prepare_seconds = time.monotonic() - started
    done = list(_score_chunks(model, frame, folds, folder / CHUNKS))
    pieces = [piece for _, piece in done]
    tables = [table for table, _ in done]
    if bad:
        by_prompt = isinstance(folds, np.ndarray)
        bad_folds = assign_bad_folds(battles, len(model.folds)) if by_prompt else dict.fromkeys(bad, NO_FOLD)
        tables.append(unscored_table(bad, BAD_ROW).assign(fold=[bad_folds[row_id] for row_id in bad]))
    table = pd.concat(tables)
    write_scores(table, folder / SCORES)
    write_card(
        _card(request, table, with_reading(pieces, prepare_seconds), load_seconds, dataset_digest(battles)), folder / CARD
    )
    run_seconds = prepare_seconds + sum(piece.seconds for piece in pieces)
    measured = Measurements(load_seconds=load_seconds, run_seconds=run_seconds, rows=len(frame))
    return StageResult(
        metrics=_metrics(table, frame, groups_of(battles, frame["id"], request.rule), ties=battles.can_tie),
        measurements=measured,
    )


def with_reading(pieces: list[Piece], seconds: float) -> list[Piece]:
    """The pieces with their share of what reading the file took.

    It goes by rows, since it grows with the file; loading does not.
    """
    a_row = seconds / max(1, sum(piece.rows for piece in pieces))
    return [replace(piece, seconds=piece.seconds + a_row * piece.rows) for piece in pieces]


def check_rule(request: LexicalScoreRequest, model: LexicalModel, digest: str) -> None:
    """ZooError where rows would be scored by models that have seen them or their near-copies."""
    if request.rule != model.rule:
        trained, asked = rule_name(model.rule), rule_name(request.rule)
        raise ZooError(f"{request.entry}: trained on folds by {trained}, to be scored by {asked}; a chain has one rule")
    if request.rule and digest != model.digest:
        raise ZooError(
            f"{request.battles.path}: folds by {request.rule} are those of the battles that {request.entry} was trained on; "
            "train it on this file, or score all of its rows (selection.rows = 'all')"
        )


def _score_chunks(
    model: LexicalModel, frame: pd.DataFrame, folds: np.ndarray | int | None, folder: Path
) -> Iterator[tuple[pd.DataFrame, Piece]]:
    """Each chunk's table and timing, read where an earlier run wrote it, else scored."""
    with progress.bar(len(frame), "score", "row") as bar:
        for index, start in enumerate(range(0, len(frame), CHUNK_ROWS)):
            rows = slice(start, start + CHUNK_ROWS)
            file = folder / f"{index:05d}.parquet"
            if not file.exists():
                _score_chunk(model, frame.iloc[rows], folds[rows] if isinstance(folds, np.ndarray) else folds, file)
            table = read_scores(file)
            bar.update(len(table))
            yield table, Piece(**json.loads(file.with_suffix(".json").read_text()))


def _score_chunk(model: LexicalModel, frame: pd.DataFrame, folds: np.ndarray | int | None, file: Path) -> None:
    """Score one chunk; its table is written last, so that it says that the chunk is finished."""
    started = time.monotonic()
    table = score_table(
        frame["id"].tolist(), model.predict(frame, folds), fold=folds if isinstance(folds, np.ndarray) else NO_FOLD
    )
    piece = Piece(len(frame), 0, 0, time.monotonic() - started)
    write_atomic(file.with_suffix(".json"), json.dumps(asdict(piece)))
    write_scores(table, file)


def _card(
    request: LexicalScoreRequest, table: pd.DataFrame, pieces: list[Piece], load_seconds: float, digest: str
) -> ScoreCard:
    return ScoreCard(
        member=f"{request.entry}@{VARIANT.slug}",
        entry=request.entry,
        variant=VARIANT,
        target=request.target,
        engine=engine_version(),
        dataset_digest=digest,
        rows=len(table),
        failed_rows=int((table["status"] != OK).sum()),
        checkpoint=request.model.fingerprint,
        cost=fit_cost(pieces, load_seconds=load_seconds, target=request.target, machine=machine_fingerprint(), gpus=0),
        fold_rule=request.rule if request.selection.rows == "held_out" else None,
        request=request,
    )


def _metrics(table: pd.DataFrame, frame: pd.DataFrame, groups: np.ndarray, *, ties: bool) -> dict[str, float]:
    """Counts, and the log loss and its parts of the labelled rows, under the variant's name."""
    metrics = {FAILED_ROWS: float((table["status"] != OK).sum())}
    labelled = frame["label"].to_numpy() >= 0
    if labelled.any():
        scored = probabilities(table)[: len(frame)][labelled]
        metrics |= score_metrics(scored, frame["label"].to_numpy()[labelled], ties=ties, groups=groups[labelled])
    return {f"{VARIANT.slug}:{name}": value for name, value in metrics.items()}
