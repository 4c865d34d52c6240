"""Newton fits of the log pool and the logistic pool: convex multinomial likelihoods in symmetric coordinates.

Every model here predicts two numbers a row, the lead U = z_a - z_b and the pull to a tie E = z_tie - (z_a + z_b) / 2, so that
p is proportional to (exp(U / 2), exp(-U / 2), exp(E)). Exchanging A and B turns U into -U and leaves E as it is: a model
whose features of U change sign with the exchange, and whose features of E do not, has no bias between the positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ensemble.linear import nonnegative_quadratic

_MAX_ITERATIONS = 60


@dataclass(frozen=True)
class Design:
    """Features of both numbers, arrays (rows, features); `lead_at` and `tie_at` say which parameter each column multiplies.

    `center`: what ridge pulls the parameters to; `penalized` and `bounded` (at least zero): flags, one a parameter.
    """

    lead: np.ndarray
    lead_at: np.ndarray
    tie: np.ndarray
    tie_at: np.ndarray
    center: np.ndarray
    penalized: np.ndarray
    bounded: np.ndarray


@dataclass(frozen=True)
class SoftmaxFit:
    """Parameters, mean log loss without the penalty, and half the squared Newton decrement: the expected gap."""

    parameters: np.ndarray
    loss: float
    gap: float


def softmax_of(lead: np.ndarray, tie: np.ndarray) -> np.ndarray:
    """Probabilities (rows, 3) of U and E."""
    logits = np.stack([lead / 2, -lead / 2, tie], axis=1)
    logits -= logits.max(axis=1, keepdims=True)
    p = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    return p


def fit_softmax(
    design: Design, y: np.ndarray, *, ridge: float, start: np.ndarray | None = None, tolerance: float = 1e-9
) -> SoftmaxFit:
    """Minimise the mean log loss plus ridge / 2 * |parameters - center|^2 over the penalized ones; y are labels (rows,)."""
    x = design.center.copy() if start is None else np.asarray(start, dtype=np.float64).copy()
    penalty = ridge * design.penalized + 1e-10
    truth = np.eye(3)[y]

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        p = softmax_of(design.lead @ parameters[design.lead_at], design.tie @ parameters[design.tie_at])
        loss = -float(np.log(np.maximum(p[np.arange(len(y)), y], 1e-300)).mean())
        return loss + float((penalty * (parameters - design.center) ** 2).sum()) / 2, p

    value, p = objective(x)
    gap = np.inf
    for _ in range(_MAX_ITERATIONS):
        gradient, hessian = _derivatives(design, p, truth)
        gradient += penalty * (x - design.center)
        hessian[np.diag_indices_from(hessian)] += penalty
        target = nonnegative_quadratic(hessian, hessian @ x - gradient, start=x, bounded=design.bounded)
        direction = target - x
        gap = -float(gradient @ direction) / 2
        if gap <= tolerance:
            break
        step = 1.0
        while step > 1e-8:
            candidate, candidate_p = objective(x + step * direction)
            if candidate <= value - 1e-4 * step * gap:
                break
            step /= 2
        else:
            break
        x, value, p = x + step * direction, candidate, candidate_p
    loss = -float(np.log(np.maximum(p[np.arange(len(y)), y], 1e-300)).mean())
    return SoftmaxFit(x, loss, max(gap, 0.0))


def _derivatives(design: Design, p: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and Hessian of the mean log loss in the parameters.

    The Hessian's weights are the variances of (1_a - 1_b) / 2 and of 1_tie, and their covariance.
    """
    n_rows, n_parameters = len(p), len(design.center)
    difference = p[:, 0] - p[:, 1]
    lead_error = (difference - (truth[:, 0] - truth[:, 1])) / 2
    lead_lead = ((p[:, 0] + p[:, 1]) - difference**2) / 4
    tie_tie = p[:, 2] * (1 - p[:, 2])
    lead_tie = -difference * p[:, 2] / 2
    gradient = np.zeros(n_parameters)
    np.add.at(gradient, design.lead_at, lead_error @ design.lead)
    np.add.at(gradient, design.tie_at, (p[:, 2] - truth[:, 2]) @ design.tie)
    hessian = np.zeros((n_parameters, n_parameters))
    hessian[np.ix_(design.lead_at, design.lead_at)] += design.lead.T @ (lead_lead[:, None] * design.lead)
    hessian[np.ix_(design.tie_at, design.tie_at)] += design.tie.T @ (tie_tie[:, None] * design.tie)
    cross = design.lead.T @ (lead_tie[:, None] * design.tie)
    hessian[np.ix_(design.lead_at, design.tie_at)] += cross
    hessian[np.ix_(design.tie_at, design.lead_at)] += cross.T
    return gradient / n_rows, hessian / n_rows
