"""Prices of members on a target: measured, forecast, as an entry's, or by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ensemble.members.table import Members
from zoo.contracts import Cost, Entry, ScoreCard, ScoreRequest, ServeSpec, Variant
from zoo.cost.elsewhere import Forecaster, foretold
from zoo.cost.lengths import estimated
from zoo.cost.published import load_published
from zoo.entries.load import load_entry, load_variant
from zoo.errors import ZooError
from zoo.pipeline.members import Table
from zoo.scores.tables import OK
from zoo.targets import Target

HOW = "price it with --seconds {0}=SECONDS or --like {0}=ENTRY[@VARIANT]"


@dataclass(frozen=True)
class PriceList:
    """What prices members for `target`, and a file of `rows` rows.

    `seconds`: of the whole file on the whole target, by member; `like`: ENTRY or ENTRY@VARIANT, by member; `stores`: where
    measurements of entries lie, the first with fetched weights too. `free`: members without a price cost nothing, since no
    budget is asked for.
    """

    target: Target
    rows: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    like: Mapping[str, str] = field(default_factory=dict)
    stores: Sequence[Path] = ()
    free: bool = False

    def priced(self, tables: Sequence[Table], left_out: dict[str, str]) -> list[Table]:
        """Tables with their costs on the target; those that have none are left out with the reason.

        A price that the user names comes first; then a cost that was measured, or declared, on the target; then the forecast
        of the entry that a table is of, or was imported as alike to. Where a member has tables of the target's own, its others
        stay as they are. ZooError where the user prices what is no member, or by no entry.
        """
        self._check(tables)
        own = {table.name for table in tables if self._has_own(table)}
        found = []
        for table in tables:
            name = table.name
            if name in own and name not in self.seconds and name not in self.like:
                found.append(table)
            elif isinstance(cost := self._cost(table), Cost):
                found.append(replace(table, card=_moved(table.card, cost, self.target)))
            else:
                left_out[f"{name} ({table.which})" if name in own else name] = cost
        return found

    def _has_own(self, table: Table) -> bool:
        return table.card.target == self.target.name and table.card.cost.priced and not table.card.emulates

    def _check(self, tables: Sequence[Table]) -> None:
        names = sorted({table.name for table in tables})
        for option, given in (("--seconds", self.seconds), ("--like", self.like)):
            if strangers := [name for name in given if name not in names]:
                raise ZooError(f"{option} {strangers[0]}=...: no member is called that; there are {', '.join(names[:20])}")
        if both := sorted(self.seconds.keys() & self.like.keys()):
            raise ZooError(f"{both[0]}: has two prices, --seconds and --like; give one of them")
        for text in self.like.values():
            load_variant(text)

    def _cost(self, table: Table) -> Cost | str:
        """What a member costs on the target, or why nobody can say."""
        name, card = table.name, table.card
        if name in self.seconds:
            # As one copy on the whole target: nothing is taken to run beside it.
            per_row = self.seconds[name] / self.rows
            return Cost(target=self.target.name, load_seconds=0.0, seconds_per_row=per_row, gpus=self.target.gpus)
        if text := self.like.get(name, card.cost.like):
            try:
                return self._forecast(*load_variant(text), table)
            except ZooError as error:
                return str(error)
        if card.request is not None:
            try:
                return self._forecast(load_entry(card.entry), card.variant, table)
            except ZooError as error:
                return f"its cost was measured on {card.target}, and {error}"
        if self.free:
            return Cost(target=self.target.name, load_seconds=0.0, gpus=self.target.gpus, priced=False)
        if card.cost.priced:
            return f"its cost was declared for {card.target}, not for {self.target.name}; {HOW.format(name)}"
        return f"nobody has said what it costs; {HOW.format(name)}"

    def _forecast(self, entry: Entry, variant: Variant, table: Table) -> Cost:
        """The entry's cost for the table's lengths; ZooError, the reason, where there is none."""
        tokens = table.frame.loc[table.frame["status"] == OK, "n_tokens"].to_numpy(dtype=np.float64)
        cost = self._forecaster.cost(entry, variant, tokens)
        if cost is None:
            raise ZooError(
                f"{entry.name} cannot be forecast for {self.target.name}: it was measured nowhere that compares, and its shape "
                f"or the target's speed is not known; {HOW.format(table.name)}"
            )
        return cost

    @cached_property
    def _forecaster(self) -> Forecaster:
        return Forecaster(self.target, self.rows, self.stores)

    def with_lengths(self, members: Members) -> Members:
        """The members, where tables know no tokens with tokens by the rows' characters.

        Those whose price is a forecast need them. Nothing is changed where the battles' texts are not at hand: a mean row's
        price serves then.
        """
        tokens, cards = members.tokens.copy(), list(members.cards)
        for j, card in enumerate(members.cards):
            forecast = card.cost.forecast
            if forecast is None or tokens[j].any() or not members.characters.any():
                continue
            entry, variant = load_variant(forecast.as_entry)
            estimate = estimated(load_published().lengths, members.characters, entry.prompt, variant)
            found = self._forecaster.forecast(entry, variant, estimate)
            if found is not None and estimate.any():
                tokens[j] = np.maximum(1, np.round(estimate)).astype(tokens.dtype)
                cards[j] = card.model_copy(update={"cost": foretold(found)})
        return replace(members, tokens=tokens, cards=tuple(cards))


def _moved(card: ScoreCard, cost: Cost, target: Target) -> ScoreCard:
    """The card of a member that will serve on the target: its cost there, and its request in the layout it serves in there."""
    request = card.request
    if request is not None and request.target != target.name:
        changes: dict[str, object] = {"target": target.name}
        if isinstance(request, ScoreRequest):
            serve = request.serve
            with suppress(ZooError):  # an entry that is gone, priced by hand
                serve = load_entry(card.entry).serve.get(target.name, ServeSpec())
            changes |= {"serve": serve, "emulates": None}
        request = request.model_copy(update=changes)
    return card.model_copy(update={"target": target.name, "cost": cost, "emulates": None, "request": request})
