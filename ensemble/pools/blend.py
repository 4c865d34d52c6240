"""The pools: blends of members' probabilities.

They are fitted by rules that need no seed and applied by numbers alone. By default every pool treats A and B alike: exchanging
the answers in all tables exchanges the result. A temperature for each member is part of the log pools already (it scales the
weights), so only the linear pool fits them, and one more on the blend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ensemble.plan import Blend, Triple
from ensemble.pools.coordinates import EVEN, EVEN_SIDES, coordinates
from ensemble.pools.greedy import greedy_weights
from ensemble.pools.linear import fit_linear
from ensemble.pools.log_pools import fit_log_pool, quadratic_forms
from ensemble.pools.spec import AS_IS, GREEDY, RIDGED_LOG, RIDGED_LOGISTIC, SPECS, BlendSpec
from ensemble.pools.trees import correct

__all__ = [
    "AS_IS",
    "GREEDY",
    "RIDGED_LOG",
    "RIDGED_LOGISTIC",
    "SPECS",
    "BlendSpec",
    "apply_blend",
    "fit_blend",
    "fit_temperature",
    "least_shares",
]

_TEMPERATURES = (0.05, 20.0)
AS_IS_FLOOR = 1e-5


def apply_blend(blend: Blend, probabilities: Mapping[str, np.ndarray], lengths: np.ndarray | None = None) -> np.ndarray:
    """The blend's triples (rows, 3) from those of its members, each (rows, 3) by name.

    `lengths` (rows, 3): of prompt, A and B in characters, NaN where not known. Only trees read them, and without them leave
    the blend that they correct as it is.
    """
    blended = _blended(blend, probabilities, lengths)
    if any(blend.least):
        blended = (1 - sum(blend.least)) * blended + np.asarray(blend.least)
    return blended


def _blended(blend: Blend, probabilities: Mapping[str, np.ndarray], lengths: np.ndarray | None = None) -> np.ndarray:
    tables = [np.asarray(probabilities[name], dtype=np.float64) for name in blend.members]
    if not tables:
        raise ValueError("a blend without members says nothing about a row; use the plan's prior")
    if blend.pool in ("trees", "geometric"):
        return _combined(blend, probabilities, tables, lengths)
    even = EVEN if blend.ties else EVEN_SIDES
    prepared = [_prepare(p, blend.floor, even, t) for p, t in zip(tables, blend.temperatures, strict=True)]
    if blend.pool == "linear":
        mixed = sum((w * p for w, p in zip(blend.weights, prepared, strict=True) if w), np.zeros_like(tables[0]))
        mixed = (1 - blend.uniform) * mixed + blend.uniform / even
        return _temper(mixed, blend.temperature)
    logits = np.tile(np.asarray(blend.biases), (len(tables[0]), 1))
    for place, p in enumerate(prepared):
        logs = np.log(np.maximum(p, 1e-15))
        logits += blend.weights[place] * logs if blend.pool == "log" else logs @ np.asarray(blend.coefficients[place]).T
    if blend.products is not None:
        some = np.stack([tables[blend.members.index(name)] for name in blend.products.members])
        lead, pull = quadratic_forms(blend.products, coordinates(some, blend.floor, ties=blend.ties))
        logits += np.column_stack([lead / 2, -lead / 2, pull])
    return _softmax(logits / blend.temperature, ties=blend.ties)


def _combined(
    blend: Blend, probabilities: Mapping[str, np.ndarray], tables: Sequence[np.ndarray], lengths: np.ndarray | None
) -> np.ndarray:
    """The blends that are made of other blends of the same members."""
    parts = [_blended(part, probabilities, lengths) for part in blend.parts]
    if blend.trees is not None:
        return correct(blend.trees, np.stack(tables), parts[0], lengths, ties=blend.ties)
    logs = [w * np.log(np.maximum(p, 1e-15)) for w, p in zip(blend.part_weights, parts, strict=True)]
    return _softmax(np.sum(logs, axis=0), ties=blend.ties)


def _softmax(logits: np.ndarray, *, ties: bool) -> np.ndarray:
    if not ties:
        logits[:, 2] = -np.inf
    top = np.maximum(np.maximum(logits[:, 0], logits[:, 1]), logits[:, 2])  # by columns: numpy is slow along an axis of three
    p = np.exp(logits - top[:, None])
    triples: np.ndarray = p / (p[:, 0] + p[:, 1] + p[:, 2])[:, None]
    return triples


def _prepare(p: np.ndarray, floor: float, even: np.ndarray, temperature: float) -> np.ndarray:
    return _temper((1 - floor) * p + floor / even if floor else p, temperature)


def _temper(p: np.ndarray, temperature: float) -> np.ndarray:
    """p to the power 1 / temperature, each row scaled to sum 1; zeros stay zeros."""
    if temperature == 1.0:
        return p
    scaled = (p / np.maximum(np.maximum(p[:, 0], p[:, 1]), p[:, 2])[:, None]) ** (1 / temperature)
    tempered: np.ndarray = scaled / (scaled[:, 0] + scaled[:, 1] + scaled[:, 2])[:, None]
    return tempered


def fit_blend(
    spec: BlendSpec,
    names: Sequence[str],
    p: np.ndarray,
    y: np.ndarray,
    lengths: np.ndarray | None = None,
    *,
    start: Blend | None = None,
) -> Blend:
    """Fit a pool to labelled rows.

    p (members, rows, 3) in the order of `names`, y (rows,) labels 0, 1, 2. `lengths` (rows, 3) of the texts, as `apply_blend`
    takes them: trees read them where given. `start`: a blend of the same members to start from, which changes the time and not
    the result. What is fitted to rows without one of the labels, or taken as it is beside such
    rows, keeps a share for it (`least_shares`).
    """
    if len(p) != len(names) or p.shape[1] != len(y) or not len(y):
        raise ValueError(f"fit_blend: {len(names)} names, probabilities of shape {p.shape} and {len(y)} labels do not fit")
    blend = _fit(spec, names, p, y, lengths, start)
    least = least_shares(y, ties=spec.ties)
    return blend.model_copy(update={"least": least}) if any(least) else blend


def least_shares(y: np.ndarray, *, ties: bool = True) -> Triple:
    """Shares of A, B and tie that every row keeps for labels that no row of `y` has.

    Laplace's: 1 / (rows + 3). Without them a fit takes what it never saw for impossible, and the first such battle costs 20
    nats. A and B are alike: what one needs the other gets too. A tie that cannot be gets nothing.
    """
    missing = np.bincount(y, minlength=3) == 0
    share = 1 / (len(y) + (3 if ties else 2))
    side = share if missing[0] or missing[1] else 0.0
    return side, side, share if missing[2] and ties else 0.0


def _fit(
    spec: BlendSpec,
    names: Sequence[str],
    p: np.ndarray,
    y: np.ndarray,
    lengths: np.ndarray | None,
    start: Blend | None,
) -> Blend:
    if not spec.fitted:
        return _weighted(names, np.full(len(names), 1 / len(names)), ties=spec.ties)
    if spec.rounds:
        return _weighted(names, greedy_weights(p, y, spec.rounds), ties=spec.ties)
    if spec.pool == "linear":
        return _fit_linear_blend(spec, names, p, y, start)
    if spec.pool in ("trees", "geometric"):
        return _fit_combined(spec, names, p, y, lengths)
    alike = start is not None and (start.pool, start.members) == (spec.pool, tuple(names))
    return fit_log_pool(spec, names, p, y, start=start if alike else None)


def _fit_combined(spec: BlendSpec, names: Sequence[str], p: np.ndarray, y: np.ndarray, lengths: np.ndarray | None) -> Blend:
    """Trees that correct a pool, or the geometric mean of pools; the parts are fitted to the same rows."""
    parts = tuple(_fit(part, names, p, y, lengths, None) for part in spec.parts)
    weights, ones = parts[0].weights, (1.0,) * len(names)
    if spec.pool == "geometric":
        return Blend(
            pool="geometric",
            members=tuple(names),
            weights=weights,
            temperatures=ones,
            ties=spec.ties,
            parts=parts,
            part_weights=spec.part_weights,
        )
    from ensemble.pools.boosting import fit_trees  # LightGBM, which only a build needs

    base = _blended(parts[0], dict(zip(names, p, strict=True)), lengths)
    trees = fit_trees(p, base, y, spec.tree_rounds, lengths, ties=spec.ties, position_bias=spec.position_bias)
    return Blend(
        pool="trees", members=tuple(names), weights=weights, temperatures=ones, ties=spec.ties, parts=parts, trees=trees
    )


def _weighted(names: Sequence[str], weights: np.ndarray, *, ties: bool) -> Blend:
    """The weighted mean of the tables, with a small floor.

    The floor costs AS_IS_FLOOR nats at most and keeps a zero from costing 34.
    """
    shares, ones = tuple(weights.tolist()), (1.0,) * len(names)
    return Blend(pool="linear", members=tuple(names), weights=shares, temperatures=ones, floor=AS_IS_FLOOR, ties=ties)


def _fit_linear_blend(spec: BlendSpec, names: Sequence[str], p: np.ndarray, y: np.ndarray, start: Blend | None) -> Blend:
    rows = np.arange(len(y))
    temperatures = [fit_temperature(table[:, : spec.labels], y) if spec.tempered else 1.0 for table in p]
    tempered = [_temper(table, t) for table, t in zip(p, temperatures, strict=True)]
    true = np.stack([*(table[rows, y] for table in tempered), np.full(len(y), 1 / spec.labels)])
    begin = None
    if start is not None and start.pool == "linear" and start.members == tuple(names):
        begin = np.append((1 - start.uniform) * np.asarray(start.weights), start.uniform) + 1e-3 / len(true)
    fit = fit_linear(true, prior=spec.shrinkage, start=begin, tolerance=1e-7)
    shares, uniform = fit.weights[:-1], float(fit.weights[-1])
    weights = shares / shares.sum() if shares.sum() > 0 else np.full(len(names), 1 / len(names))
    uniform = uniform if shares.sum() > 0 else 1.0
    blend = Blend(
        pool="linear",
        members=tuple(names),
        weights=tuple(weights.tolist()),
        temperatures=tuple(temperatures),
        uniform=min(uniform, 1.0),
        ties=spec.ties,
    )
    if not spec.tempered:
        return blend
    mixed = apply_blend(blend, dict(zip(names, p, strict=True)))
    return blend.model_copy(update={"temperature": fit_temperature(mixed[:, : spec.labels], y)})


def fit_temperature(p: np.ndarray, y: np.ndarray) -> float:
    """The temperature that minimises the log loss of softmax(log p / T); p (rows, labels).

    The problem is convex in 1 / T: Newton's steps, halved where they overshoot, from T = 1.
    """
    logs = np.log(np.maximum(p.T, 1e-15))
    best = logs.max(axis=0)
    centred, true = logs - best, float((logs[y, np.arange(len(y))] - best).mean())

    def value(inverse: float) -> tuple[float, float, float]:
        """Loss, slope and curvature."""
        shares = np.exp(inverse * centred)  # (labels, rows)
        total = shares.sum(axis=0)
        shares /= total
        weighted = shares * centred
        mean, second = weighted.sum(axis=0), (weighted * centred).sum(axis=0)
        return float(np.log(total).mean()) - inverse * true, float(mean.mean()) - true, float((second - mean**2).mean())

    low, high = 1 / _TEMPERATURES[1], 1 / _TEMPERATURES[0]
    inverse, (loss, slope, curvature) = 1.0, value(1.0)
    for _ in range(60):
        step = -slope / max(curvature, 1e-12)
        moved = min(max(inverse + step, low), high)
        tried = value(moved)
        while tried[0] > loss and abs(moved - inverse) > 1e-7:
            moved = (moved + inverse) / 2
            tried = value(moved)
        if tried[0] >= loss or abs(moved - inverse) <= 1e-7:
            break
        inverse, (loss, slope, curvature) = moved, tried
    return 1 / inverse
