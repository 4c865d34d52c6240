"""Fit the log, the logistic and the second-order pool, which are convex likelihoods.

`softmax` solves them. All three are linear in features of the tables' leads (odd under an exchange of A and B) and pulls to a
tie (even). The second-order pool adds their products: of a lead and a pull, which is odd, to the lead; of two leads or two
pulls, which are even, to the pull.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.plan import Blend, Products, Triple
from ensemble.pools.coordinates import Coordinates, coordinates
from ensemble.pools.softmax import Design, fit_softmax
from ensemble.pools.spec import BlendSpec

PRODUCT_MEMBERS = 6  # products grow with the square of members: those of so many, the most influential ones
# A normal prior of standard deviation 10 on the biases, which have no ridge: it takes a thousandth of that of 50 rows, and less
# of more rows.
# Without it labels that no row has push the bias to minus infinity, one unit a step of Newton's.
BIAS_PRECISION = 0.01
_SMALL = 1e-9


@dataclass(frozen=True)
class Terms:
    """Parameters of one kind.

    `lead` and `pull`: the columns (rows, parameters) that they multiply in the lead, in the pull, or in both. `center`: what
    ridge pulls them to; `strength`: how strongly, in times of the pool's shrinkage; `precision`: of a prior of their own.
    """

    lead: np.ndarray | None = None
    pull: np.ndarray | None = None
    center: float = 0.0
    strength: float = 1.0
    bounded: bool = False
    precision: float = 0.0

    @property
    def count(self) -> int:
        columns = self.lead if self.lead is not None else self.pull
        return 0 if columns is None else columns.shape[1]


def fit_log_pool(spec: BlendSpec, names: Sequence[str], p: np.ndarray, y: np.ndarray, *, start: Blend | None = None) -> Blend:
    """The log, logistic or second-order pool of tables p (members, rows, 3), labels y (rows,).

    `start`: a blend of the same members and pool to start from.
    """
    floor = max(spec.floor, 1e-9)
    at = coordinates(p, floor, ties=spec.ties)
    terms = _linear_terms(spec, at)
    products = None
    if spec.pool == "second_order":
        products = _standardised(names, at, _most_influential(spec, names, at, y))
        terms |= _product_terms(spec, products, at, [names.index(name) for name in products.members])
    near = _parameters(start, products) if start is not None else {}
    x = _solve(spec, terms, y, near)
    blend = _blend(spec, names, at, x, floor)
    if products is None:
        return blend
    return blend.model_copy(update={"pool": "second_order", "products": _with(products, x)})


def quadratic_forms(products: Products, at: Coordinates) -> tuple[np.ndarray, np.ndarray]:
    """What products add to the lead and to the pull of rows (rows,).

    `at`: coordinates of `products.members`, in their order.
    """
    u, e = _scaled(products, at)
    odd, leads, pulls = (np.asarray(matrix) for matrix in (products.odd, products.leads, products.pulls))
    return ((u @ odd) * e).sum(axis=1), ((u @ leads) * u).sum(axis=1) + ((e @ pulls) * e).sum(axis=1)


# --- the terms --------------------------------------------------------------------------------------------------------------


def _linear_terms(spec: BlendSpec, at: Coordinates) -> dict[str, Terms]:
    share, ones = spec.center / at.leads.shape[1], np.ones((len(at.leads), 1))
    terms: dict[str, Terms] = {}
    if spec.pool == "log":
        terms["weight"] = Terms(at.leads, at.pulls if spec.ties else None, share, bounded=True)
    else:
        terms["weight"] = Terms(at.leads, center=share)
        if spec.ties:
            terms |= {"side": Terms(pull=at.sides, center=-share), "tie": Terms(pull=at.ties, center=share)}
    if spec.ties:
        terms["bias"] = Terms(pull=ones, strength=0.0, precision=BIAS_PRECISION)
    if spec.position_bias:
        terms["lean"] = Terms(lead=ones, strength=0.0, precision=BIAS_PRECISION)
    return terms


def _product_terms(spec: BlendSpec, products: Products, at: Coordinates, places: list[int]) -> dict[str, Terms]:
    u, e = _scaled(products, _of_members(at, places))
    first, second = np.triu_indices(len(places))
    terms = {"odd": Terms(lead=(u[:, :, None] * e[:, None, :]).reshape(len(u), -1), strength=spec.products)}
    if spec.ties:
        terms["leads"] = Terms(pull=u[:, first] * u[:, second], strength=spec.products)
        terms["pulls"] = Terms(pull=e[:, first] * e[:, second], strength=spec.products)
    return terms


def _most_influential(spec: BlendSpec, names: Sequence[str], at: Coordinates, y: np.ndarray) -> list[int]:
    """The members whose products are taken: all, or those of most influence in the logistic pool."""
    if len(names) <= PRODUCT_MEMBERS:
        return list(range(len(names)))
    influence = np.asarray(_blend(spec, names, at, _solve(spec, _linear_terms(spec, at), y, {}), 0.0).weights)
    return sorted(np.argsort(-influence, kind="stable")[:PRODUCT_MEMBERS].tolist())


def _standardised(names: Sequence[str], at: Coordinates, places: list[int]) -> Products:
    """Products of the members at `places` that add nothing yet, with the constants that standardise their coordinates."""
    some = _of_members(at, places)
    spread = [columns.std(axis=0) for columns in (some.leads, some.pulls)]
    lead_scale, pull_scale = (np.where(scale > _SMALL, scale, 1.0) for scale in spread)
    nothing = ((0.0,) * len(places),) * len(places)
    return Products(
        members=tuple(names[j] for j in places),
        lead_scale=tuple(lead_scale.tolist()),
        pull_center=tuple(some.pulls.mean(axis=0).tolist()),
        pull_scale=tuple(pull_scale.tolist()),
        odd=nothing,
        leads=nothing,
        pulls=nothing,
    )


def _of_members(at: Coordinates, places: list[int]) -> Coordinates:
    return Coordinates(at.leads[:, places], at.sides[:, places], at.ties[:, places], at.has_ties)


def _scaled(products: Products, at: Coordinates) -> tuple[np.ndarray, np.ndarray]:
    """Leads and pulls (rows, members) of about unit variance; the pulls have mean zero on the fitting rows."""
    leads = at.leads / np.asarray(products.lead_scale)
    return leads, (at.pulls - np.asarray(products.pull_center)) / np.asarray(products.pull_scale)


# --- the fit ----------------------------------------------------------------------------------------------------------------


def _solve(spec: BlendSpec, terms: dict[str, Terms], y: np.ndarray, near: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The fitted parameters by name; `near`: some to start from."""
    counts = [item.count for item in terms.values()]
    ends = np.cumsum(counts)
    places = [np.arange(end - count, end) for end, count in zip(ends, counts, strict=True)]
    lead = [(item.lead, place) for item, place in zip(terms.values(), places, strict=True) if item.lead is not None]
    pull = [(item.pull, place) for item, place in zip(terms.values(), places, strict=True) if item.pull is not None]
    design = Design(
        lead=np.hstack([columns for columns, _ in lead]),
        lead_at=np.concatenate([place for _, place in lead]),
        tie=np.hstack([columns for columns, _ in pull]) if pull else np.empty((len(y), 0)),
        tie_at=np.concatenate([place for _, place in pull]) if pull else np.empty(0, dtype=np.int64),
        center=np.repeat([item.center for item in terms.values()], counts),
        penalized=np.repeat([item.strength for item in terms.values()], counts),
        bounded=np.repeat([item.bounded for item in terms.values()], counts),
        precision=np.repeat([item.precision for item in terms.values()], counts),
    )
    start = np.concatenate([near.get(name, np.full(item.count, item.center)) for name, item in terms.items()])
    x = fit_softmax(design, y, ridge=spec.shrinkage, start=start).parameters
    return {name: x[place] for name, place in zip(terms, places, strict=True)}


def _parameters(blend: Blend, products: Products | None) -> dict[str, np.ndarray]:
    """The parameters of a fitted blend by name; those of products where they are of the same members."""
    x = {"bias": np.array(blend.biases[2:]), "lean": np.array([2 * blend.biases[0]])}
    if blend.pool == "log":
        return x | {"weight": np.array(blend.weights)}
    matrices = np.array(blend.coefficients)
    x |= {"weight": 2 * matrices[:, 0, 0], "side": 2 * matrices[:, 2, 0], "tie": matrices[:, 2, 2]}
    if products is not None and blend.products is not None and blend.products.members == products.members:
        upper = np.triu_indices(len(products.members))
        x |= {"odd": np.array(blend.products.odd).ravel()}
        x |= {name: np.array(getattr(blend.products, name))[upper] for name in ("leads", "pulls")}
    return x


def _blend(spec: BlendSpec, names: Sequence[str], at: Coordinates, x: dict[str, np.ndarray], floor: float) -> Blend:
    """The linear part of the pool: a log or a logistic blend."""
    m = len(names)
    lean = float(x["lean"][0]) / 2 if spec.position_bias else 0.0
    biases: Triple = (lean, -lean, float(x["bias"][0]) if spec.ties else 0.0)
    coefficients: tuple[tuple[Triple, Triple, Triple], ...] = ()
    weights = x["weight"]
    if spec.pool != "log":
        side, tie = x.get("side", np.zeros(m)), x.get("tie", np.zeros(m))
        coefficients = tuple(_coefficients(weights[j], side[j], tie[j]) for j in range(m))
        influence = np.abs(weights) * at.leads.std(axis=0) + (side * at.sides + tie * at.ties).std(axis=0)
        weights = influence / influence.sum() if influence.sum() > 0 else np.full(m, 1 / m)
    return Blend(
        pool="log" if spec.pool == "log" else "logistic",
        members=tuple(names),
        weights=tuple(weights.tolist()),
        temperatures=(1.0,) * m,
        coefficients=coefficients,
        biases=biases,
        floor=floor,
        ties=spec.ties,
    )


def _coefficients(lead: float, side: float, tie: float) -> tuple[Triple, Triple, Triple]:
    """One member's matrix (output label, input label), unchanged when A and B are exchanged."""
    lead, side, tie = float(lead), float(side), float(tie)
    return (lead / 2, -lead / 2, 0.0), (-lead / 2, lead / 2, 0.0), (side / 2, side / 2, tie)


def _with(products: Products, x: dict[str, np.ndarray]) -> Products:
    """The products with their fitted matrices."""
    k = len(products.members)
    found = {"odd": x["odd"].reshape(k, k)}
    for name in ("leads", "pulls"):
        found[name] = np.zeros((k, k))
        if name in x:
            found[name][np.triu_indices(k)] = x[name]
    return products.model_copy(update={name: tuple(map(tuple, matrix.tolist())) for name, matrix in found.items()})
