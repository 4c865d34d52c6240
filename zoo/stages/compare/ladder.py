"""The ladder stage: every form of a model on the same held-out rows.

All but the engine's run in transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from zoo.contracts import LadderRequest, Measurements, Selection, StageResult, TrainSpec
from zoo.data.battles import Battles, read_battles
from zoo.data.splits import select_rows
from zoo.errors import ZooError
from zoo.models.prompts import encode_battles, load_codec
from zoo.report.figures import png
from zoo.report.ladder import ladder_figure
from zoo.scores.ladder import ADAPTER, AWQ, BASE, ENGINE, MERGED, ladder_metrics, steps_of
from zoo.scores.tables import OK, PROBABILITIES, SCORES, probabilities, read_scores, without_ties
from zoo.stages import progress
from zoo.stages.compare.in_transformers import adapted_model, dtype_for, model_probabilities, plain_model
from zoo.stages.device import gpu_peak_bytes
from zoo.stages.quantize.awq_format import write_dequantized
from zoo.store import replacing, scratch_folder
from zoo.targets import process_age_seconds


def run(request: LadderRequest, out_dir: Path) -> StageResult:
    """Write `ladder.parquet` (id, label and each form's probabilities) and `ladder.png`.

    Returns the metrics of each step. A form that a killed run had finished is not computed again.
    """
    battles = read_battles(request.battles.path)
    table = rows_of(request, battles)
    codec = load_codec(request.quantized.path / "model", request.prompt)
    turns = list(zip(table["prompt"], table["response_a"], table["response_b"], strict=True))
    encoded = encode_battles(turns, codec, request.prompt, request.variant.order, request.variant.max_tokens)
    rows = [e.ids for e in encoded]
    p: dict[str, np.ndarray] = {}
    dtype = dtype_for(request.merged.path / "model")  # of every plain form, or rounding would be part of a step
    with scratch_folder(out_dir / "scratch") as scratch:
        for form, load in forms(request, scratch, dtype):
            order = request.variant.order
            p[form] = finished(
                out_dir / f"{form}-{str(dtype).removeprefix('torch.')}.npy",
                lambda load=load, order=order: model_probabilities(load, rows, codec, order, "ladder"),  # type: ignore[misc]
            )
    p[ENGINE] = probabilities(table)
    y = table["label"].to_numpy(dtype=np.int64)
    steps = steps_of(p if battles.can_tie else {form: without_ties(own) for form, own in p.items()}, y)
    write_table(table, p, out_dir)
    (out_dir / "ladder.png").write_bytes(png(ladder_figure(steps, len(y), ties=battles.can_tie)))
    return StageResult(
        metrics={**ladder_metrics(steps), "ladder/rows": float(len(y)), "ladder/float32": float(dtype == torch.float32)},
        curves={"ladder/log_loss": tuple((i, step.loss) for i, step in enumerate(steps))},
        measurements=Measurements(
            run_seconds=process_age_seconds(),
            rows=len(rows) * len(p),
            tokens=sum(map(len, rows)) * (len(p) - 1),
            peak_bytes=gpu_peak_bytes(),
        ),
    )


def rows_of(request: LadderRequest, battles: Battles) -> pd.DataFrame:
    """Labelled held-out battles that the engine has scored, with its probabilities."""
    frame = select_rows(battles, Selection(max_rows=request.max_rows), request.held, progress.note)
    scores = read_scores(request.scored.path / request.variant.slug / SCORES)
    scores = scores.loc[scores["status"] == OK, ["id", *PROBABILITIES]]
    table = frame[frame["label"] >= 0].merge(scores, on="id")
    if table.empty:
        raise ZooError(f"{request.entry}: none of the held-out rows is labelled and scored; score more rows")
    return table


def forms(request: LadderRequest, scratch: Path, dtype: torch.dtype) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each form in order, with what loads it.

    What full fine-tuning leaves is the merged model itself.
    """
    base, trained = request.base.path / "model", request.trained.path
    yield BASE, lambda: plain_model(base, dtype)
    if (trained / "adapter").exists():
        yield ADAPTER, lambda: adapted_model(base, trained / "adapter", TrainSpec(method=request.method))
    yield MERGED, lambda: plain_model(request.merged.path / "model", dtype)
    yield AWQ, lambda: dequantized_model(request.quantized.path / "model", scratch / "plain", dtype)


def finished(path: Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in `path`, computed and written whole if it is not there."""
    if not path.exists():
        with replacing(path) as file:
            np.save(file, compute())
    found: np.ndarray = np.load(path)
    return found


def dequantized_model(quantized: Path, scratch: Path, dtype: torch.dtype) -> Any:
    """The AWQ checkpoint's own weights as plain ones, by our own reading of its layout."""
    write_dequantized(quantized, scratch)
    return plain_model(scratch, dtype)


def write_table(table: pd.DataFrame, p: dict[str, np.ndarray], out_dir: Path) -> None:
    columns = {f"{form}_{name}": values[:, i] for form, values in p.items() for i, name in enumerate(PROBABILITIES)}
    frame = pd.DataFrame({"id": table["id"], "label": table["label"], **columns})
    frame.to_parquet(out_dir / "ladder.parquet", index=False)
    for path in out_dir.glob("*.npy"):
        path.unlink()
