"""What a study may draw: plans that fit, every plan that fits, and known plans by their parameters."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import optuna
import pytest

from ensemble.plan import ROUNDING
from ensemble.pools.blend import AS_IS, GREEDY, RIDGED_LOG, RIDGED_LOGISTIC, SPECS
from ensemble.search.build import pose_problem
from ensemble.search.decide import find_candidates
from ensemble.search.draws import OfTrial, parameters
from ensemble.search.judging import judge_gated
from ensemble.search.problem import NOT_JUDGED, Candidate, Problem
from ensemble.search.proposals import propose_coverage
from ensemble.search.space import SPLITS, Space
from tests.helpers.members import KINDS, make_members, request

BINDING = (400.0, 3600.0, 6000.0)  # seconds: the lexical member and little else, some, all but one
VARIANTS = KINDS | {"big@ba": (0.9, 0.45, 60, 0.4), "big@ab": (0.95, 0.4, 60, 0.4)}


def posed(kinds: dict = KINDS, rows: int = 150) -> Problem:
    """A problem; members called `entry@variant` are variants of one entry."""
    members = make_members({name: kind for name, kind in kinds.items() if name != "big" or kinds is KINDS}, rows)
    cards = tuple(card.model_copy(update={"entry": card.member.partition("@")[0]}) for card in members.cards)
    return pose_problem(replace(members, cards=cards), request(1.0))


def random_trials(space: Space, count: int):
    """Trials drawn at random, with what each came to."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(count):
        trial = study.ask()
        yield space.draw(OfTrial(trial)), trial.distributions


@pytest.mark.parametrize("kinds", [KINDS, VARIANTS], ids=["entries", "variants"])
@pytest.mark.parametrize("available", BINDING)
def test_whatever_is_drawn_fits_and_has_somebody_in_it(kinds, available):
    problem = posed(kinds)
    space = Space(problem, available, coverage=True)
    seen: dict[str, object] = {}
    gated = []
    for drawn, distributions in random_trials(space, 150):
        assert drawn.whole and not set(drawn.whole) & set(drawn.work)
        assert problem.prices.seconds_with(drawn.whole, drawn.work) <= available * (1 + ROUNDING)
        gated += [drawn] if drawn.work else []
        for name, distribution in distributions.items():
            assert seen.setdefault(name, distribution) == distribution, "Optuna has one distribution for a parameter"
    for drawn in gated[:4]:
        assert judge_gated(problem, drawn.whole, drawn.spec, drawn.work).seconds <= available * (1 + ROUNDING)
    assert {len(drawn.work) for drawn in gated} == {1, 2}


def test_without_coverage_every_member_sees_every_row():
    assert not any(drawn.work for drawn, _ in random_trials(Space(posed(), 3600.0, coverage=False), 50))


def test_every_affordable_set_can_be_drawn():
    problem = posed(VARIANTS)
    space = Space(problem, BINDING[2], coverage=True)
    affordable = problem.prices.affordable(BINDING[2])
    everyone = range(len(problem.members.names))
    sets = [s for size in everyone for s in itertools.combinations(everyone, size) if s and affordable(s)]
    assert 5 < len(sets) < 2 ** len(everyone) - 1
    for whole in sets:
        wanted = parameters(space, Candidate(whole, problem.of_kind(RIDGED_LOG), 0.0, NOT_JUDGED))
        assert wanted is not None
        assert space.draw(OfTrial(optuna.trial.FixedTrial(wanted))).whole == whole


def test_variants_of_one_entry_are_one_parameter():
    space = Space(posed(VARIANTS), 1e6, coverage=True)
    assert set(space.options) == {"lexical", "small", "other", "big"}
    texts = {tuple(distributions["big"].choices) for _, distributions in random_trials(space, 3)}
    assert {frozenset(choices) for choices in texts} == {frozenset({"out", "ab", "ba", "ba + ab"})}


def test_many_variants_are_offered_singly_in_pairs_all_together_and_as_a_known_plan_has_them():
    problem = posed({f"one@{k}": (0.5 + k / 10, 0.4, 10, 0.01) for k in range(5)})
    known = Candidate((0, 1, 4), RIDGED_LOG, 0.0, NOT_JUDGED)
    space = Space(problem, 1e6, coverage=True, known=[known])
    sizes = np.bincount([len(option) for option in space.options["one"]])
    assert sizes.tolist() == [0, 5, 10, 1, 0, 1]


@pytest.mark.parametrize("spec", [*SPECS, AS_IS, GREEDY, RIDGED_LOG, RIDGED_LOGISTIC], ids=str)
def test_every_pool_of_the_exact_search_can_be_drawn_as_it_is(spec):
    problem = posed()
    space = Space(problem, 3600.0, coverage=True)
    wanted = parameters(space, Candidate((0, 1), problem.of_kind(spec), 0.0, NOT_JUDGED))
    assert wanted is not None
    drawn = space.draw(OfTrial(optuna.trial.FixedTrial(wanted)))
    assert (drawn.whole, drawn.spec, drawn.work) == ((0, 1), problem.of_kind(spec), {})


def test_strengths_are_offered_where_they_matter():
    space = Space(posed(), 1e6, coverage=True)
    assert space.strengths_of(AS_IS) == ()
    assert space.strengths_of(GREEDY) == ()
    assert space.strengths_of(RIDGED_LOG) == ("shrinkage", "floor")


def test_a_kind_of_pool_that_only_a_known_plan_has_is_offered():
    """Twelve rounds of greedy selection are no pool of the exact search's."""
    problem, spec = posed(), replace(GREEDY, rounds=12, fitted=True, pool="linear", tempered=True)
    known = Candidate((0, 1), problem.of_kind(spec), 0.0, NOT_JUDGED)
    assert parameters(Space(problem, 3600.0, coverage=True), known) is None
    wanted = parameters(Space(problem, 3600.0, coverage=True, known=[known]), known)
    assert wanted is not None
    drawn = Space(problem, 3600.0, coverage=True, known=[known]).draw(OfTrial(optuna.trial.FixedTrial(wanted)))
    assert drawn.spec == known.spec


def test_coverage_plans_of_the_exact_search_can_be_drawn():
    problem = posed(rows=300)
    found = find_candidates(problem, request(1.0), 3600.0)
    whole = [c for c in found.considered if not c.seen]
    plans = [c for c in propose_coverage(problem, sorted(whole, key=lambda c: c.loss)[:6], 3600.0) if c.spec in SPECS]
    space = Space(problem, 3600.0, coverage=True, known=plans)
    known = [(c, wanted) for c in plans if (wanted := parameters(space, c)) is not None]
    assert {len(c.work) for c, _ in known} == {1, 2}
    assert len(known) >= 0.8 * len(plans)
    for candidate, wanted in known:
        drawn = space.draw(OfTrial(optuna.trial.FixedTrial(wanted)))
        assert (drawn.whole, drawn.spec, list(drawn.work)) == (candidate.whole, candidate.spec, list(candidate.work))
        first, room = next(iter(candidate.work)), space.room(candidate.whole, next(iter(candidate.work)))
        if len(drawn.work) == 1 or SPLITS[0] * room <= candidate.work[first] <= SPLITS[1] * room:
            for j, seconds in candidate.work.items():
                assert drawn.work[j] == pytest.approx(seconds, rel=1e-6)
