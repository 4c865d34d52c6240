"""What a change of training gained: paired log losses, with an error of prompts and seeds.

A loss belongs to a held-out row and to a seed of training. Both are samples: other prompts and other seeds would have given
another mean. With d_is the loss saved on row i by the pair of trainings of seed s, prompts and seeds are two crossed random
effects,

    d_is = gain + prompt(i) + seed(s) + interaction,

where the rows of a prompt's near-copies share the first, whatever their number. Their parts of the variance of the mean come
from sums of deviations over prompts, over seeds, and over what is left in each pair of both (the two-way clusters of Cameron,
Gelbach and Miller 2011, J. Bus. Econ. Stat. 29, which for crossed random effects are the estimates of an analysis of
variance):

    variance = V_prompts + max(0, V_seeds - V_interaction).

With three seeds the second part has two degrees of freedom, and 1.96 errors would cover the truth in 80 % of cases. So an
interval has the quantile of Student's t of each part by itself, the squares added up: t(prompts - 1)^2 V_prompts +
max(0, t(seeds - 1)^2 V_seeds - t(prompts - 1)^2 V_interaction). The interaction, which V_prompts has as well, is taken out
with the small quantile: with the large one seeds that happen to lie close together leave nothing of their part, and the
interval covers the truth in 91 % of cases where the interaction is large. Prompts count by their effective number,
rows^2 / (sum of squared rows of a prompt) (Carter, Schnepel and Steigerwald 2017, Rev. Econ. Stat. 99). Simulated coverage of
the 95 % interval is 94 to 99 % from 40 prompts and three seeds on, whichever part dominates (tests/zoo/scores/test_gains.py).

Not in it: other rows of the same source, and other rows to learn from beside it. The gain is that of these files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pandas import factorize

from zoo.contracts import Contract
from zoo.errors import ZooError
from zoo.scores.certificate import cross_fitted, group_folds
from zoo.scores.metrics import fit_recalibration, log_loss_rows, recalibrated

LEVEL = 0.95
LEAST_PROMPTS = 2


class Gain(Contract):
    """Log loss gained a row, in nats: above 0 is better.

    `error`: standard error; `low` to `high`: the 95 % interval. `seeds`: that the error rests on; with one (a training without
    chance) it is of the prompts alone.
    """

    mean: float
    error: float
    low: float
    high: float
    rows: int
    prompts: int
    seeds: int

    @property
    def told(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def paired_gain(before: np.ndarray, after: np.ndarray, groups: np.ndarray) -> Gain:
    """The gain from losses `before` to losses `after`, in nats.

    Both are (rows, seeds), or (rows, 1) of a training without chance. Rows and seeds are paired by their places; `groups`
    (rows,): the same for rows of one prompt and its near-copies. ZooError where there is but one: it says nothing of other
    prompts.
    """
    from scipy.stats import t

    saved = np.asarray(before, dtype=np.float64) - after
    rows, seeds = saved.shape
    mean, codes = float(saved.mean()), factorize(groups)[0]
    size = np.bincount(codes)
    if len(size) < LEAST_PROMPTS:
        raise ZooError(f"a gain on {rows} rows of one prompt says nothing of others; give battles of more prompts")
    sums = np.zeros((len(size), seeds))
    np.add.at(sums, codes, saved - mean)
    by_prompts = _spread(sums.sum(axis=1), rows * seeds)
    by_seeds = cells = 0.0
    if seeds > 1:
        left = sums - sums.mean(axis=1, keepdims=True) - size[:, None] / rows * sums.sum(axis=0)
        cells = float(len(size) * seeds / ((len(size) - 1) * (seeds - 1)) * (left**2).sum() / (rows * seeds) ** 2)
        by_seeds = _spread(sums.sum(axis=0), rows * seeds)
    effective = rows**2 / float((size.astype(np.float64) ** 2).sum())
    tail = (1 + LEVEL) / 2
    of_prompts = t.ppf(tail, max(1.0, effective - 1)) ** 2
    of_seeds = t.ppf(tail, seeds - 1) ** 2 if seeds > 1 else 0.0
    half = float(np.sqrt(of_prompts * by_prompts + max(0.0, of_seeds * by_seeds - of_prompts * cells)))
    return Gain(
        mean=mean,
        error=float(np.sqrt(by_prompts + max(0.0, by_seeds - cells))),
        low=mean - half,
        high=mean + half,
        rows=rows,
        prompts=len(size),
        seeds=seeds,
    )


def _spread(sums: np.ndarray, count: int) -> float:
    """Variance of a mean over `count` values, from the sums of their deviations in each cluster."""
    clusters = len(sums)
    return float(clusters / (clusters - 1) * (sums**2).sum() / count**2)


def cross_recalibrated_losses(p: np.ndarray, y: np.ndarray, groups: np.ndarray, *, ties: bool = True) -> np.ndarray:
    """Log loss of each row (rows,) once it is recalibrated by other prompts' rows.

    `p` (rows, 3), labels `y` (rows,). A temperature and biases are fitted on the other folds of prompts (`groups`), so nothing
    is measured where it was fitted. Without `ties` p_tie is 0 and stays so.
    """
    sides = 3 if ties else 2

    def fitted(rest: np.ndarray, own: np.ndarray) -> np.ndarray:
        moved = np.zeros((int(own.sum()), 3))
        moved[:, :sides] = recalibrated(p[own, :sides], fit_recalibration(p[rest, :sides], y[rest]))
        return moved

    return log_loss_rows(cross_fitted(group_folds(groups), fitted), y)


def drowns_at(counts: Sequence[int], losses: Sequence[np.ndarray], groups: np.ndarray) -> int | None:
    """From how many rows on more of them are not told from noise.

    None where the largest count still gains. `counts` ascending, 0 (no such rows) the first; `losses` (rows, seeds) of each.
    The rule: the smallest count from which no larger one gains, that is whose gain over it has a 95 % interval above 0.
    """
    for place, count in enumerate(counts[:-1]):
        later = [paired_gain(losses[place], after, groups) for after in losses[place + 1 :]]
        if not any(gain.low > 0 for gain in later):
            return count
    return None
