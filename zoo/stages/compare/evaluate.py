"""The evaluate stage: a trained model's label probabilities in transformers.

Trainings are compared by it, before merging, quantizing and an engine.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zoo.contracts import EvaluateRequest, Measurements, StageResult, TrainSpec
from zoo.data.battles import read_battles
from zoo.data.splits import groups_of, select_rows
from zoo.errors import ZooError
from zoo.models.prompts import encode_battles, load_codec
from zoo.scores.metrics import score_metrics
from zoo.scores.tables import EVALUATED, NO_FOLD, score_table, write_scores
from zoo.stages import progress
from zoo.stages.compare.in_transformers import adapted_model, model_probabilities, plain_model
from zoo.stages.device import compute_dtype, gpu_peak_bytes, keep_to_share
from zoo.stages.train.scaling import scale_of, scale_update
from zoo.targets import process_age_seconds


def run(request: EvaluateRequest, out_dir: Path) -> StageResult:
    """Write `probabilities.parquet`, a score table.

    With labels, the metrics of a scored variant.
    """
    battles = read_battles(request.battles.path)
    frame = select_rows(battles, request.selection, request.held, progress.note)
    if frame.empty:
        raise ZooError(f"{request.battles.path}: no rows to evaluate on ({request.selection.rows})")
    keep_to_share()
    base = request.base.path / "model"
    codec = load_codec(base, request.prompt)
    turns = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
    encoded = encode_battles(turns, codec, request.prompt, request.order)
    rows = [e.ids for e in encoded]
    p = model_probabilities(lambda: _model(request, base), rows, codec, request.order, "evaluate")
    folds = request.held.fold if request.selection.rows == "held_out" else NO_FOLD
    n_tokens = np.array([len(row) for row in rows])
    table = score_table(
        frame["id"].tolist(), p, fold=folds, n_tokens=n_tokens, n_truncated_tokens=[e.n_truncated for e in encoded]
    )
    write_scores(table, out_dir / EVALUATED)
    labels = frame["label"].to_numpy()
    known = labels >= 0
    groups = groups_of(battles, frame["id"], request.held.rule)[known]
    return StageResult(
        metrics=score_metrics(p[known], labels[known], n_tokens[known], ties=battles.can_tie, groups=groups)
        if known.any()
        else {},
        measurements=Measurements(
            run_seconds=process_age_seconds(), rows=len(rows), tokens=int(n_tokens.sum()), peak_bytes=gpu_peak_bytes()
        ),
    )


def _model(request: EvaluateRequest, base: Path) -> object:
    if request.trained is None:  # in the dtype that its adapters are evaluated in
        return plain_model(base, compute_dtype())
    if (request.trained.path / "adapter").exists():
        model = adapted_model(base, request.trained.path / "adapter", TrainSpec(method=request.method))
        if request.scale != 1:
            scale_update(model, scale_of(request.scale, request.trained.path))
        return model
    return plain_model(request.trained.path / "model", compute_dtype())
