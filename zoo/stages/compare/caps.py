"""The caps stage: variants of one checkpoint on the same rows, by log loss and by hours."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from zoo.contracts import CapsRequest, Measurements, StageResult, Variant
from zoo.data.battles import Battles, read_battles
from zoo.data.splits import NEAR_PROMPTS, group_hashes
from zoo.errors import ZooError
from zoo.report.caps import caps_figure
from zoo.report.drawing import png
from zoo.scores.caps import CAPS, CapsReport, Reading, caps_metrics, worth_their_hours
from zoo.scores.metric_names import SHARED_ROWS
from zoo.scores.metrics import log_loss_rows, mean_and_error, uniform_loss
from zoo.scores.tables import OK, SCORES, probabilities, read_scores, variant_metrics, without_ties
from zoo.store import read_manifest, write_atomic
from zoo.targets import process_age_seconds


def run(request: CapsRequest, out_dir: Path) -> StageResult:
    """Write `caps.json` (a `CapsReport`) and `caps.png`, and return the metrics of each variant."""
    battles = read_battles(request.battles.path)
    tables = {one.variant: read_scores(request.scored.path / one.variant.slug / SCORES) for one in request.priced}
    frame = scored_by_all(battles, tables, request.entry)
    report = report_of(request, battles, frame, tables)
    write_atomic(out_dir / CAPS, report.model_dump_json(indent=1))
    (out_dir / "caps.png").write_bytes(png(caps_figure(report)))
    return StageResult(
        metrics=caps_metrics(report),
        measurements=Measurements(run_seconds=process_age_seconds(), rows=len(frame) * len(tables)),
    )


def scored_by_all(battles: Battles, tables: dict[Variant, pd.DataFrame], entry: str) -> pd.DataFrame:
    """The labelled battles that every variant scored."""
    frame = battles.frame[battles.frame["label"] >= 0]
    for table in tables.values():
        frame = frame[frame["id"].isin(table.loc[table["status"] == OK, "id"])]
    if frame.empty:
        raise ZooError(f"{entry}: none of the held-out rows is labelled and scored by every variant; score more rows")
    return frame.reset_index(drop=True)


def report_of(request: CapsRequest, battles: Battles, frame: pd.DataFrame, tables: dict[Variant, pd.DataFrame]) -> CapsReport:
    """Every variant on the rows of `frame`, compared with the request's reference."""
    labels = frame["label"].to_numpy(dtype=np.int64)
    own = {variant: table.set_index("id").loc[frame["id"]].reset_index() for variant, table in tables.items()}
    p = [probabilities(table) if battles.can_tie else without_ties(probabilities(table)) for table in own.values()]
    losses = np.stack([log_loss_rows(each, labels) for each in p], axis=1)
    # Groups are of the whole file, as folds are: whether two prompts are near-copies is no matter of which rows were sampled.
    known = pd.Series(group_hashes(battles.frame, NEAR_PROMPTS), index=battles.frame["id"])
    groups = known.loc[frame["id"]].to_numpy()
    worthwhile = worth_their_hours(losses, [one.hours[1] for one in request.priced], groups)
    manifest, reference = read_manifest(request.scored.path), list(tables).index(request.reference)
    readings = []
    for place, (one, table) in enumerate(zip(request.priced, own.values(), strict=True)):
        loss, error = mean_and_error(losses[:, place], groups)
        change, change_error = mean_and_error(losses[:, place] - losses[:, reference], groups)
        readings.append(
            Reading(
                variant=one.variant,
                log_loss=loss,
                log_loss_se=_finite(error),
                change=change,
                change_se=_finite(change_error),
                rows=len(frame),
                tokens=float(table["n_tokens"].mean()),
                cut=int((table["n_truncated_tokens"] > 0).sum()),
                shared=int(variant_metrics(manifest, one.variant.slug).get(SHARED_ROWS, 0)),
                hours=one.hours,
                worthwhile=place in worthwhile,
            )
        )
    return CapsReport(
        entry=request.entry,
        target=request.target,
        rows=request.rows,
        reference=request.reference.slug,
        battles=len(frame),
        prompts=len(np.unique(groups)),
        guessing=uniform_loss(ties=battles.can_tie),
        readings=tuple(readings),
    )


def _finite(error: float) -> float | None:
    return error if math.isfinite(error) else None
