"""The board: every row gets a distribution whatever is missing, and answers are taken once, by id."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.pools.blend import apply_blend
from ensemble.pools.patterns import blend_for
from ensemble.predict.board import Board, whole
from tests.helpers.plans import PRIOR, plan_member, plan_of, plan_pool
from zoo.errors import ZooError
from zoo.scores.tables import score_table

NAMES = ("first", "second", "third")
MEMBERS = [plan_member(name) for name in NAMES]
SUBSETS = [subset for k in (1, 2, 3) for subset in itertools.combinations(NAMES, k)]
triples = st.tuples(*[st.floats(0, 1)] * 3).filter(lambda t: sum(t) > 1e-3).map(lambda t: tuple(v / sum(t) for v in t))
boards = st.lists(st.tuples(*[st.none() | triples | st.just("refused")] * 3), min_size=1, max_size=12)


@given(boards, st.sampled_from(["linear", "log", "logistic"]), st.sets(st.sampled_from(SUBSETS)), st.randoms())
def test_every_row_is_a_distribution_whatever_is_missing(rows, kind, subsets, random) -> None:
    pools = [plan_pool(subset, 1.0 - 0.01 * i, kind) for i, subset in enumerate(sorted(subsets | {NAMES}))]
    plan = plan_of(MEMBERS, pools)
    ids = [f"id{i}" for i in range(len(rows))]
    board = Board(ids, NAMES)
    for j, name in enumerate(NAMES):
        told = [i for i, row in enumerate(rows) if row[j] is not None]
        random.shuffle(told)
        p = [(np.nan,) * 3 if rows[i][j] == "refused" else rows[i][j] for i in told]
        status = ["refused" if rows[i][j] == "refused" else "ok" for i in told]
        assert board.add(name, score_table([ids[i] for i in told], np.array(p).reshape(-1, 3), status=status)) == len(told)
    blended = board.blended(plan, {name: np.ones(len(ids), dtype=bool) for name in NAMES})
    assert np.allclose(blended.p.sum(axis=1), 1) and (blended.p >= 0).all()
    assert sum(blended.patterns.values()) == len(ids)
    for i, row in enumerate(rows):  # row by row, by the rule itself
        there = [name for name, value in zip(NAMES, row, strict=True) if value not in (None, "refused")]
        blend = blend_for(plan.pools, frozenset(there))
        alone = {name: np.array([value]) for name, value in zip(NAMES, row, strict=True) if name in there}
        expected = PRIOR if blend is None else whole(apply_blend(blend, alone), PRIOR)[0]
        assert blended.p[i] == pytest.approx(expected)


def test_rows_as_planned_get_the_blend_fitted_on_such_rows() -> None:
    easy = plan_pool(("first",), 0.8, planned=True, temperature=0.5)
    plan = plan_of(MEMBERS, [easy, plan_pool(("first",), 1.0), plan_pool(NAMES, 0.9)])
    board = Board(["x", "y"], NAMES)
    board.add("first", score_table(["y", "x"], np.array([[0.5, 0.3, 0.2]] * 2)))
    planned = {"first": np.array([True, True]), "second": np.array([False, True]), "third": np.array([False, True])}
    p = board.blended(plan, planned).p
    sharper = np.array([0.25, 0.09, 0.04]) / 0.38
    assert p[0] == pytest.approx(sharper)  # the gates leave it with the first member alone
    assert p[1] == pytest.approx([0.5, 0.3, 0.2])  # it should have had all three: fitted on all rows


def test_a_board_takes_rows_by_id_once_and_refuses_strangers() -> None:
    board = Board(["x", "y"], NAMES)
    board.add("first", score_table(["y"], np.array([[0.2, 0.3, 0.5]])))
    assert board.add("first", score_table(["y", "x"], np.array([[1.0, 0, 0], [0.1, 0.1, 0.8]]))) == 1
    assert board.table("first")[1] == pytest.approx([0.2, 0.3, 0.5])
    with pytest.raises(ZooError, match="1 ids are not in the battles: z"):
        board.add("first", score_table(["z"], np.array([[1.0, 0, 0]])))
    board.discard("first")
    assert not board.answered("first").any()
