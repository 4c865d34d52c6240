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

from zoo.contracts import LadderRequest, Measurements, Scheme, Selection, StageResult, TrainSpec
from zoo.data.battles import Battles, read_battles
from zoo.data.learned import read_learned, select_held_out
from zoo.data.splits import groups_of
from zoo.errors import ZooError
from zoo.models.prompts import encode_battles, load_codec
from zoo.models.shapes import read_config
from zoo.report.drawing import png
from zoo.report.ladder import ladder_figure
from zoo.scores.ladder import ADAPTER, BASE, IN_ENGINE, MERGED, ladder_metrics, steps_of
from zoo.scores.metric_names import FORMS
from zoo.scores.tables import NO_FOLD, OK, PROBABILITIES, SCORES, probabilities, read_scores, without_ties
from zoo.stages import progress
from zoo.stages.compare.in_transformers import adapted_model, dtype_for, model_probabilities, plain_model
from zoo.stages.device import gpu_peak_bytes
from zoo.stages.quantize.awq_format import write_dequantized
from zoo.stages.quantize.forms import form_in
from zoo.stages.quantize.layerwise import Weights
from zoo.store import replacing, scratch_folder
from zoo.targets import process_age_seconds


def run(request: LadderRequest, out_dir: Path) -> StageResult:
    """Write `ladder.parquet` (id, label and each form's probabilities) and `ladder.png`.

    Returns the metrics of each step. A form that a killed run had finished is not computed again.
    """
    battles = read_battles(request.battles.path)
    table = rows_of(request, battles)
    spec = request.variant.prompt(request.prompt)
    codec = load_codec(request.quantized.path / "model", spec)
    turns = list(zip(table["prompt"], table["response_a"], table["response_b"], strict=True))
    encoded = encode_battles(turns, codec, spec, request.variant.order)
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
    for scheme, scored in scored_of(request).items():  # each beside the form that it runs
        p[IN_ENGINE[scheme]] = probabilities(scored.set_index("id").loc[table["id"]].reset_index())
    p = {form: p[form] for form in FORMS if form in p}
    y = table["label"].to_numpy(dtype=np.int64)
    groups = groups_of(battles, table["id"], request.held.rule)
    steps = steps_of(p if battles.can_tie else {form: without_ties(own) for form, own in p.items()}, y, groups)
    write_table(table, p, out_dir)
    (out_dir / "ladder.png").write_bytes(
        png(ladder_figure(steps, len(y), ties=battles.can_tie, of=f"{request.entry}, {battles.path.name}"))
    )
    return StageResult(
        metrics={**ladder_metrics(steps), "ladder/rows": float(len(y)), "ladder/float32": float(dtype == torch.float32)},
        curves={"ladder/log_loss": tuple((i, step.loss) for i, step in enumerate(steps))},
        measurements=Measurements(
            run_seconds=process_age_seconds(),
            rows=len(rows) * len(p),
            tokens=sum(map(len, rows)) * (len(p) - len(request.forms)),
            peak_bytes=gpu_peak_bytes(),
        ),
    )


def rows_of(request: LadderRequest, battles: Battles) -> pd.DataFrame:
    """Labelled held-out battles that the engine has scored in every form."""
    learned = read_learned(request.trained.path)
    frame = select_held_out(battles, learned, Selection(max_rows=request.max_rows), request.held, progress.note)
    table = frame[frame["label"] >= 0]
    for scores in scored_of(request).values():
        table = table[table["id"].isin(scores["id"])]
    table = table.reset_index(drop=True)
    if table.empty:
        raise ZooError(f"{request.entry}: none of the held-out rows is labelled and scored; score more rows")
    return table


def scored_of(request: LadderRequest) -> dict[Scheme, pd.DataFrame]:
    """The engine's probabilities of each quantized form, by id, of the rows that it scored."""
    found = {}
    for scheme, form in request.forms.items():
        scores = read_scores(form.scored.path / form.variant.slug / SCORES)
        if (scores["fold"] != NO_FOLD).any():  # the others a model from elsewhere has learned from
            scores = scores[scores["fold"] != NO_FOLD]
        found[scheme] = scores.loc[scores["status"] == OK, ["id", *PROBABILITIES]]
    return found


def forms(request: LadderRequest, scratch: Path, dtype: torch.dtype) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each form in order, with what loads it.

    What full fine-tuning leaves is the merged model itself.
    """
    base, trained = request.base.path / "model", request.trained.path
    yield BASE, lambda: plain_model(base, dtype)
    if (trained / "adapter").exists():
        yield ADAPTER, lambda: adapted_model(base, trained / "adapter", TrainSpec(method=request.method))
    yield MERGED, lambda: plain_model(request.merged.path / "model", dtype)
    for scheme, form in request.forms.items():
        folder = form.quantized.path / "model"
        yield scheme, lambda folder=folder, scheme=scheme: dequantized_model(folder, scratch / scheme, dtype)  # type: ignore[misc]


def finished(path: Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in `path`, computed and written whole if it is not there."""
    if not path.exists():
        with replacing(path) as file:
            np.save(file, compute())
    found: np.ndarray = np.load(path)
    return found


def dequantized_model(quantized: Path, scratch: Path, dtype: torch.dtype) -> Any:
    """A quantized checkpoint's own weights as plain ones, by our own reading of its layout.

    Where its form rounds activations, the inputs of its quantized layers are rounded as they come.
    """
    write_dequantized(quantized, scratch)
    model = plain_model(scratch, dtype)
    form, weights = form_in(read_config(quantized)), Weights(quantized)
    if form is not None:
        for name, module in model.named_modules():
            if f"{name}.weight_scale" in weights:
                module.register_forward_pre_hook(lambda _, args: (form.activations(args[0]), *args[1:]))
    return model


def write_table(table: pd.DataFrame, p: dict[str, np.ndarray], out_dir: Path) -> None:
    columns = {f"{form}_{name}": values[:, i] for form, values in p.items() for i, name in enumerate(PROBABILITIES)}
    frame = pd.DataFrame({"id": table["id"], "label": table["label"], **columns})
    frame.to_parquet(out_dir / "ladder.parquet", index=False)
    for path in out_dir.glob("*.npy"):
        path.unlink()
