"""The linear pool's exact weights on the simplex, with a certificate.

They minimise -mean log(sum_j w_j p_j[true label]). The problem is that of mixture proportions, and of the log-optimal
portfolio. Solved by sequential quadratic programming (Kim, Carbonetto, Stephens, Anitescu 2020, "A fast algorithm for maximum
likelihood estimation of mixture proportions using sequential quadratic programming", arXiv 1806.01412): the simplex constraint
is exchanged for a term sum(w), since at the optimum of -mean log(P w) + sum(w) over w >= 0 the weights sum to 1.

Certificate: with mix = sum_j w_j p_j and g_j = mean(p_j / mix), no weights are better than w by more than log(max_j g_j), since
mean log(mix' / mix) <= log mean(mix' / mix) = log sum_j w'_j g_j (Cover 1984, "An algorithm for maximizing expected log
investment return"). Only the probability of the true label enters.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SMALLEST = 1e-15  # as in zoo.scores.metrics: a row to which every member gives zero costs 34.5 nats, not infinity
_MAX_ITERATIONS = 200


@dataclass(frozen=True)
class LinearFit:
    """The linear pool's `weights` (members,), mean `loss`, and `gap`.

    `gap`: how much lower any other weights can be at most (objective). `gradient` is g above, `hessian` that of the last
    quadratic model (members, members), zero where a member had no part in it; None where the start was good enough. Both serve
    to start other fits.
    """

    weights: np.ndarray
    loss: float
    gap: float
    iterations: int
    gradient: np.ndarray
    hessian: np.ndarray | None


def fit_linear(
    p_true: np.ndarray, *, prior: float = 0.0, start: np.ndarray | None = None, tolerance: float = 1e-8
) -> LinearFit:
    """Weights of the best linear pool.

    p_true of shape (members, rows), each member's probability of the true label. `prior` shrinks toward equal weights: it adds
    `prior` times the rows' weight in rows that only one member explains, the same for each (a Dirichlet prior), and keeps the
    problem and its certificate what they are. Its value is part of the gap's objective but not of `loss`.
    """
    if len(p_true) == 0 or p_true.shape[1] == 0:
        raise ValueError(f"fit_linear needs at least one member and one row, got {p_true.shape[0]} and {p_true.shape[1]}")
    return fit_rows(list(np.maximum(p_true, SMALLEST)), prior=prior, start=start, tolerance=tolerance)


def fit_rows(
    p: Sequence[np.ndarray], *, prior: float = 0.0, start: np.ndarray | None = None, tolerance: float = 1e-8
) -> LinearFit:
    """As `fit_linear`, from one array (rows,) a member, each at least SMALLEST.

    Subsets need no copy.
    """
    n_members, n_rows = len(p), len(p[0])
    weights = np.full(n_members, 1.0 / n_members) if start is None else _inside(np.asarray(start, dtype=np.float64), prior)
    pseudo, hessian = prior / n_members, None
    mix = _mix(p, weights)
    value = _objective(mix, weights, pseudo)
    for iterations in itertools.count(1):
        inverse = 1.0 / mix
        gradient = np.array([row @ inverse for row in p]) / n_rows
        if pseudo:
            gradient += pseudo / weights
        gradient /= 1 + prior
        gap = float(np.log(max(gradient.max(), 1.0)))
        if gap <= tolerance or iterations > _MAX_ITERATIONS:
            break
        active = np.flatnonzero((weights > 0) | (gradient > 1 - 1e-6))
        hessian = np.zeros((n_members, n_members))
        hessian[np.ix_(active, active)] = _curvature([p[j] for j in active], inverse, weights[active], pseudo, prior)
        target = newton_target(hessian, gradient, weights, active)
        moved, moved_mix, moved_value = _line_search(p, weights, target - weights, mix, value, pseudo)
        if moved_value >= value:  # no progress beyond rounding: one step of EM never makes it worse
            moved = weights * gradient
            moved /= moved.sum()
            moved_mix = _mix(p, moved)
            moved_value = _objective(moved_mix, moved, pseudo)
            if moved_value >= value - 1e-16:
                break
        weights, mix, value = moved, moved_mix, moved_value
    loss = value if not pseudo else -float(np.log(mix).mean())
    return LinearFit(weights, loss, gap, iterations, gradient, hessian)


def newton_target(hessian: np.ndarray, gradient: np.ndarray, weights: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Minimum over v >= 0 of the quadratic model of the objective around `weights`.

    The objective is -mean log(P v) + sum(v); v is zero outside `active`.
    """
    target = np.zeros_like(weights)
    if not len(active):
        return target
    local = hessian[np.ix_(active, active)].copy()
    linear = gradient[active] + hessian[active] @ weights - 1.0
    ridge = max(1e-11 * float(np.trace(local)), 1e-300)
    local[np.diag_indices_from(local)] += ridge
    target[active] = nonnegative_quadratic(local, linear + ridge * weights[active], start=weights[active])
    return target


def _inside(start: np.ndarray, prior: float) -> np.ndarray:
    start = np.clip(start, 0.0, None)
    if prior:  # the pseudo-rows need every weight positive
        start = start + 1e-6
    inside: np.ndarray = start / start.sum()
    return inside


def _mix(p: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """sum_j weights_j p_j (rows,), members without weight skipped."""
    mix, part = np.zeros(len(p[0])), np.empty(len(p[0]))
    for j in np.flatnonzero(weights):
        mix += np.multiply(p[j], weights[j], out=part)
    return mix


def _objective(mix: np.ndarray, weights: np.ndarray, pseudo: float) -> float:
    """The fitted objective without its scale 1 / (1 + prior); infinite outside its domain."""
    if mix.min() <= 0 or (pseudo and weights.min() <= 0):
        return np.inf
    value = -float(np.log(mix).mean())
    return value - pseudo * float(np.log(weights).sum()) if pseudo else value


def _curvature(p: Sequence[np.ndarray], inverse: np.ndarray, weights: np.ndarray, pseudo: float, prior: float) -> np.ndarray:
    """Hessian of the objective in the given members."""
    scaled = np.empty((len(p), len(inverse)))
    for place, row in enumerate(p):
        np.multiply(row, inverse, out=scaled[place])
    hessian = (scaled @ scaled.T) / len(inverse)
    if pseudo:
        hessian[np.diag_indices_from(hessian)] += pseudo / weights**2
    curvature: np.ndarray = hessian / (1 + prior)
    return curvature


def _line_search(
    p: Sequence[np.ndarray], weights: np.ndarray, direction: np.ndarray, mix: np.ndarray, value: float, pseudo: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Halve the Newton step until the objective falls.

    Each candidate is scaled back to the simplex, which never hurts. Returns weights, mix and objective; those that came in
    where nothing falls.
    """
    step = 1.0
    while step > 1e-10:
        moved = np.maximum(weights + step * direction, 0.0)
        total = moved.sum()
        if total > 0:
            moved /= total
            moved_mix = _mix(p, moved)
            candidate = _objective(moved_mix, moved, pseudo)
            if candidate < value:
                return moved, moved_mix, candidate
        step /= 2
    return weights, mix, value


def nonnegative_quadratic(
    hessian: np.ndarray, linear: np.ndarray, *, start: np.ndarray, bounded: np.ndarray | None = None
) -> np.ndarray:
    """Minimise x'Hx / 2 - linear'x with x >= 0, by an active set.

    The bound holds where `bounded` (default: everywhere). H must be positive definite. After Lawson and Hanson (1974), chapter
    23, on the normal equations.
    """
    bounded = np.ones(len(linear), dtype=bool) if bounded is None else bounded
    x = np.where(bounded, np.maximum(start, 0.0), start)
    passive = (x > 0) | ~bounded
    for _ in range(10 * len(linear) + 10):
        x = _solve_passive(hessian, linear, x, passive, bounded)
        slope = linear - hessian @ x
        slope[passive] = -np.inf
        entering = int(np.argmax(slope))
        if passive.all() or slope[entering] <= 1e-12 * max(1.0, np.abs(linear).max()):
            break
        passive[entering] = True
    return x


def _solve_passive(
    hessian: np.ndarray, linear: np.ndarray, x: np.ndarray, passive: np.ndarray, bounded: np.ndarray
) -> np.ndarray:
    """Minimise over the passive coordinates.

    Those that would turn negative leave the set on the way (`passive` changes).
    """
    while passive.any():
        index = np.flatnonzero(passive)
        solution = np.linalg.solve(hessian[np.ix_(index, index)], linear[index])
        negative = (solution <= 0) & bounded[index]
        if not negative.any():
            x = np.zeros_like(x)
            x[index] = solution
            return x
        old = x[index]
        steps = old[negative] / np.maximum(old[negative] - solution[negative], 1e-300)
        step = float(steps.min())
        moved = old + step * (solution - old)
        leaving = bounded[index] & (moved <= 1e-15) & negative
        if not leaving.any():
            leaving = negative & (np.arange(len(index)) == np.flatnonzero(negative)[np.argmin(steps)])
        moved[leaving] = 0.0
        x = np.zeros_like(x)
        x[index] = np.where(bounded[index], np.maximum(moved, 0.0), moved)
        passive[index[leaving]] = False
    return np.zeros_like(x)
