"""Forecast hours of training an entry on a target, and what fits a notebook's hours.

The best basis at hand: `measured`, trainings of the entry on a machine of the target's kind that are in the store; else
`published` (`rates`), operations at the rates that scoring reaches on such cards by published run times (and by the target's
own measured rates), times what training reaches of scoring's rate on a card where both were measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from zoo.checks import training_need
from zoo.checks.layouts import check_training
from zoo.contracts import Base, Contract, Entry, Shape, TrainRequest, TrainSpec, Variant, changed
from zoo.cost.basis import has_own_rates, is_t4, rates_on, shape_of, t4_ratio
from zoo.cost.interval import Interval, spread_factor
from zoo.cost.lengths import file_of
from zoo.cost.published import DECLARED_RATES_SPREAD, NOISE, START_SECONDS
from zoo.errors import ZooError
from zoo.models.batches import dealt, padded_tokens, plan_steps, shared, total_steps
from zoo.models.memory import adapter_parameters, kept_layer_bytes
from zoo.models.shapes import flops_of_shape
from zoo.scores.metric_names import TRAIN_SPEED
from zoo.store import list_artifacts
from zoo.targets import Target, is_of_kind

NOTEBOOK_HOURS = (9, 12)  # of one session on Kaggle with GPUs: a competition's limit, and the platform's own
# Operations a second of training beside those of scoring on one card: H200, Llama 3 8B's shape, 16 rows a step, no layer
# computed again. Scoring 557 TFLOP/s (benchmarks/score_speed.md). Training without dropout 13,193 and 11,964 tokens/s, with
# dropout 10,360, 7,762 and 6,974 (benchmarks/train_speed.md), each times 4 operations a weight and token.
SCORING_FLOPS = 557e12
WITHOUT_DROPOUT = (13_193.0, 11_964.0)
WITH_DROPOUT = (10_360.0, 7_762.0, 6_974.0)
MEASURED_WEIGHTS = 6.98e9  # of that shape's linear layers
OTHER_CARD_SPREAD = 0.35  # of that ratio on another card than the one that it was measured on: a guess
BACKWARD_ATTENTION = 2.5  # times the forward pass: five products instead of two (Dao 2023, arXiv 2307.08691, 3.1)
MOST_PLANNED = 20_000  # rows whose steps are planned; a longer file's are as many times more
HEADROOM = 0.04  # as zoo/stages/train/activation_checkpoints.py leaves


class Way(Contract):
    """One way to train `folds` folds on a target's cards, and when all of them have ended."""

    name: str
    gpus: int
    at_a_time: int
    seconds: Interval


class Fits(Contract):
    """Rows of a file whose training ends within a notebook's hours.

    Likely, and nine times in ten (`safe`).
    """

    hours: int
    rows: int
    safe_rows: int


class TrainingForecast(Contract):
    """What training costs: one fold on one card, and every way over the target's cards.

    The soonest way comes first. `tokens_per_second` of one card, of rows' own tokens. `memory`: what `zoo check --train` says.
    `rows` of the file, of which each fold learns from `learned`.
    """

    entry: str
    target: str
    basis: Literal["measured", "published", "rates"]
    rows: int
    learned: int
    folds: int
    steps: int
    tokens: int
    tokens_per_second: Interval
    seconds: Interval
    ways: tuple[Way, ...]
    fits: tuple[Fits, ...]
    memory: str
    assumed: tuple[str, ...] = ()
    extrapolates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Work:
    """Operations of one fold's training (linear, attention), its tokens and steps.

    `balance`: how even several cards' shares are. `passes` (2,): the part that is shared by `balance` of the cards;
    `evaluations` (2,): shared evenly.
    """

    passes: np.ndarray
    evaluations: np.ndarray
    tokens: int
    steps: int
    balance: float

    def on(self, gpus: int) -> np.ndarray:
        """Operations (2,) of the card that ends last."""
        even: np.ndarray = self.passes / (gpus * self.balance if gpus > 1 else 1) + self.evaluations / gpus
        return even


def forecast_training(
    entry: Entry, target: Target, *, rows: int | None, lengths: Path | None, folds: int, n_folds: int, store: Path
) -> TrainingForecast:
    """What training `folds` of `n_folds` folds of a file costs on a target.

    `rows` of the file, which are as long as those of `lengths`, or as the competition's. ZooError where the entry is
    not trained here, its sizes are not known, or the target's rate is not.
    """
    base, spec, shape = entry.base, entry.train, shape_of(entry)
    if entry.elsewhere is not None:
        raise ZooError(f"{entry.name}: its weights were trained elsewhere, and are not trained here; leave --train out")
    if base is None or spec is None or entry.prompt is None:
        raise ZooError(f"{entry.name}: {entry.a_kind} has no [train]; --train is of language models and encoders")
    if shape is None:
        raise ZooError(f"{entry.name}: its sizes are not known; run `zoo fetch {entry.name}` or give it a [shape]")
    one = Variant(max_tokens=entry.prompt.max_tokens)
    cap = entry.model_copy(update={"score": entry.score and changed(entry.score, variants=(one,))})
    file = file_of(cap, lengths, rows, _fetched(entry, store))
    learned = min(round(file.rows * (1 - 1 / n_folds)), spec.max_rows or file.rows)
    if learned < 1:
        raise ZooError(f"--rows {file.rows}: no row is left to learn from; give more")
    again = recomputed_share(base, spec, shape, target)
    judged = min(spec.eval_rows, max(1, round(file.rows / n_folds)))
    work = work_of(spec, shape, file.tokens[one], learned, judged, gpus=max(1, target.gpus), again=again)
    known = _measured_speeds(entry, target, store)
    price = _Measured(known) if known else _Published(spec, target)
    learning = replace(work, evaluations=np.zeros(2))
    alone, ways = price.seconds(work, 1), _ways(price, work, target, folds)
    assumed = [*file.assumed, *price.assumed(), f"{again:.0%} of the layers computed again in the backward pass, by memory"]
    assumed += [f"each fold learns from {learned:,} of {file.rows:,} rows, {spec.epochs:g} epochs, {work.steps:,} steps"]
    judging = 1 - (price.seconds(learning, 1).likely - price.start) / (alone.likely - price.start)
    assumed.append(f"{judged:,} held-out rows {1 + spec.evals_per_epoch * spec.epochs:g} times: {judging:.0%} of the time")
    if target.gpus > 1:
        size = 4 * (adapter_parameters(shape, spec) if spec.method != "full" else base.parameters) / 1e6
        assumed.append(
            f"{target.gpus} cards share steps {work.balance:.0%} evenly; {size:,.0f} MB of gradients a step not counted"
        )
    if spec.max_hours is not None:
        assumed.append(f"to the last step; train.max_hours = {spec.max_hours:g} ends it before where it takes longer")
    if spec.extra or spec.first:
        assumed.append("rows of train.extra and train.first not counted")
    return TrainingForecast(
        entry=entry.name,
        target=target.name,
        basis=price.basis,
        rows=file.rows,
        learned=learned,
        folds=folds,
        steps=work.steps,
        tokens=work.tokens,
        tokens_per_second=_inverse(price.seconds(learning, 1), work.tokens, price.start),
        seconds=alone,
        ways=ways,
        fits=tuple(_fits(hours, ways[0], file.rows, price.start * -(-folds // ways[0].at_a_time)) for hours in NOTEBOOK_HOURS),
        memory=_memory(base, spec, shape, target),
        assumed=tuple(assumed),
        extrapolates=() if known else (f"never trained on {target.name}",),
    )


# --- work ------------------------------------------------------------------------------------------------------------------


def work_of(spec: TrainSpec, shape: Shape, lengths: np.ndarray, rows: int, judged: int, *, gpus: int, again: float) -> Work:
    """Operations of a training on `rows` rows of such lengths, as the stage plans its steps.

    A frozen weight takes 4 operations a token, forward and for the gradient of its input, a trained one 6; `again`: the share
    of the layers that is computed once more. Padding is computed, too. An evaluation is a forward pass of `judged` rows.
    """
    planned = np.random.default_rng(spec.seed).choice(np.maximum(lengths, 1), min(rows, MOST_PLANNED))
    sampled = planned.astype(int).tolist()
    steps = plan_steps(sampled, spec, 0)
    share = total_steps(rows, spec) / len(steps)
    flops = flops_of_shape(shape)
    padded = np.array([(len(b), padded_tokens(b, sampled), len(b) * max(sampled[i] for i in b) ** 2) for s in steps for b in s])
    linear = flops.per_token * (3.0 if spec.method == "full" else 2.0 + again)
    adapters = 0 if spec.method == "full" else 6.0 * adapter_parameters(shape, spec)
    attention = flops.per_token_sq * (1 + again + BACKWARD_ATTENTION)
    passes = share * np.array([(linear + adapters) * padded[:, 1].sum(), attention * padded[:, 2].sum()])
    evaluations = 1 + spec.evals_per_epoch * spec.epochs
    mean = np.array([1.0, lengths.mean(), (lengths**2).mean()])
    return Work(
        passes=passes,
        evaluations=evaluations * judged * flops.split(mean),
        tokens=round(share * sum(sampled)),
        steps=total_steps(rows, spec),
        balance=balance_of(steps, sampled, gpus),
    )


def balance_of(steps: Sequence[list[list[int]]], lengths: list[int], gpus: int) -> float:
    """How even the cards' shares are: mean over largest, of the tokens that steps compute.

    As the stage cuts and deals each step's micro-batches. Against the steps of one card, so that what cutting saves of padding
    counts, too.
    """
    if gpus == 1:
        return 1.0
    whole = latest = 0.0
    for step in steps:
        pieces = [float(padded_tokens(batch, lengths)) for batch in dealt(step, lengths, gpus)]
        latest += max(sum(pieces[i] for i in own) for own in shared(pieces, gpus))
        whole += sum(padded_tokens(batch, lengths) for batch in step)
    return whole / (gpus * latest)


def recomputed_share(base: Base, spec: TrainSpec, shape: Shape, target: Target) -> float:
    """Of the layers, those whose activations are computed again, as memory allows.

    By the arithmetic of `zoo check`; the stage measures instead (zoo/stages/train/activation_checkpoints.py).
    """
    if not spec.gradient_checkpointing:
        return 0.0
    room = (1 - HEADROOM) * min(target.device_bytes, (spec.memory_gib or math.inf) * 2**30)
    spare = room - training_need(base, spec, shape, target).total
    norms, float16 = 4 if base.architecture.startswith("Gemma") else 2, "bfloat16" not in target.dtypes
    kept = kept_layer_bytes(shape, spec, norms, float16) * spec.micro_batch_tokens
    layers = shape.num_hidden_layers
    return 1 - min(layers, max(0, int(spare // kept))) / layers


# --- price -----------------------------------------------------------------------------------------------------------------


class _Published:
    """Seconds by operations, at the rates of published runs."""

    start = START_SECONDS

    def __init__(self, spec: TrainSpec, target: Target) -> None:
        scale = t4_ratio(target)
        if scale is None:
            raise ZooError(f"{target.name}: its rate is not known; give it rates with `zoo target measure {target.name}`")
        self.target, self.fit, self.scale = target, rates_on(target), scale
        self.basis: Literal["measured", "published", "rates"] = "rates" if has_own_rates(target) else "published"
        self.dropout = bool(spec.dropout) and spec.method != "full"
        self.ratio, own = training_ratio(dropout=self.dropout)
        beyond = 0.0 if is_t4(target) else DECLARED_RATES_SPREAD
        self.spread = float(np.hypot(np.hypot(own, OTHER_CARD_SPREAD), beyond))

    def seconds(self, work: Work, gpus: int) -> Interval:
        at_scoring = replace(work, passes=work.passes / [self.ratio, 1.0])  # attention is the same kernel in both
        return self.fit.seconds(at_scoring.on(gpus), scale=self.scale, spread=self.spread, start=self.start)

    def assumed(self) -> list[str]:
        rate = self.fit.rate(0).likely * self.scale / 1e12
        with_it = f"with{'' if self.dropout else 'out'} dropout"
        return [
            f"scoring reaches {rate:.3g} TFLOP/s by published runs on two T4s (`benchmarks/cost_model.md`); training {with_it} "
            f"{self.ratio:.2f} of that, as measured on one H200 (`benchmarks/train_speed.md`)",
            f"that share on another card within {OTHER_CARD_SPREAD:.0%} (one deviation): a guess, and most of the interval",
            f"{self.start:.0f} s of start-up",
        ]


class _Measured:
    """Seconds by the tokens a second of trainings that ran on a machine of this kind, each over as many GPUs as it had."""

    basis: Literal["measured", "published", "rates"] = "measured"

    def __init__(self, known: Sequence[tuple[float, float]]) -> None:
        speeds = np.log([speed for speed, _ in known])
        self.speed, self.count = float(np.exp(speeds.mean())), len(known)
        self.start = float(np.mean([load for _, load in known]))
        self.spread = max(NOISE, float(speeds.std(ddof=1)) if len(known) > 1 else 0.0)

    def seconds(self, work: Work, gpus: int) -> Interval:
        run = spread_factor(self.spread)
        seconds = work.tokens / self.speed * float(work.on(gpus).sum() / work.passes.sum())
        return Interval(**{k: self.start + seconds * v for k, v in run.model_dump().items()})

    def assumed(self) -> list[str]:
        return [f"{self.speed:,.0f} tokens/s a card, as {self.count} trainings of the entry ran on such a machine"]


def training_ratio(*, dropout: bool) -> tuple[float, float]:
    """What training reaches of scoring's operations a second on one card.

    With it the deviation of its logarithm over runs.
    """
    speeds = np.log(WITH_DROPOUT if dropout else WITHOUT_DROPOUT)
    ratio = math.exp(float(speeds.mean())) * 4 * MEASURED_WEIGHTS / SCORING_FLOPS
    return ratio, float(speeds.std(ddof=1))


def _measured_speeds(entry: Entry, target: Target, store: Path) -> list[tuple[float, float]]:
    """(tokens a second a card, seconds of loading) of the entry's trainings on a machine of the target's kind."""
    found = []
    for artifact in list_artifacts(store, "train"):
        made = artifact.manifest
        if not isinstance(made.request, TrainRequest) or made.request.entry != entry.name or made.request.emulates:
            continue
        speed = made.metrics.get(TRAIN_SPEED)
        if speed and is_of_kind(made.hardware.get("machine", ""), target):
            found.append((speed / made.request.spec.gpus, made.measurements.load_seconds))
    return found


def _ways(price: _Published | _Measured, work: Work, target: Target, folds: int) -> tuple[Way, ...]:
    """Folds one after the other on one card, side by side, or each over all cards; the soonest first."""
    cards = max(1, target.gpus)
    alone, together = price.seconds(work, 1), price.seconds(work, cards)
    at_a_time = min(cards, folds)
    name = f"{at_a_time} folds side by side, one a card" if at_a_time > 1 else "one card"
    ways = [Way(name=name, gpus=1, at_a_time=at_a_time, seconds=_times(alone, -(-folds // at_a_time)))]
    if cards > 1:
        ways.append(Way(name=f"train.gpus = {cards}", gpus=cards, at_a_time=1, seconds=_times(together, folds)))
    return tuple(sorted(ways, key=lambda way: way.seconds.likely))


def _fits(hours: int, way: Way, rows: int, start: float) -> Fits:
    """Time grows with the rows, but for the start."""

    def within(seconds: float) -> int:
        return max(0, int(rows * (3600 * hours - start) / max(1e-9, seconds - start)))

    return Fits(hours=hours, rows=within(way.seconds.likely), safe_rows=within(way.seconds.high))


def _times(interval: Interval, count: int) -> Interval:
    return Interval(**{name: count * value for name, value in interval.model_dump().items()})


def _inverse(seconds: Interval, tokens: int, start: float) -> Interval:
    """Tokens a second of an interval of seconds, the start left out."""
    low, likely, high = (tokens / max(1e-9, s - start) for s in (seconds.high, seconds.likely, max(seconds.low, start + 1)))
    return Interval(low=low, likely=likely, high=max(likely, high))


def _memory(base: Base, spec: TrainSpec, shape: Shape, target: Target) -> str:
    found = check_training(base, spec, shape, target)
    return f"{found.verdict}: {found.what}" + (f"; {found.mend}" if found.mend else "")


def _fetched(entry: Entry, store: Path) -> Path | None:
    from zoo.pipeline.weights import fetched_folder

    return fetched_folder(entry, store)
