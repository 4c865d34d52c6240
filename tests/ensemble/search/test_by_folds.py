"""Candidates whose strength folds choose: what they are, where trees are tried, and a plan of trees from build to fallback."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ensemble.plan import load_plan, save_plan
from ensemble.pools.blend import BlendSpec, apply_blend
from ensemble.pools.patterns import blend_for
from ensemble.report.views import pool_text
from ensemble.search import build, by_folds
from ensemble.search.build import pose_problem
from ensemble.search.by_folds import GEOMETRIC, SECOND_ORDER, SHRUNK_LOG, TREES, candidates_by_folds
from ensemble.search.fitting import carry_out, fit_candidate
from ensemble.search.problem import Problem
from tests.helpers.members import KINDS, make_members, request
from tests.helpers.plans import plan_member, plan_of
from zoo.scores.tables import swap_sides

EVERYONE = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Members of whom one is to be believed only where another is unsure: nothing that a sum can say."""
    members = make_members(rows=1500)
    p = members.p.copy()
    sure = np.abs(np.log(p[1, :, 0] / p[1, :, 1])) > 1
    p[2, sure] = swap_sides(p[2, sure])
    posed = pose_problem(replace(members, p=p), request(1))
    return Problem(posed.members, posed.prices, has_trees=True)


def test_each_is_of_the_sets_that_it_was_given_and_the_simplest_comes_first(problem):
    found = candidates_by_folds(problem, [EVERYONE, (2,)])
    assert list(found) == [SHRUNK_LOG, SECOND_ORDER, TREES, GEOMETRIC]
    assert {candidate.whole for candidate in found.values()} <= {EVERYONE, (2,)}
    assert found[TREES].whole == found[GEOMETRIC].whole == found[SECOND_ORDER].whole
    assert found[GEOMETRIC].spec.parts == (found[SECOND_ORDER].spec, found[TREES].spec)
    assert sum(found[GEOMETRIC].spec.part_weights) == pytest.approx(1)
    assert candidates_by_folds(problem, [(1,)])[SECOND_ORDER].whole == (1,), "a set that does not fit is never taken"


def test_trees_are_tried_by_the_rows_of_the_whole_problem_alone(monkeypatch):
    members = make_members(rows=300)
    monkeypatch.setattr(build, "TREE_ROWS", 301)
    assert list(candidates_by_folds(pose_problem(members, request(1)), [EVERYONE])) == [SHRUNK_LOG, SECOND_ORDER]
    monkeypatch.setattr(build, "TREE_ROWS", 300)
    enough = pose_problem(members, request(1))
    assert enough.has_trees
    assert enough.on_rows(np.arange(300) < 200).has_trees, "a rehearsal has what the build has"


def test_folds_shrink_toward_uniform_where_members_know_nothing():
    """Tables that are noise: a pool of weight zero is the best there is."""
    members = make_members({name: (0.0, 1.0, load, row) for name, (_, _, load, row) in KINDS.items()}, rows=300)
    spec = candidates_by_folds(pose_problem(members, request(1)), [EVERYONE])[SHRUNK_LOG].spec
    assert spec.center == 0.0
    assert spec.shrinkage == max(spec.shrinkage for spec in by_folds.SHRUNK_SPECS)


def test_a_plan_of_trees_falls_back_to_pools_without(problem, tmp_path):
    """Trees cost a fit for every set that mishaps may leave: these get the plain pool instead, and `show` says so."""
    names, candidate = problem.members.names, candidates_by_folds(problem, [EVERYONE])[GEOMETRIC]
    fitted = fit_candidate(problem, candidate)
    path = tmp_path / "plan.json"
    save_plan(plan_of([plan_member(name) for name in names], fitted.pools), path)
    again = load_plan(path)
    assert path.stat().st_size < 1 << 20
    tables = dict(zip(names, problem.members.p, strict=True))
    full, written = (blend_for(pools, frozenset(names)) for pools in (fitted.pools, again.pools))
    assert full is not None and written is not None and full.parts
    lengths = problem.members.lengths
    assert full.reads_lengths, "these battles have texts"
    np.testing.assert_array_equal(apply_blend(full, tables, lengths), apply_blend(written, tables, lengths))
    rows = problem.prices.pricing.row_seconds
    np.testing.assert_allclose(carry_out(fitted, candidate, problem.members, rows, {}), apply_blend(full, tables, lengths))
    for left in names:
        without = blend_for(again.pools, frozenset(names) - {left})
        assert without is not None and without.pool == "second_order"
        assert set(without.members) == set(names) - {left}
    assert "for a tie, which read lengths; rows that lack a member get a second-order pool of the others" in pool_text(again)
    losses = {pool.members: pool.log_loss for pool in fitted.pools}
    assert losses[full.members] <= min(losses.values()) + 1e-9, "compared by the same pool, everybody is the best on these rows"


def test_the_plain_pool_of_one_that_is_made_of_others_is_its_first(problem):
    spec = candidates_by_folds(problem, [EVERYONE])[GEOMETRIC].spec
    assert spec.base.pool == "second_order"
    assert BlendSpec("log").base == BlendSpec("log")
