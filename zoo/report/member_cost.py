"""What a member costs where it was scored, or on the machine that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from zoo.contracts import Cost, Entry, ScoreCard, Variant
from zoo.cost.elsewhere import Forecaster
from zoo.cost.lengths import estimated
from zoo.cost.published import load_published
from zoo.entries.load import load_entry, load_variant
from zoo.errors import ZooError
from zoo.pipeline.members import Table
from zoo.pipeline.truth import Truth
from zoo.scores.tables import OK
from zoo.targets import Target


@dataclass(frozen=True)
class Priced:
    """What a member costs and where, for rows of `lengths` (tokens).

    `note` says why nobody can tell.
    """

    cost: Cost | None
    target: str
    basis: str = ""
    note: str = ""
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0))


Price = Callable[[Table, Truth | None], Priced]


def price_on(table: Table, truth: Truth | None, *, target: Target | None, forecaster: Forecaster | None) -> Priced:
    """The cost of a member where it was scored, or on the target that was asked for.

    A forecast for a table without tokens is of the characters of its battles where these are at hand, as a build has it.
    """
    ok = table.frame["status"] == OK
    found = _price_on(table, truth, target, forecaster)
    return found if len(found.lengths) else replace(found, lengths=table.frame.loc[ok, "n_tokens"].to_numpy(np.float64))


def _price_on(table: Table, truth: Truth | None, target: Target | None, forecaster: Forecaster | None) -> Priced:
    card = table.card
    basis = "declared" if card.request is None else "measured"
    if target is None or forecaster is None:
        if card.emulates:  # the speed of a machine that only emulates is no target's
            return Priced(None, card.target, note=f"its speed was not measured: scored as {card.emulates}")
        return Priced(card.cost, card.target, basis) if card.cost.priced else Priced(None, card.target, note="nobody priced it")
    if is_measured_on(card, target):
        return Priced(card.cost, target.name, basis)
    try:
        entry, variant = _alike(card)
        lengths = _lengths(table, truth, entry, variant)
        cost = forecaster.cost(entry, variant, lengths)
    except ZooError as error:
        return Priced(None, target.name, note=str(error))
    if cost is None or cost.forecast is None:
        return Priced(None, target.name, note=f"nothing tells its speed on {target.name}")
    return Priced(cost, target.name, cost.forecast.basis, lengths=lengths)


def _lengths(table: Table, truth: Truth | None, entry: Entry, variant: Variant) -> np.ndarray:
    """Tokens of the scored rows, the table's own or by its battles' characters; 0 if unknown."""
    ok = table.frame[table.frame["status"] == OK]
    own: np.ndarray = ok["n_tokens"].to_numpy(dtype=np.float64)
    if own.any() or truth is None or truth.characters is None:
        return own
    characters = truth.characters.reindex(ok["id"]).dropna().to_numpy(dtype=np.float64)
    return estimated(load_published().lengths, characters, entry.prompt, variant) if len(characters) else own


def _alike(card: ScoreCard) -> tuple[Entry, Variant]:
    """The entry and variant that price a member elsewhere; ZooError where there are none."""
    if card.cost.like:
        return load_variant(card.cost.like)
    if card.request is None:
        declared = f"its cost was declared for {card.target}" if card.cost.priced else "nobody priced it"
        raise ZooError(f"{declared}; `zoo import` takes --like ENTRY")
    return load_entry(card.entry), card.variant


def is_measured_on(card: ScoreCard, target: Target) -> bool:
    return card.target == target.name and not card.emulates and card.cost.priced
