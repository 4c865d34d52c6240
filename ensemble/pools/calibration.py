"""Recalibrate a plan's blend to battles of another kind, by a few labelled ones.

At most three numbers: a temperature, a bias for ties, and a share of equal weights. All of them are the coefficients of a
small log pool of the blend and of the members' mean, convex, and shrunk to the blend as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ensemble.members.table import balanced_folds
from ensemble.plan import Calibration, Plan
from ensemble.pools.blend import AS_IS_FLOOR
from ensemble.pools.coordinates import EVEN, EVEN_SIDES
from ensemble.pools.patterns import Blended, blend_rows
from ensemble.pools.softmax import Design, fit_softmax
from zoo.scores.metrics import log_loss_rows, mean_and_error

FEWEST_ROWS, FEWEST_PROMPTS = 20, 10
SURELY = 2.0  # standard errors
REPEATS, FEW = 5, 2_000  # divisions into folds, where rows are fewer
# A prior of standard deviation 0.18 around the blend as it is, in inverse temperatures and in the logit of a tie. Chosen on
# simulated shifts and a real one: a third of it costs 0.005 nats at 50 rows where nothing has shifted, ten times as much gains
# a fifth of what this does.
STRENGTH = 30.0
# Of inverse temperatures that come out above 1. Battles of another kind seldom deserve more certainty than the blend's own, and
# few rows that say so are mostly lucky ones.
SHARPENING = 100.0
_LEAST_SLOPE, _MOST_SLOPE = 0.05, 20.0  # inverse temperatures, as in `ensemble.pools.blend`


@dataclass(frozen=True)
class Numbers:
    """The numbers of `ensemble.plan.Calibration`."""

    temperature: float = 1.0
    tie_bias: float = 0.0
    equal_share: float = 0.0


@dataclass(frozen=True)
class Fitted:
    """A calibration, and out-of-fold losses (rows,) without and with it.

    `gain`: what it gained, every choice made without the fold, and the error of that, clustered by prompt. `kept`: whether it
    is taken, see `fit_calibration`; where not, `numbers` are the identity's and both losses are the same.
    """

    numbers: Numbers
    kept: bool
    before: np.ndarray
    after: np.ndarray
    gain: float
    gain_se: float


def fit_calibration(p: np.ndarray, equal: np.ndarray, y: np.ndarray, groups: np.ndarray, *, ties: bool = True) -> Fitted:
    """Fit a calibration to labelled rows.

    p: the plan's triples (rows, 3), `equal` the members' mean (rows, 3), y labels (rows,), `groups` prompts (rows,). A share
    of equal weights is fitted where the folds say, by more than the error, that it is better to. The whole is taken unless the
    folds say, by more than SURELY errors, that it hurts. It is shrunk so much that it needs no stronger proof: on 50 rows the
    error of any gain is larger than the gain, and to wait for a gain beyond its error is to lose half of what there is to gain
    and more. ValueError for fewer than FEWEST_ROWS rows or FEWEST_PROMPTS prompts, and where all have the same winner.
    """
    if len(y) < FEWEST_ROWS or len(np.unique(groups)) < FEWEST_PROMPTS:
        raise ValueError(
            f"{len(y)} labelled rows of {len(np.unique(groups))} prompts are too few to calibrate on; need {FEWEST_ROWS} rows "
            f"of {FEWEST_PROMPTS} prompts"
        )
    if len(np.unique(y)) == 1:
        raise ValueError(f"all {len(y)} labelled rows have the same winner; there is nothing to learn from them")
    repeats = REPEATS if len(y) < FEW else 1
    folds = [balanced_folds(groups, repeat=repeat + 1) for repeat in range(repeats)]
    before = log_loss_rows(p, y)
    plain, mixed = (
        np.stack([_out_of_fold(p, equal, y, one, ties=ties, reweighted=reweighted) for one in folds])
        for reweighted in (False, True)
    )
    after = chosen_by_other_folds(plain, mixed, np.stack(folds), groups).mean(axis=0)
    gain, error = mean_and_error(before - after, groups)
    if gain < -SURELY * error:
        return Fitted(Numbers(), False, before, before, gain, error)
    reweighted = is_better(mixed, plain, groups)
    return Fitted(fit_numbers(p, equal, y, ties=ties, reweighted=reweighted), True, before, after, gain, error)


def is_better(mixed: np.ndarray, plain: np.ndarray, groups: np.ndarray) -> bool:
    """Whether a share of equal weights lowers the losses (repeats, rows).

    By more than the error of that.
    """
    more, error = mean_and_error((plain - mixed).mean(axis=0), groups)
    return more > error


def chosen_by_other_folds(plain: np.ndarray, mixed: np.ndarray, folds: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Losses (repeats, rows) where other folds choose for each fold.

    What they choose is whether there is a share of equal weights. Where a fold's own rows had a say in it, what is reported
    would flatter by the choice.
    """
    out = plain.copy()
    for repeat, assigned in enumerate(folds):
        for fold in np.unique(assigned):
            held = assigned == fold
            if is_better(mixed[:, ~held], plain[:, ~held], groups[~held]):
                out[repeat, held] = mixed[repeat, held]
    return out


def _out_of_fold(
    p: np.ndarray, equal: np.ndarray, y: np.ndarray, folds: np.ndarray, *, ties: bool, reweighted: bool
) -> np.ndarray:
    losses = np.empty(len(y))
    for fold in np.unique(folds):
        held = folds == fold
        numbers = fit_numbers(p[~held], equal[~held], y[~held], ties=ties, reweighted=reweighted)
        losses[held] = log_loss_rows(apply_numbers(numbers, p[held], equal[held], ties=ties), y[held])
    return losses


def fit_numbers(p: np.ndarray, equal: np.ndarray, y: np.ndarray, *, ties: bool = True, reweighted: bool = False) -> Numbers:
    """The numbers of the ridged maximum likelihood fit to these rows.

    Of z = a log p + b log e + c for a tie, with a, b >= 0 (b = 0 unless `reweighted`), the penalty STRENGTH / 2 * ((a - 1)^2 +
    b^2 + c^2) is added to the sum of the log losses: a normal prior around the blend as it is, whose weight fades as rows come.
    Where a + b comes out above 1, which makes the blend surer than it is, it is fitted again with SHARPENING for a and b.
    """
    sources = [p, equal] if reweighted else [p]
    leads, pulls = zip(*(_coordinates(table) for table in sources), strict=True)
    k = len(sources)

    def fit(slopes: float) -> np.ndarray:
        design = Design(
            lead=np.column_stack(leads),
            lead_at=np.arange(k),
            tie=np.column_stack([*pulls, np.ones(len(y))]) if ties else np.empty((len(y), 0)),
            tie_at=np.arange(k + 1) if ties else np.empty(0, dtype=np.int64),
            center=np.array([1.0, *[0.0] * k]),
            penalized=np.array([*[slopes] * k, STRENGTH]),
            bounded=np.array([*[True] * k, False]),
        )
        return fit_softmax(design, y, ridge=1 / len(y)).parameters

    x = fit(STRENGTH)
    if x[:k].sum() > 1:
        x = fit(SHARPENING)
    total = float(x[:k].sum())
    share = float(x[1]) / total if reweighted and total > 0 else 0.0
    return Numbers(1 / min(max(total, _LEAST_SLOPE), _MOST_SLOPE), float(x[k]) if ties else 0.0, min(max(share, 0.0), 1.0))


def _coordinates(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lead and the pull to a tie (rows,) of triples, as `ensemble.pools.softmax` names them."""
    logs = _logs(p)
    return logs[:, 0] - logs[:, 1], logs[:, 2] - (logs[:, 0] + logs[:, 1]) / 2


def _logs(p: np.ndarray) -> np.ndarray:
    logs: np.ndarray = np.log(np.maximum(p, 1e-15))
    return logs


def apply_numbers(numbers: Numbers, p: np.ndarray, equal: np.ndarray, *, ties: bool = True) -> np.ndarray:
    """Triples (rows, 3) as `Calibration` says, from the blend's and the members' mean."""
    if numbers == Numbers():
        return p
    logits = ((1 - numbers.equal_share) * _logs(p) + numbers.equal_share * _logs(equal)) / numbers.temperature
    logits[:, 2] = logits[:, 2] + numbers.tie_bias if ties else -np.inf
    logits -= logits.max(axis=1, keepdims=True)
    out: np.ndarray = np.exp(logits)
    out /= out.sum(axis=1, keepdims=True)
    return out


def numbers_of(calibration: Calibration | None) -> Numbers:
    """A plan's numbers; the identity's where it has no calibration."""
    if calibration is None:
        return Numbers()
    return Numbers(calibration.temperature, calibration.tie_bias, calibration.equal_share)


def equal_weights(tables: Mapping[str, np.ndarray], has: Mapping[str, np.ndarray], *, ties: bool = True) -> np.ndarray:
    """The mean (rows, 3) of the members that have scored a row; uniform where none has.

    A small floor keeps a zero from costing 34 nats.
    """
    even = 1 / (EVEN if ties else EVEN_SIDES)
    total = sum((np.where(has[name][:, None], tables[name], 0.0) for name in has), np.zeros((len(next(iter(has.values()))), 3)))
    count = np.sum(list(has.values()), axis=0)[:, None]
    mean = np.where(count > 0, total / np.maximum(count, 1), even)
    mixed: np.ndarray = (1 - AS_IS_FLOOR) * mean + AS_IS_FLOOR * even
    return mixed


def blend_by_plan(
    plan: Plan,
    tables: Mapping[str, np.ndarray],
    has: Mapping[str, np.ndarray],
    *,
    as_planned: np.ndarray,
    lengths: np.ndarray | None = None,
) -> Blended:
    """Every row's triple as the plan gives it: its members' blend, then the plan's calibration.

    Arguments as those of `ensemble.pools.patterns.blend_rows`. Rows that no member has scored hold the prior as it is.
    """
    blended = blend_rows(plan.pools, tables, has, as_planned=as_planned, prior=plan.prior, lengths=lengths)
    numbers = numbers_of(plan.calibration)
    if numbers == Numbers():
        return blended
    p = apply_numbers(numbers, blended.p, equal_weights(tables, has, ties=plan.ties), ties=plan.ties)
    return replace(blended, p=np.where(blended.made[:, None], p, blended.p))
