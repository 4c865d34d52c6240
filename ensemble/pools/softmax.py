"""Newton fits of the log pool and the logistic pool.

Both are convex multinomial likelihoods. Every model here predicts two numbers a row, the lead U = z_a - z_b and the pull to a
tie E = z_tie - (z_a + z_b) / 2, so that p is proportional to (exp(U / 2), exp(-U / 2), exp(E)). Exchanging A and B turns U into
-U and leaves E as it is: a model whose features of U change sign with the exchange, and whose features of E do not, has no bias
between the positions.

Certificate: with every parameter penalized, if only by LEAST_RIDGE, the objective f is strongly convex in each, so that
f(z) >= f(x) + g'(z - x) + sum_i ridge_i (z_i - x_i)^2 / 2. The right side's least value over all allowed z, one parameter at a
time, bounds every f(z) from below. It is also the gap to the dual: the entropy of the rows' probabilities under moment
constraints.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ensemble.pools.linear import nonnegative_quadratic

LEAST_RIDGE = 1e-10
SETTLED = 1e-15  # a step that gains less than this share of the objective is the last: a sum of rows cannot show the next
_MAX_ITERATIONS = 60


@dataclass(frozen=True)
class Design:
    """Features of both numbers, arrays (rows, features).

    `lead_at` and `tie_at` say which parameter each column multiplies. Without features of E there are no ties: E is -infinity.
    `center`: what ridge pulls the parameters to; `penalized`: how much of the ridge each parameter gets, flags or shares;
    `bounded` (at least zero): flags, one a parameter; `precision`: of a normal prior around `center` that weighs as much on
    any number of rows, so that it fades as rows come.
    """

    lead: np.ndarray
    lead_at: np.ndarray
    tie: np.ndarray
    tie_at: np.ndarray
    center: np.ndarray
    penalized: np.ndarray
    bounded: np.ndarray
    precision: np.ndarray | float = 0.0

    def probabilities(self, parameters: np.ndarray) -> np.ndarray:
        """Probabilities (rows, 3) by these parameters."""
        lead = self.lead @ parameters[self.lead_at]
        has_ties = self.tie.shape[1] > 0
        return softmax_of(lead, self.tie @ parameters[self.tie_at] if has_ties else np.full_like(lead, -np.inf))


@dataclass(frozen=True)
class SoftmaxFit:
    """The fitted parameters, and how good they are.

    `loss`: the mean log loss; `objective`: the same with the penalty; `gap`: how much lower the objective can be at most.
    """

    parameters: np.ndarray
    loss: float
    objective: float
    gap: float


def softmax_of(lead: np.ndarray, tie: np.ndarray) -> np.ndarray:
    """Probabilities (rows, 3) of U and E."""
    half = lead / 2
    top = np.maximum(np.abs(half), tie)
    p = np.empty((len(lead), 3))  # column by column: numpy is slow along an axis of three
    for label, logit in enumerate((half, -half, tie)):
        np.exp(logit - top, out=p[:, label])
    p /= (p[:, 0] + p[:, 1] + p[:, 2])[:, None]
    return p


def fit_softmax(
    design: Design, y: np.ndarray, *, ridge: float, start: np.ndarray | None = None, tolerance: float = 1e-9
) -> SoftmaxFit:
    """Minimise the mean log loss with a ridge around `center`.

    ridge / 2 * |parameters - center|^2 over the penalized ones, and the design's prior; y are labels (rows,).
    """
    x = design.center.copy() if start is None else np.asarray(start, dtype=np.float64).copy()
    penalty = ridge * design.penalized + design.precision / len(y) + LEAST_RIDGE
    truth, rows = np.eye(3)[y], np.arange(len(y))

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        p = design.probabilities(parameters)
        loss = -float(np.log(np.maximum(p[rows, y], 1e-300)).mean())
        return loss + float((penalty * (parameters - design.center) ** 2).sum()) / 2, p

    (value, p), last = objective(x), False
    for _ in range(_MAX_ITERATIONS):
        gradient = _gradient(design, p, truth) + penalty * (x - design.center)
        gap = certified_gap(x, gradient, penalty, design.bounded)
        if gap <= tolerance or last:
            break
        hessian = _hessian(design, p)
        hessian[np.diag_indices_from(hessian)] += penalty
        direction = nonnegative_quadratic(hessian, hessian @ x - gradient, start=x, bounded=design.bounded) - x
        decrement = -float(gradient @ direction) / 2
        step, rounding, last = 1.0, 1e-15 * abs(value), decrement <= SETTLED * abs(value)
        while step > 1e-8:
            candidate, candidate_p = objective(x + step * direction)
            if candidate <= value - 1e-4 * step * decrement + rounding:
                break
            step /= 2
        else:
            break
        x, value, p = x + step * direction, candidate, candidate_p
    loss = -float(np.log(np.maximum(p[rows, y], 1e-300)).mean())
    return SoftmaxFit(x, loss, value, gap)


def certified_gap(x: np.ndarray, gradient: np.ndarray, penalty: np.ndarray, bounded: np.ndarray) -> float:
    """How much lower than at x the objective can be anywhere, given its gradient there.

    See the certificate above.
    """
    step = -gradient / penalty
    step = np.where(bounded, np.maximum(step, -x), step)
    return -float((gradient * step + penalty * step**2 / 2).sum())


def _gradient(design: Design, p: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Of the mean log loss, in the parameters; `truth`: ones at the labels (rows, 3)."""
    lead_error = ((p[:, 0] - p[:, 1]) - (truth[:, 0] - truth[:, 1])) / 2
    gradient = np.zeros(len(design.center))
    np.add.at(gradient, design.lead_at, lead_error @ design.lead)
    np.add.at(gradient, design.tie_at, (p[:, 2] - truth[:, 2]) @ design.tie)
    return gradient / len(p)


def _hessian(design: Design, p: np.ndarray) -> np.ndarray:
    """Of the mean log loss: its weights are the variances of (1_a - 1_b) / 2 and of 1_tie, and their covariance."""
    difference = p[:, 0] - p[:, 1]
    lead_lead = ((p[:, 0] + p[:, 1]) - difference**2) / 4
    tie_tie = p[:, 2] * (1 - p[:, 2])
    lead_tie = -difference * p[:, 2] / 2
    hessian = np.zeros((len(design.center), len(design.center)))
    hessian[np.ix_(design.lead_at, design.lead_at)] += design.lead.T @ (lead_lead[:, None] * design.lead)
    hessian[np.ix_(design.tie_at, design.tie_at)] += design.tie.T @ (tie_tie[:, None] * design.tie)
    cross = design.lead.T @ (lead_tie[:, None] * design.tie)
    hessian[np.ix_(design.lead_at, design.tie_at)] += cross
    hessian[np.ix_(design.tie_at, design.lead_at)] += cross.T
    return hessian / len(p)
