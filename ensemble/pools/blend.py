"""The pools: linear, log and logistic blends of members' probabilities.

They are fitted exactly and applied by numbers alone. By default every pool treats A and B alike: exchanging the answers in all
tables exchanges the result. A temperature for each member is part of the log and the logistic pool already (it scales the
weights), so only the linear pool fits them, and one more on the blend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.plan import Blend, PoolKind, Triple
from ensemble.pools.greedy import GREEDY_ROUNDS, greedy_weights
from ensemble.pools.linear import fit_linear
from ensemble.pools.softmax import Design, fit_softmax

_TEMPERATURES = (0.05, 20.0)
AS_IS_FLOOR = 1e-5
EVEN, EVEN_SIDES = np.array([3.0, 3.0, 3.0]), np.array([2.0, 2.0, np.inf])  # what the uniform triple's 1 is divided by


@dataclass(frozen=True)
class BlendSpec:
    """What cross-validation chooses: the pool, its shrinkage, and what is done to a table first.

    `shrinkage`: linear, the Dirichlet prior toward equal weights; log and logistic, the ridge toward the log pool with equal
    weights. `tempered`: the linear pool's temperatures, one a member and one on the blend. `floor`: share of the uniform
    triple mixed into each member's; the linear pool has the uniform triple as a member of its own instead. `position_bias`:
    let the log pools favour a side, for battles whose order is not random. `rounds`: the linear pool's weights are those of so
    many rounds of greedy selection, 0: the best ones. `ties`: whether a battle can be a tie; where not, the tables' p_tie must
    be 0, and the blend's is. Not `fitted`: equal weights and nothing else, of one member its table as
    it is but for a small floor; on few rows every fit may cost more than it gains.
    """

    pool: PoolKind = "linear"
    shrinkage: float = 0.0
    tempered: bool = False
    floor: float = 0.0
    position_bias: bool = False
    fitted: bool = True
    rounds: int = 0
    ties: bool = True

    @property
    def labels(self) -> int:
        """How many outcomes there are: A, B and, where there are ties, a tie."""
        return 3 if self.ties else 2


AS_IS = BlendSpec(fitted=False)
GREEDY = BlendSpec("linear", rounds=GREEDY_ROUNDS)
RIDGED_LOG = BlendSpec("log", 0.01, floor=1e-2)  # of one member: its temperature and the bias of a tie
RIDGED_LOGISTIC = BlendSpec("logistic", 0.01, floor=1e-2)
SPECS: tuple[BlendSpec, ...] = (
    AS_IS,
    *(BlendSpec("linear", shrinkage, tempered) for shrinkage in (0.0, 0.01) for tempered in (False, True)),
    *(BlendSpec("log", shrinkage, floor=floor) for shrinkage in (0.0, 0.01) for floor in (1e-4, 1e-2)),
    *(BlendSpec("logistic", shrinkage, floor=floor) for shrinkage in (1e-4, 1e-2) for floor in (1e-4, 1e-2)),
)


def apply_blend(blend: Blend, probabilities: Mapping[str, np.ndarray]) -> np.ndarray:
    """The blend's triples (rows, 3) from those of its members, each (rows, 3) by name."""
    blended = _blended(blend, probabilities)
    if any(blend.least):
        blended = (1 - sum(blend.least)) * blended + np.asarray(blend.least)
    return blended


def _blended(blend: Blend, probabilities: Mapping[str, np.ndarray]) -> np.ndarray:
    tables = [np.asarray(probabilities[name], dtype=np.float64) for name in blend.members]
    if not tables:
        raise ValueError("a blend without members says nothing about a row; use the plan's prior")
    even = EVEN if blend.ties else EVEN_SIDES
    prepared = [_prepare(p, blend.floor, even, t) for p, t in zip(tables, blend.temperatures, strict=True)]
    if blend.pool == "linear":
        mixed = sum((w * p for w, p in zip(blend.weights, prepared, strict=True) if w), np.zeros_like(tables[0]))
        mixed = (1 - blend.uniform) * mixed + blend.uniform / even
        return _temper(mixed, blend.temperature)
    logits = np.tile(np.asarray(blend.biases), (len(tables[0]), 1))
    for place, p in enumerate(prepared):
        logs = np.log(np.maximum(p, 1e-15))
        logits += logs @ np.asarray(blend.coefficients[place]).T if blend.pool == "logistic" else blend.weights[place] * logs
    if not blend.ties:
        logits[:, 2] = -np.inf
    logits = (logits - logits.max(axis=1, keepdims=True)) / blend.temperature
    p = np.exp(logits)
    triples: np.ndarray = p / p.sum(axis=1, keepdims=True)
    return triples


def _prepare(p: np.ndarray, floor: float, even: np.ndarray, temperature: float) -> np.ndarray:
    return _temper((1 - floor) * p + floor / even if floor else p, temperature)


def _temper(p: np.ndarray, temperature: float) -> np.ndarray:
    """p to the power 1 / temperature, each row scaled to sum 1; zeros stay zeros."""
    if temperature == 1.0:
        return p
    scaled = (p / p.max(axis=1, keepdims=True)) ** (1 / temperature)
    tempered: np.ndarray = scaled / scaled.sum(axis=1, keepdims=True)
    return tempered


def fit_blend(spec: BlendSpec, names: Sequence[str], p: np.ndarray, y: np.ndarray, *, start: Blend | None = None) -> Blend:
    """Fit a pool to labelled rows.

    p (members, rows, 3) in the order of `names`, y (rows,) labels 0, 1, 2. `start`: a blend of the same members to start from,
    which changes the time and not the result. What is fitted to rows without one of the labels, or taken as it is beside such
    rows, keeps a share for it (`least_shares`).
    """
    if len(p) != len(names) or p.shape[1] != len(y) or not len(y):
        raise ValueError(f"fit_blend: {len(names)} names, probabilities of shape {p.shape} and {len(y)} labels do not fit")
    blend = _fit(spec, names, p, y, start)
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


def _fit(spec: BlendSpec, names: Sequence[str], p: np.ndarray, y: np.ndarray, start: Blend | None) -> Blend:
    if not spec.fitted:
        return _weighted(names, np.full(len(names), 1 / len(names)), ties=spec.ties)
    if spec.rounds:
        return _weighted(names, greedy_weights(p, y, spec.rounds), ties=spec.ties)
    if spec.pool == "linear":
        return _fit_linear_blend(spec, names, p, y, start)
    return _fit_log_blend(spec, names, p, y)


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

    The problem is convex in 1 / T.
    """
    from scipy.optimize import minimize_scalar

    logs = np.log(np.maximum(p, 1e-15))
    true = logs[np.arange(len(y)), y]
    best = logs.max(axis=1)
    centred, true = logs - best[:, None], true - best

    def loss(inverse: float) -> float:
        return float((np.log(np.exp(inverse * centred).sum(axis=1)) - inverse * true).mean())

    bounds = (1 / _TEMPERATURES[1], 1 / _TEMPERATURES[0])
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-5})
    return 1 / float(found.x) if found.fun < loss(1.0) else 1.0


def _fit_log_blend(spec: BlendSpec, names: Sequence[str], p: np.ndarray, y: np.ndarray) -> Blend:
    floor = max(spec.floor, 1e-9)
    logs = np.log((1 - floor) * p[:, :, : spec.labels] + floor / spec.labels)
    leads = (logs[:, :, 0] - logs[:, :, 1]).T
    sides = ((logs[:, :, 0] + logs[:, :, 1]) / 2).T
    ties = logs[:, :, 2].T if spec.ties else np.zeros_like(sides)
    m = len(names)
    if not spec.ties:  # what pulls to a tie means nothing; the pools differ in whether a weight may be below zero
        shared = spec.pool == "log"
        design = _design(leads, None, np.full(m, 1 / m), shared=shared, position_bias=spec.position_bias)
    elif spec.pool == "log":
        design = _design(leads, ties - sides, np.full(m, 1 / m), shared=True, position_bias=spec.position_bias)
    else:
        center = np.repeat([1 / m, -1 / m, 1 / m], m)
        design = _design(leads, np.hstack([sides, ties]), center, shared=False, position_bias=spec.position_bias)
    x = fit_softmax(design, y, ridge=spec.shrinkage).parameters
    lean = float(x[-1]) / 2 if spec.position_bias else 0.0
    biases: Triple = (lean, -lean, float(x[len(design.center) - 1 - spec.position_bias]))
    coefficients: tuple[tuple[Triple, Triple, Triple], ...] = ()
    weights = x[:m]
    if spec.pool == "logistic":
        side, tie = (x[m : 2 * m], x[2 * m : 3 * m]) if spec.ties else np.zeros((2, m))
        coefficients = tuple(_coefficients(x[j], side[j], tie[j]) for j in range(m))
        influence = np.abs(x[:m]) * leads.std(axis=0) + (side * sides + tie * ties).std(axis=0)
        weights = influence / influence.sum() if influence.sum() > 0 else np.full(m, 1 / m)
    return Blend(
        pool=spec.pool,
        members=tuple(names),
        weights=tuple(weights.tolist()),
        temperatures=(1.0,) * m,
        coefficients=coefficients,
        biases=biases,
        floor=floor,
        ties=spec.ties,
    )


def _design(leads: np.ndarray, ties: np.ndarray | None, center: np.ndarray, *, shared: bool, position_bias: bool) -> Design:
    """The design of the log pools' parameters.

    They are the leads', the ties' (the same ones, at least zero, if `shared`), the bias of a tie, that of A. Where there are no
    ties (None), nothing moves theirs.
    """
    k, ones = len(center), np.ones((len(leads), 1))
    lead_at = np.arange(leads.shape[1])
    if ties is None:
        tie, tie_at = np.empty((len(leads), 0)), np.empty(0, dtype=np.int64)
    else:
        tie = np.hstack([ties, ones])
        tie_at = np.append(np.arange(ties.shape[1]) + (0 if shared else leads.shape[1]), k)
    return Design(
        lead=np.hstack([leads, ones]) if position_bias else leads,
        lead_at=np.append(lead_at, k + 1) if position_bias else lead_at,
        tie=tie,
        tie_at=tie_at,
        center=np.append(center, np.zeros(1 + position_bias)),
        penalized=np.append(np.ones(k), np.zeros(1 + position_bias)),
        bounded=np.append(np.full(k, shared), np.zeros(1 + position_bias, dtype=bool)),
    )


def _coefficients(lead: float, side: float, tie: float) -> tuple[Triple, Triple, Triple]:
    """One member's matrix (output label, input label), unchanged when A and B are exchanged."""
    lead, side, tie = float(lead), float(side), float(tie)
    return (lead / 2, -lead / 2, 0.0), (-lead / 2, lead / 2, 0.0), (side / 2, side / 2, tie)
