"""The ladder: one entry's held-out rows through every form of the model, and what each step from form to form costs.

Base, base with its adapter as trained, merged, AWQ dequantized, AWQ in the engine: the same rows, so differences between
neighbours are paired. It answers whether 4 bits, merging or the engine lose accuracy, and a gate names the step that broke.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.contracts import (
    Entry,
    FetchRequest,
    LadderRequest,
    MergeRequest,
    QuantizeRequest,
    Request,
    ScoreRequest,
    TrainRequest,
)
from zoo.errors import ZooError
from zoo.metrics import log_loss_rows
from zoo.pipeline import output_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASE, ADAPTER, MERGED, AWQ, ENGINE = "base", "adapter", "merged", "awq", "engine"
TITLES = {
    BASE: "base, zero-shot",
    ADAPTER: "base and adapter, as trained",
    MERGED: "merged",
    AWQ: "AWQ, dequantized, in transformers",
    ENGINE: "AWQ in vLLM",
}


BOX = {"boxstyle": "square,pad=0.2", "facecolor": "white", "edgecolor": "none"}  # a label in a figure, above its line


@dataclass(frozen=True)
class Step:
    """One form of the model. `loss`, `loss_se`: mean log loss and its standard error, in nats.

    Against the form before it, on the same rows: `change` of the mean and its paired standard error, and the largest change of
    any of the rows' probabilities. None for the first.
    """

    form: str
    loss: float
    loss_se: float
    change: float | None = None
    change_se: float | None = None
    largest: float | None = None


def steps_of(p: Mapping[str, np.ndarray], y: np.ndarray) -> list[Step]:
    """The ladder's steps from each form's probabilities (rows, 3), in order, and the labels (rows,)."""
    steps: list[Step] = []
    before: tuple[np.ndarray, np.ndarray] | None = None
    for form, probabilities in p.items():
        losses = log_loss_rows(probabilities, y)
        step = Step(form, float(losses.mean()), _standard_error(losses))
        if before is not None:
            change = losses - before[1]
            largest = float(np.abs(probabilities - before[0]).max())
            step = Step(form, step.loss, step.loss_se, float(change.mean()), _standard_error(change), largest)
        steps.append(step)
        before = probabilities, losses
    return steps


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def ladder_metrics(steps: Sequence[Step]) -> dict[str, float]:
    """The steps as metrics, `ladder/merged/log_loss`, `ladder/merged/change`, ...; what AWQ costs also by its usual name."""
    found: dict[str, float] = {}
    for step in steps:
        values = {"log_loss": step.loss, "log_loss_se": step.loss_se, "change": step.change, "change_se": step.change_se}
        values |= {"largest_probability_change": step.largest}
        found |= {f"ladder/{step.form}/{name}": value for name, value in values.items() if value is not None}
        if step.form == AWQ and step.change is not None and step.change_se is not None:
            found |= {"quant/delta_log_loss": step.change, "quant/delta_log_loss_se": step.change_se}
    return found


def steps_from_metrics(metrics: Mapping[str, float]) -> list[Step]:
    """The inverse of `ladder_metrics`, for a ladder that is in the store."""

    def of(form: str, name: str) -> float | None:
        return metrics.get(f"ladder/{form}/{name}")

    forms = [form for form in TITLES if of(form, "log_loss") is not None]
    return [
        Step(
            form,
            metrics[f"ladder/{form}/log_loss"],
            metrics[f"ladder/{form}/log_loss_se"],
            of(form, "change"),
            of(form, "change_se"),
            of(form, "largest_probability_change"),
        )
        for form in forms
    ]


def broken_step(steps: Sequence[Step], most: float) -> Step | None:
    """The first step after training whose change of the log loss is above `most` nats. From base to trained is no such step."""
    trained = next((i for i, step in enumerate(steps) if step.form in (ADAPTER, MERGED)), len(steps))
    return next((s for s in steps[trained + 1 :] if s.change is not None and not s.change <= most), None)


def check_gate(entry: Entry, steps: Sequence[Step]) -> None:
    """ZooError naming the step that costs more than the entry's `ladder.max_ladder_loss`; nothing where there is no gate."""
    most = entry.ladder.max_ladder_loss
    broken = broken_step(steps, most) if most is not None else None
    if broken is None:
        return
    forms = [step.form for step in steps]
    before = TITLES[forms[forms.index(broken.form) - 1]]
    mend = {
        MERGED: "merge into the weights that training saw (merge.into = 'trained')",
        AWQ: "use a smaller quantize.group_size, more quantize.calibration_rows, or apply_clip = true",
        ENGINE: "compare score.dtype with the dtype that the model was made in",
    }[broken.form]
    raise ZooError(
        f"{entry.name}: from '{before}' to '{TITLES[broken.form]}' the log loss rises by {broken.change:.4f} "
        f"± {broken.change_se:.4f}, ladder.max_ladder_loss is {most:g}; {mend}",
        exit_code=1,
    )


def ladder_request(entry: Entry, requests: Sequence[Request], store: Path) -> LadderRequest:
    """The ladder of a chain's own artifacts, on the rows of its first variant in the battle's own order."""
    by_type = {type(request): request for request in requests}
    train, score = by_type.get(TrainRequest), by_type.get(ScoreRequest)
    if not isinstance(train, TrainRequest) or not isinstance(score, ScoreRequest):
        raise ZooError(f"{entry.name}: a {entry.kind} entry has no ladder; it is for language models")
    variants = sorted(score.spec.variants, key=lambda variant: variant.order != "ab")
    made = {name: output_of(by_type[kind], store) for name, kind in _SOURCES.items()}
    return LadderRequest(
        entry=entry.name,
        **made,
        battles=score.battles,
        held=score.held,
        prompt=score.prompt,
        variant=variants[0],
        method=train.spec.method,
        max_rows=entry.ladder.rows,
    )


_SOURCES: dict[str, type[Request]] = {
    "base": FetchRequest,
    "trained": TrainRequest,
    "merged": MergeRequest,
    "quantized": QuantizeRequest,
    "scored": ScoreRequest,
}


def ladder_table(steps: Sequence[Step]) -> str:
    """The ladder for people: a line a form."""
    from zoo.views import text_table

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    rows = [
        [
            TITLES[step.form],
            f"{step.loss:.4f} ± {step.loss_se:.4f}",
            "" if step.change is None else f"{step.change:+.4f} ± {step.change_se:.4f}",
            number(step.largest, ".4f"),
        ]
        for step in steps
    ]
    return text_table(["form", "log loss", "against the one above", "largest change of a probability"], rows)


def ladder_figure(steps: Sequence[Step], rows: int) -> Figure:
    """Log loss of each form with its standard error, and between neighbours the paired change."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(steps))
    losses = np.array([step.loss for step in steps])
    axes.errorbar(places, losses, yerr=[step.loss_se for step in steps], color="#1b1b1b", marker="o", capsize=4, linewidth=1)
    for place, step in zip(places[1:], steps[1:], strict=True):
        middle = (losses[place] + losses[place - 1]) / 2
        text = f"{step.change:+.4f}\n± {step.change_se:.4f}"
        axes.annotate(text, (place - 0.5, middle), ha="center", va="center", fontsize=8, bbox=BOX)
    axes.axhline(np.log(3), color="0.5", linestyle="--", linewidth=1)
    axes.annotate("guessing", (0.01, np.log(3)), xycoords=("axes fraction", "data"), va="bottom", color="0.35", fontsize=8)
    axes.set(xticks=places, ylabel="log loss, nats", title=f"The ladder, {rows} held-out rows")
    axes.set_xticklabels([TITLES[step.form].replace(", ", ",\n") for step in steps], fontsize=8)
    return figure
