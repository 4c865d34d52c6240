"""The linear pool's weights, exactly: minimise -mean log(sum_j w_j p_j[true label]) over the simplex, with a certificate.

The problem is that of mixture proportions, and of the log-optimal portfolio. Solved by sequential quadratic programming (Kim,
Carbonetto, Stephens, Anitescu 2020, "A fast algorithm for maximum likelihood estimation of mixture proportions using
sequential quadratic programming", arXiv 1806.01412): the simplex constraint is exchanged for a term sum(w), since at the
optimum of -mean log(P w) + sum(w) over w >= 0 the weights sum to 1.

Certificate: with mix = sum_j w_j p_j and g_j = mean(p_j / mix), no weights are better than w by more than log(max_j g_j), since
mean log(mix' / mix) <= log mean(mix' / mix) = log sum_j w'_j g_j (Cover 1984, "An algorithm for maximizing expected log
investment return"). Only the probability of the true label enters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SMALLEST = 1e-15  # as in zoo.metrics: a row to which every member gives zero costs 34.5 nats, not infinity
_MAX_ITERATIONS = 200


@dataclass(frozen=True)
class LinearFit:
    """`weights` (members,), their mean `loss`, and `gap`: how much lower any other weights can be at most (objective)."""

    weights: np.ndarray
    loss: float
    gap: float
    iterations: int


def fit_linear(
    p_true: np.ndarray, *, prior: float = 0.0, start: np.ndarray | None = None, tolerance: float = 1e-8
) -> LinearFit:
    """Weights of the best linear pool; p_true of shape (members, rows), each member's probability of the true label.

    `prior` shrinks toward equal weights: it adds `prior` times the rows' weight in rows that only one member explains, the same
    for each (a Dirichlet prior), and keeps the problem and its certificate what they are. Its value is part of the gap's
    objective but not of `loss`.
    """
    n_members, n_rows = p_true.shape
    if n_members == 0 or n_rows == 0:
        raise ValueError(f"fit_linear needs at least one member and one row, got {n_members} and {n_rows}")
    p = np.maximum(p_true, SMALLEST)
    weights = np.full(n_members, 1.0 / n_members) if start is None else _inside(np.asarray(start, dtype=np.float64), prior)
    pseudo = prior / n_members
    value = _objective(weights @ p, weights, pseudo)
    gap, iterations = np.inf, 0
    for _ in range(_MAX_ITERATIONS):
        iterations += 1
        mix = weights @ p
        inverse = 1.0 / mix
        gradient = (p @ inverse) / n_rows
        if pseudo:
            gradient += pseudo / weights
        gradient /= 1 + prior
        gap = float(np.log(max(gradient.max(), 1.0)))
        if gap <= tolerance:
            break
        active = np.flatnonzero((weights > 0) | (gradient > 1 - 1e-6))
        direction = _newton_direction(p[active], inverse, weights[active], gradient[active], pseudo, prior)
        step_weights, step_value = _line_search(p, weights, active, direction, value, pseudo)
        if step_value >= value:  # no progress beyond rounding: one step of EM never makes it worse
            step_weights = weights * gradient
            step_weights /= step_weights.sum()
            step_value = _objective(step_weights @ p, step_weights, pseudo)
            if step_value >= value - 1e-16:
                break
        weights, value = step_weights, step_value
    loss = -float(np.log(weights @ p).mean())
    return LinearFit(weights, loss, gap, iterations)


def _inside(start: np.ndarray, prior: float) -> np.ndarray:
    start = np.clip(start, 0.0, None)
    if prior:  # the pseudo-rows need every weight positive
        start = start + 1e-6
    return start / start.sum()


def _objective(mix: np.ndarray, weights: np.ndarray, pseudo: float) -> float:
    """The fitted objective without its constant scale 1 / (1 + prior); infinite outside its domain."""
    if mix.min() <= 0 or (pseudo and weights.min() <= 0):
        return np.inf
    value = -float(np.log(mix).mean())
    return value - pseudo * float(np.log(weights).sum()) if pseudo else value


def _newton_direction(
    p: np.ndarray, inverse: np.ndarray, weights: np.ndarray, gradient: np.ndarray, pseudo: float, prior: float
) -> np.ndarray:
    """From `weights` to the minimum over v >= 0 of the local quadratic model, all in the active members only."""
    scaled = p * inverse
    hessian = (scaled @ scaled.T) / len(inverse)
    if pseudo:
        hessian[np.diag_indices_from(hessian)] += pseudo / weights**2
    hessian /= 1 + prior
    linear = gradient + hessian @ weights - 1.0
    ridge = 1e-11 * np.trace(hessian)
    hessian[np.diag_indices_from(hessian)] += ridge
    target = nonnegative_quadratic(hessian, linear + ridge * weights, start=weights)
    return target - weights


def _line_search(
    p: np.ndarray, weights: np.ndarray, active: np.ndarray, direction: np.ndarray, value: float, pseudo: float
) -> tuple[np.ndarray, float]:
    """Halve the Newton step until the objective falls; each candidate is scaled back to the simplex, which never hurts."""
    step = 1.0
    while step > 1e-10:
        moved = weights.copy()
        moved[active] = np.maximum(moved[active] + step * direction, 0.0)
        total = moved.sum()
        if total > 0:
            moved /= total
            candidate = _objective(moved @ p, moved, pseudo)
            if candidate < value:
                return moved, candidate
        step /= 2
    return weights, value


def nonnegative_quadratic(
    hessian: np.ndarray, linear: np.ndarray, *, start: np.ndarray, bounded: np.ndarray | None = None
) -> np.ndarray:
    """Minimise x'Hx / 2 - linear'x with x >= 0 where `bounded` (default: everywhere), by an active set.

    H must be positive definite. After Lawson and Hanson (1974), chapter 23, on the normal equations.
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
    """Minimise over the passive coordinates; those that would turn negative leave the set on the way (`passive` changes)."""
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
