"""The space of a study: what a trial may draw, so that whatever is drawn fits the budget.

A trial walks through the entries, the best alone first, and is offered what the set can still afford; then, where seconds are
left, a member or two on the rows where they pay; then a pool and its strength. What is not offered is no parameter of the
trial, so no trial is spent on a plan that does not fit. `study` draws from it; `draws` walks it for a plan that is known.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Protocol

from ensemble.pools.blend import GREEDY, RIDGED_LOG, RIDGED_LOGISTIC, SPECS, BlendSpec
from ensemble.search.problem import Candidate, Problem
from ensemble.search.subsets import Subset

SPACE_VERSION = 1  # of the parameters: trials that were drawn otherwise are of another study
OUT, IN, NO, YES = "out", "in", "no", "yes"
POOL, SHRINKAGE, FLOOR, SPLIT = "pool", "shrinkage", "floor", "the first one's share of the seconds"
LEAST = {SHRINKAGE: 1e-6, FLOOR: 1e-5}  # of what can be drawn; a known plan's 0 stands there, see `Space.strength`
STRONGER = {SHRINKAGE: 30.0, FLOOR: 5.0}  # beyond the strongest of the exact search: few rows may want more
SPLITS = (0.2, 0.5)  # of the seconds that are left, what the first of two members on some rows gets
PART, PARTS = "share of the seconds that it uses", (0.2, 1.0)  # of a single one, where a known plan leaves some over
EVERY_COMBINATION = 3  # an entry with more variants is offered each, each pair and all of them
SLOW = ("trees", "geometric")  # kinds of pool whose one fit takes longer than many trials


class Draws(Protocol):
    """Who decides: a trial of Optuna's, or a known plan (`draws`).

    Each is asked by the name of a parameter.
    """

    def option(self, name: str, options: Mapping[str, Subset], variants: Subset) -> Subset:
        """One of the options for an entry that has these variants."""

    def takes(self, name: str, j: int, place: int) -> bool:
        """Whether member j sees some rows, as the first (0) or second (1) that does."""

    def share(self, name: str, room: float, low: float, high: float) -> float:
        """The share of `room` seconds, between low and high, that the first member on some rows gets."""

    def pool(self, name: str, pools: Mapping[str, BlendSpec]) -> str:
        """The name of a kind of pool."""

    def strength(self, name: str, low: float, high: float) -> float:
        """A number between low and high, by its logarithm."""


@dataclass(frozen=True)
class Drawn:
    """A plan to judge: `whole` see every row, each of `work` the best that its seconds buy."""

    whole: Subset
    spec: BlendSpec
    work: dict[int, float]

    @property
    def key(self) -> tuple[object, ...]:
        """The same for the same plan: seconds of work count when they differ by one."""
        return self.whole, self.spec, tuple((j, round(seconds)) for j, seconds in self.work.items())


class Space:
    """Plans of a problem within `available` seconds, as parameters of a trial.

    `known`: plans that must be there, with their kinds of pool and however many variants of one entry they take. Without
    `coverage` every member sees every row.
    """

    def __init__(self, problem: Problem, available: float, *, coverage: bool, known: Iterable[Candidate] = ()) -> None:
        self.problem, self.available, self.coverage = problem, available, coverage
        self.names, cards, plans = problem.members.names, problem.members.cards, list(known)
        self._specs = (*SPECS, GREEDY, RIDGED_LOG, RIDGED_LOGISTIC, *(plan.spec for plan in plans))
        wanted = [plan.whole for plan in plans]
        self._plans = plans
        self._affordable = problem.prices.affordable(available)
        self.order: Subset = tuple(sorted(range(len(self.names)), key=lambda j: problem.fitter.score((j,)).loss))
        self.variants: dict[str, Subset] = {}
        for j in self.order:
            self.variants[cards[j].entry] = (*self.variants.get(cards[j].entry, ()), j)
        self.options = {entry: _combinations(variants, wanted) for entry, variants in self.variants.items()}

    @cached_property
    def pools(self) -> dict[str, BlendSpec]:
        """The kinds of pool that a plan may have by their names, each without a strength."""
        bare = dict.fromkeys(map(without_strength, self._specs))
        return {pool_name(spec): spec for spec in bare if spec.pool not in SLOW and self.problem.may_be(spec)}

    @property
    def signature(self) -> str:
        """What makes trials comparable: the parameters with their choices."""
        options = {entry: [self._text(entry, option) for option in options] for entry, options in self.options.items()}
        return f"{SPACE_VERSION} {self.coverage} {options} {list(self.pools)} {self._ranges} {self._leaves_some_over}"

    @cached_property
    def _ranges(self) -> dict[str, tuple[float, float]]:
        """From where to where each strength is drawn: beyond the exact search's, and as far as a known plan's."""
        strongest = {name: STRONGER[name] * max(getattr(spec, name) for spec in SPECS) for name in LEAST}
        return {
            name: (LEAST[name], max(high, *(getattr(spec, name) for spec in self._specs))) for name, high in strongest.items()
        }

    def draw(self, draws: Draws) -> Drawn:
        """The plan that is drawn. It fits."""
        whole = self._draw_whole(draws)
        work = self._draw_some_rows(draws, whole) if self.coverage else {}
        return Drawn(whole, self._draw_pool(draws), work)

    def _draw_whole(self, draws: Draws) -> Subset:
        whole: Subset = ()
        entries = list(self.options)
        for place, entry in enumerate(entries):
            options = self._fitting(entry, whole)
            is_last_hope = not whole and not any(self._fitting(later, ()) for later in entries[place + 1 :])
            offered = options if is_last_hope or not options else [(), *options]
            if len(offered) > 1:
                texts = {self._text(entry, option): option for option in offered}
                whole = _joined(whole, draws.option(self._parameter(entry, list(texts)), texts, self.variants[entry]))
            elif offered:
                whole = _joined(whole, offered[0])
        return whole

    def _fitting(self, entry: str, whole: Subset) -> list[Subset]:
        return [option for option in self.options[entry] if self._affordable(_joined(whole, option))]

    def _parameter(self, entry: str, texts: Sequence[str]) -> str:
        """The entry; with what is offered where that is not all, since a parameter has the same choices in every trial."""
        return entry if len(texts) == len(self.options[entry]) + 1 else f"{entry}: {' / '.join(texts)}"

    def _text(self, entry: str, option: Subset) -> str:
        if not option or len(self.variants[entry]) == 1:
            return IN if option else OUT
        return " + ".join(self.names[j].removeprefix(f"{entry}@") for j in option)

    def _draw_some_rows(self, draws: Draws, whole: Subset) -> dict[int, float]:
        prices = self.problem.prices

        def beside(part: dict[int, float]) -> Callable[[int], float]:
            return lambda j: prices.work_beside(whole, part, j, self.available)

        first = self._draw_one(draws, 0, whole, lambda j: self.room(whole, j))
        if first is None:
            return {}
        room = self.room(whole, first)
        second = self._draw_one(draws, 1, (*whole, first), beside({first: SPLITS[1] * room}))
        if second is None:
            return {first: draws.share(PART, room, *PARTS) * room if self._leaves_some_over else room}
        part = {first: draws.share(SPLIT, room, *SPLITS) * room}
        return part | {second: beside(part)(second)}

    @cached_property
    def _leaves_some_over(self) -> bool:
        """Whether a known plan has a single member on some rows that uses less than the seconds that are left."""
        single = [(plan.whole, *next(iter(plan.work.items()))) for plan in self._plans if len(plan.work) == 1]
        return any(seconds < 0.99 * self.room(whole, j) for whole, j, seconds in single)

    def _draw_one(self, draws: Draws, place: int, taken: Subset, room: Callable[[int], float]) -> int | None:
        """A member that is not taken and has room, or none."""
        title = ("some rows", "then some rows")[place]
        for j in self.order:
            if j not in taken and room(j) > 0 and draws.takes(f"{title}: {self.names[j]}", j, place):
                return j
        return None

    def room(self, whole: Subset, j: int) -> float:
        """Seconds of work that member j may do on some rows; 0 where it could see them all."""
        room = self.problem.prices.gated_work(whole, j, self.available)
        return room if room < self.problem.prices.whole_work(j) else 0.0

    def _draw_pool(self, draws: Draws) -> BlendSpec:
        spec = self.pools[draws.pool(POOL, self.pools)]
        strengths = dict.fromkeys((SHRINKAGE, FLOOR), 0.0)
        strengths |= {name: self._strength(draws, name) for name in self.strengths_of(spec)}
        return self.problem.of_kind(replace(spec, shrinkage=strengths[SHRINKAGE], floor=strengths[FLOOR]))

    def strengths_of(self, spec: BlendSpec) -> tuple[str, ...]:
        """Which strengths matter to a kind of pool: those that some pool of the exact search has."""
        alike = [other for other in self._specs if without_strength(other) == without_strength(spec)]
        return tuple(name for name in (SHRINKAGE, FLOOR) if any(getattr(other, name) for other in alike))

    def _strength(self, draws: Draws, name: str) -> float:
        """The least that can be drawn stands for none at all, which the exact search may want."""
        low, high = self._ranges[name]
        drawn = draws.strength(name, low, high)
        return drawn if drawn > low else 0.0


def _joined(whole: Subset, option: Subset) -> Subset:
    return tuple(sorted((*whole, *option)))


def _combinations(variants: Subset, wanted: Iterable[Subset]) -> tuple[Subset, ...]:
    """The sets of an entry's variants that are offered, each sorted."""
    sizes = range(1, len(variants) + 1) if len(variants) <= EVERY_COMBINATION else (1, 2, len(variants))
    offered = [tuple(sorted(chosen)) for size in sizes for chosen in itertools.combinations(variants, size)]
    offered += [chosen for one in wanted if (chosen := tuple(sorted(set(one) & set(variants))))]
    return tuple(dict.fromkeys(offered))


def without_strength(spec: BlendSpec) -> BlendSpec:
    """The kind of a pool: without its strength, and without what the kind of battles decides."""
    return replace(spec, shrinkage=0.0, floor=0.0, ties=True, position_bias=False)


def pool_name(spec: BlendSpec) -> str:
    """A kind of pool for people: its kind, and what else it is."""
    if not spec.fitted:
        return "equal weights"
    if without_strength(spec) == GREEDY:
        return "greedy"
    kind, plain = without_strength(spec), BlendSpec(spec.pool)
    differing = {field.name: getattr(kind, field.name) for field in fields(spec)}
    differing = {name: value for name, value in differing.items() if value != getattr(plain, name)}
    words = [name if value is True else f"{name} {value:g}" for name, value in differing.items()]
    return ", ".join([spec.pool.replace("_", "-"), *words])
