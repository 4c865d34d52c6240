"""The ladder: log loss of each form of a model, from base to engine, on the same rows.

Base, base with its adapter as trained, merged, AWQ dequantized, AWQ in the engine: the same rows, so differences between
neighbours are paired. It answers whether 4 bits, merging or the engine lose accuracy, and a gate names the step that broke.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.contracts import Entry
from zoo.errors import ZooError
from zoo.scores.metric_names import DELTA_LOG_LOSS, DELTA_LOG_LOSS_SE, FORMS
from zoo.scores.metrics import log_loss_rows, mean_and_error

BASE, ADAPTER, MERGED, AWQ, ENGINE = FORMS[:5]
TITLES = {
    BASE: "base, zero-shot",
    ADAPTER: "base and adapter, as trained",
    MERGED: "merged",
    AWQ: "AWQ, dequantized, in transformers",
    ENGINE: "AWQ in vLLM",
    **{
        f"{form}{where}": f"{form}{title}"
        for form in ("int8", "w4a8", "fp8")
        for where, title in (("", ", rounded as in vLLM, in transformers"), ("_engine", " in vLLM"))
    },
}
IN_ENGINE = {AWQ: ENGINE, **{form: f"{form}_engine" for form in ("int8", "w4a8", "fp8")}}
# What a step is compared with, where it is not the one above: each quantized form with the merged model.
BEFORE = dict.fromkeys(IN_ENGINE, MERGED) | {engine: form for form, engine in IN_ENGINE.items()}


@dataclass(frozen=True)
class Step:
    """One form of the model. `loss`, `loss_se`: mean log loss and its standard error, in nats.

    Against what it was made from, on the same rows: `change` of the mean and its paired standard error, and the largest change
    of any of the rows' probabilities. None for the first.
    """

    form: str
    loss: float
    loss_se: float
    change: float | None = None
    change_se: float | None = None
    largest: float | None = None


def steps_of(p: Mapping[str, np.ndarray], y: np.ndarray, groups: np.ndarray | None = None) -> list[Step]:
    """The ladder's steps from each form's probabilities (rows, 3), in order.

    The labels have shape (rows,), as have `groups`, the same for rows of one prompt, by which errors go.
    """
    steps: list[Step] = []
    losses = {form: log_loss_rows(probabilities, y) for form, probabilities in p.items()}
    last = None
    for form, probabilities in p.items():
        step = Step(form, *mean_and_error(losses[form], groups))
        before = BEFORE[form] if BEFORE.get(form) in p else last
        if before is not None:
            change = losses[form] - losses[before]
            largest = float(np.abs(probabilities - p[before]).max())
            step = Step(form, step.loss, step.loss_se, *mean_and_error(change, groups), largest)
        steps.append(step)
        last = form
    return steps


def ladder_metrics(steps: Sequence[Step]) -> dict[str, float]:
    """The steps as metrics.

    `ladder/merged/log_loss`, `ladder/merged/change`, ...; what the first quantized form costs also by its usual name.
    """
    found: dict[str, float] = {}
    for step in steps:
        values = {"log_loss": step.loss, "log_loss_se": step.loss_se, "change": step.change, "change_se": step.change_se}
        values |= {"largest_probability_change": step.largest}
        found |= {f"ladder/{step.form}/{name}": value for name, value in values.items() if value is not None}
        first = next((other.form for other in steps if other.form in IN_ENGINE), None)
        if step.form == first and step.change is not None and step.change_se is not None:
            found |= {DELTA_LOG_LOSS: step.change, DELTA_LOG_LOSS_SE: step.change_se}
    return {name: value for name, value in found.items() if math.isfinite(value)}  # one row has no standard error


def steps_from_metrics(metrics: Mapping[str, float]) -> list[Step]:
    """The inverse of `ladder_metrics`, for a ladder that is in the store."""

    def of(form: str, name: str) -> float | None:
        return metrics.get(f"ladder/{form}/{name}")

    forms = [form for form in TITLES if of(form, "log_loss") is not None]
    return [
        Step(
            form,
            metrics[f"ladder/{form}/log_loss"],
            metrics.get(f"ladder/{form}/log_loss_se", math.nan),
            of(form, "change"),
            of(form, "change_se"),
            of(form, "largest_probability_change"),
        )
        for form in forms
    ]


def broken_step(steps: Sequence[Step], most: float) -> Step | None:
    """The first step after training whose change of the log loss is above `most` nats.

    From base to trained is no such step.
    """
    trained = next((i for i, step in enumerate(steps) if step.form in (ADAPTER, MERGED)), len(steps))
    return next((s for s in steps[trained + 1 :] if s.change is not None and not s.change <= most), None)


_FINER = "raise quantize.finer_share or quantize.calibration_rows"
_MENDS = {
    MERGED: "merge into the weights that training saw (merge.into = 'trained')",
    AWQ: "use a smaller quantize.group_size, more quantize.calibration_rows, or apply_clip = true",
    "int8": _FINER,
    "w4a8": "use a smaller quantize.group_size, " + _FINER,
    "fp8": _FINER,
}


def check_gate(entry: Entry, steps: Sequence[Step]) -> None:
    """ZooError naming the step that costs more than the entry's `ladder.max_ladder_loss`.

    Nothing where there is no gate.
    """
    most = entry.ladder.max_ladder_loss
    broken = broken_step(steps, most) if most is not None else None
    if broken is None:
        return
    forms = [step.form for step in steps]
    before = TITLES[BEFORE[broken.form] if BEFORE.get(broken.form) in forms else forms[forms.index(broken.form) - 1]]
    mend = _MENDS.get(broken.form, "compare score.dtype with the dtype that the model was made in")
    raise ZooError(
        f"{entry.name}: from '{before}' to '{TITLES[broken.form]}' the log loss rises by {broken.change:.4f} "
        f"± {broken.change_se:.4f}, ladder.max_ladder_loss is {most:g}; {mend}",
        exit_code=1,
    )
