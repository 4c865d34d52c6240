"""A T4's rates, fitted to run times and prefill rates that others published.

They serve forecasts for machines that nothing was measured on.

hours = start-up + passes * rows * (linear operations / matmul rate + attention operations / attention rate) / GPUs, times a
submission factor where the stated time is that of a real submission. Two rates and the factor are fitted to the logarithms of
`published_runs.toml` together with what is believed beforehand, since a dozen rounded figures cannot carry three numbers alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from zoo.contracts import Contract, Name, Positive, Shape
from zoo.cost.interval import COVERAGE, Interval, totals_of
from zoo.errors import ZooError
from zoo.models.shapes import flops_of_shape
from zoo.settings import read_toml
from zoo.targets import PACKAGE_FOLDER, Target, load_target

START_SECONDS = 180.0  # imports, weights from disk, engine: assumed for published runs, and where no disk was measured
# Imports and an engine without its weights. With a 3B model's it took 45 s on a Kaggle pair (kaggle-vllm, September 2026).
ENGINE_SECONDS = 60.0
# Before any run is seen, median and deviation of the logarithm: a third of the data sheet within 1.6 times; attention without
# tensor cores at a quarter of the 8.1 TFLOP/s of float32 within 2.2 times; submissions at 1.35 to 1.8 times the interactive
# time in four of five cases.
PRIOR_MEDIAN = np.log([20e12, 2e12, 1.56])
PRIOR_SPREAD = np.array([0.5, 0.8, 0.112])
# Deviation of the logarithm where speed is carried over by data sheets: Llama 3 8B reaches 0.65 of an H200's (45,600 tokens/s)
# and 0.29 of a T4's (published).
DECLARED_RATES_SPREAD = 0.6
# Of the rates that a card measured of itself, what scoring reaches, median and deviation of the logarithm. Matmul: 0.47 with a
# T4's kernels (Marlin) and 0.87 with its own on an H200, each by its sustained rate (benchmarks/score_speed.md). Attention: a
# guess, since which kernels the engine has is not known when torch's are timed.
MATMUL_SHARE, MATMUL_SHARE_SPREAD = 0.6, 0.3
ATTENTION_SHARE, ATTENTION_SHARE_SPREAD = 0.6, 0.7
# Published runs are of other engines: beside a card's own rates they are off by this deviation of the logarithm. vLLM 0.21 on
# two 2080 Ti reached 41 % of a data sheet of which these runs reach 29 % (`[[rates]]` of published_runs.toml).
ENGINE_SPREAD = 0.35
NOISE, NOISE_RUNS = 0.25, 3.0  # relative deviation of a stated time before any is seen, and how many runs that counts for
ROUNDS = 30


class PublishedRun(Contract):
    """One published run time with its conditions. `hours` of the whole job on two T4s."""

    name: str
    model: str
    library: str
    precision: str
    max_tokens: Positive
    rows_longer: Literal["cut", "skipped", "padded"] = "cut"
    batch_rows: Positive | None = None
    passes: Positive = 1
    rows: Positive
    hours: Annotated[float, Field(gt=0)]
    bound: Literal["about", "below", "above"] = "about"
    kind: Literal["interactive", "submission"]
    fit: bool = True
    why: str = ""
    group: Name
    source: str


class PublishedRate(Contract):
    """One published prefill rate with its conditions.

    Tokens a second on all `gpus` together, nothing generated. `parameters` of the linear layers; `sheet_flop_per_second` of
    one card in float16, by its data sheet.
    """

    name: str
    model: str
    parameters: Annotated[float, Field(gt=0)]
    engine: str
    precision: str
    card: str
    gpus: Positive
    sheet_flop_per_second: Annotated[float, Field(gt=0)]
    prompt_tokens: Positive
    batch_rows: Positive = 1
    tokens_per_second: Annotated[float, Field(gt=0)]
    fit: bool = True
    why: str = ""
    group: Name
    source: str

    @property
    def share(self) -> float:
        """Of the data sheet's rate: two operations a parameter and token; attention is left out."""
        return 2 * self.parameters * self.tokens_per_second / self.gpus / self.sheet_flop_per_second


class Lengths(Contract):
    """How long the competition's rows are.

    Quantiles of their characters, and how characters become tokens.
    """

    characters_per_token: Annotated[float, Field(gt=0)]
    template_tokens: Annotated[int, Field(ge=0)]
    characters: tuple[Positive, ...]

    def tokens(self, characters: np.ndarray | None = None) -> np.ndarray:
        """Tokens (rows,) of rows of so many characters, template included.

        By default the lengths are the competition's quantiles.
        """
        own = np.array(self.characters, dtype=np.float64) if characters is None else characters
        return self.template_tokens + own / self.characters_per_token


class Published(Contract):
    """`published_runs.toml`."""

    lengths: Lengths
    models: dict[str, Shape]
    runs: tuple[PublishedRun, ...]
    rates: tuple[PublishedRate, ...] = ()


@functools.cache
def load_published(path: Path = Path(__file__).parent / "published_runs.toml") -> Published:
    """The published runs. ZooError names an unknown or missing key."""
    return read_toml(path, Published)


@functools.cache
def published_machine() -> Target:
    """The two T4s of the published runs as the package declares them.

    Targets of the user's own have no say.
    """
    return load_target(str(PACKAGE_FOLDER / "t4x2.toml"))


def run_tokens(run: PublishedRun, lengths: Lengths) -> np.ndarray:
    """Tokens that the model computes on rows like the competition's.

    0 for a row that is skipped, the cap for a padded one.
    """
    tokens = lengths.tokens()
    if run.rows_longer == "padded":
        return np.full_like(tokens, run.max_tokens)
    if run.rows_longer == "skipped":
        return np.where(tokens > run.max_tokens, 0.0, tokens)
    capped: np.ndarray = np.minimum(tokens, run.max_tokens)
    return capped


def run_operations(run: PublishedRun, published: Published) -> np.ndarray:
    """Linear and attention operations (2,) of a run on one GPU.

    ZooError where its model has no shapes.
    """
    if run.model not in published.models:
        raise ZooError(f"published_runs.toml: {run.name}: no [models.{run.model}]; add its shapes from config.json")
    totals = totals_of(run_tokens(run, published.lengths), run.rows)
    return run.passes * flops_of_shape(published.models[run.model]).split(totals) / published_machine().gpus


@dataclass(frozen=True)
class RateFit:
    """Rates fitted to published runs.

    `log` (3,): logarithms of the matmul rate and the attention rate of one T4 (operations a second) and of the submission
    factor; `covariance` (3, 3) of them; `noise`: relative deviation of a run; `degrees` of freedom of that deviation.
    """

    log: np.ndarray
    covariance: np.ndarray
    noise: float
    degrees: float

    def with_measured(self, matmul: float | None, attention: float | None) -> RateFit:
        """The fit together with rates that such a card has measured of itself.

        In operations a second; None: not measured. Each is an observation of a logarithm with what scoring reaches of it as
        its deviation, beside published runs of other engines: the update of a Gaussian by linear observations (Kalman).
        """
        seen = [(0, matmul, MATMUL_SHARE, MATMUL_SHARE_SPREAD), (1, attention, ATTENTION_SHARE, ATTENTION_SHARE_SPREAD)]
        known = [(index, np.log(rate * share), spread) for index, rate, share, spread in seen if rate]
        if not known:
            return self
        rows = np.eye(3)[[index for index, _, _ in known]]
        noise = np.diag([spread**2 for _, _, spread in known])
        covariance = self.covariance + np.diag([ENGINE_SPREAD**2, ENGINE_SPREAD**2, 0])
        gain = covariance @ rows.T @ np.linalg.inv(rows @ covariance @ rows.T + noise)
        log = self.log + gain @ (np.array([value for _, value, _ in known]) - rows @ self.log)
        return replace(self, log=log, covariance=covariance - gain @ rows @ covariance)

    def seconds(
        self,
        operations: np.ndarray,
        *,
        submission: bool = False,
        scale: float = 1.0,
        spread: float = 0.0,
        start: float = START_SECONDS,
    ) -> Interval:
        """Seconds of a run of so many operations (2,) a GPU, on GPUs `scale` times a T4.

        `spread` widens the logarithm; `start`: seconds before the first row.
        """
        from scipy.stats import t

        log_seconds, slope = log_run_seconds(self.log, np.asarray(operations) / scale, submission, start)
        deviation = float(np.sqrt(slope @ self.covariance @ slope + self.noise**2 + spread**2))
        reach = float(np.exp(t.ppf((1 + COVERAGE) / 2, self.degrees) * deviation))
        likely = float(np.exp(log_seconds))
        return Interval(low=likely / reach, likely=likely, high=likely * reach)

    def rate(self, index: int) -> Interval:
        """Interval of the matmul rate (0), the attention rate (1) or the submission factor (2)."""
        from scipy.stats import t

        reach = float(np.exp(t.ppf((1 + COVERAGE) / 2, self.degrees) * np.sqrt(self.covariance[index, index])))
        likely = float(np.exp(self.log[index]))
        return Interval(low=likely / reach, likely=likely, high=likely * reach)


def log_run_seconds(
    log: np.ndarray, operations: np.ndarray, submission: bool, start: float = START_SECONDS
) -> tuple[float, np.ndarray]:
    """Logarithm of a run's seconds at the parameters `log` (3,), and its slope in them (3,)."""
    parts = operations / np.exp(log[:2])
    total = start + parts.sum()
    return float(np.log(total) + submission * log[2]), np.array([*(-parts / total), float(submission)])


def fit_rates(runs: Sequence[PublishedRun], published: Published) -> RateFit:
    """Most probable rates and factor, given the runs and the published rates.

    Those with `fit = false` do not count.
    """
    from scipy.optimize import least_squares

    prior, spread = belief(published.rates)

    used = [run for run in runs if run.fit]
    work = [run_operations(run, published) for run in used]
    stated = np.log([run.hours * 3600 for run in used])
    submitted = [run.kind == "submission" for run in used]

    def predicted(log: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [log_run_seconds(log, w, s) for w, s in zip(work, submitted, strict=True)]
        return np.array([f[0] for f in found]), np.array([f[1] for f in found]).reshape(-1, 3)

    log, noise = prior, NOISE
    for _ in range(ROUNDS):  # the deviation follows from the residuals, and the fit from the deviation
        sigma = noise

        def residuals(at: np.ndarray, sigma: float = sigma) -> np.ndarray:
            return np.concatenate([(predicted(at)[0] - stated) / sigma, (at - prior) / spread])

        log = least_squares(residuals, log).x
        squares = float(((predicted(log)[0] - stated) ** 2).sum())
        noise = ((NOISE_RUNS * NOISE**2 + squares) / (NOISE_RUNS + len(used))) ** 0.5
        if abs(noise - sigma) < 1e-9:
            break
    slope = predicted(log)[1] / noise
    covariance = np.linalg.inv(slope.T @ slope + np.diag(spread**-2.0))
    return RateFit(log, covariance, noise, NOISE_RUNS + len(used))


def belief(rates: Sequence[PublishedRate]) -> tuple[np.ndarray, np.ndarray]:
    """What is believed before any run is seen: median and deviation, (3,) each.

    The matmul rate's is moved by the share of its data sheet that each card reached. Rates of one group are one observation,
    their mean: they share card, engine and author.
    """
    sheet = published_machine().declared.matmul_flop_per_second["float16"]
    shares: dict[str, list[float]] = {}
    for rate in rates:
        if rate.fit:
            shares.setdefault(rate.group, []).append(rate.share)
    seen = [float(np.mean(np.log(group)) + np.log(sheet)) for group in shares.values()]
    weight = DECLARED_RATES_SPREAD**-2.0
    precision = PRIOR_SPREAD[0] ** -2.0 + weight * len(seen)
    median, spread = PRIOR_MEDIAN.copy(), PRIOR_SPREAD.copy()
    median[0] = (PRIOR_MEDIAN[0] * PRIOR_SPREAD[0] ** -2.0 + weight * sum(seen)) / precision
    spread[0] = precision**-0.5
    return median, spread


@functools.cache
def published_rates() -> RateFit:
    """Rates fitted to all published runs and rates."""
    published = load_published()
    return fit_rates(published.runs, published)
