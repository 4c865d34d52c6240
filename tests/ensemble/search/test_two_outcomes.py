"""Battles of a kind that has no ties: from tables with a p_tie to a plan without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensemble.members.gather import align
from ensemble.members.table import Members
from ensemble.plan import Plan, load_plan, save_plan
from ensemble.plan.checks import first_fault_of
from ensemble.report.views import frontier_table, plan_page
from ensemble.search.build import build_plan, plan_numbers
from tests.helpers.battles_files import Row, as_csv, named, write
from tests.helpers.members import KINDS, make_members, request
from zoo.pipeline.import_table import import_scores
from zoo.pipeline.members import score_tables
from zoo.report.text import as_text
from zoo.scores.tables import without_ties


@pytest.fixture(scope="module")
def members() -> Members:
    """Two kinds of model on 400 battles or so, judged by A and B alone."""
    found = make_members({name: KINDS[name] for name in ("lexical", "small", "big")}, rows=600)
    kept = found.rows(found.y < 2)
    return replace(kept, p=without_ties(kept.p), ties=False)


@pytest.fixture(scope="module")
def built(members: Members) -> Plan:
    return build_plan(members, request(5400))


def test_a_plan_of_two_outcomes_says_so_and_is_whole(built: Plan, tmp_path: Path) -> None:
    assert not built.ties and built.prior == (0.5, 0.5, 0.0)
    assert not any(pool.blend.ties for pool in built.pools)
    assert built.baselines["uniform"] == pytest.approx(np.log(2)) and built.oof_log_loss < np.log(2)
    save_plan(built, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == built


def test_its_accuracies_are_shares_of_rows_whose_winner_is_the_likelier(members: Members, built: Plan) -> None:
    for found in built.members:
        p = members.p[members.names.index(found.name)]
        right = (p[:, 0] > p[:, 1]) == (members.y == 0)
        assert found.oof_accuracy == pytest.approx(right.mean())
    p = members.p[:2].mean(axis=0)  # the third is too slow to see every row, so that no baseline has it
    assert built.baseline_accuracies["equal_weights"] == pytest.approx(((p[:, 0] > p[:, 1]) == (members.y == 0)).mean())
    assert built.oof_accuracy is not None and 0.6 < built.oof_accuracy < 1
    assert plan_numbers(built)["val/acc"] == built.oof_accuracy


def test_accuracy_is_shown_beside_log_loss_and_only_without_ties(built: Plan) -> None:
    shown = as_text(plan_page(built))
    assert f"accuracy {built.oof_accuracy:.4f} out of fold" in shown and "no battle of this kind is a tie" in shown
    assert f"{built.members[0].oof_accuracy:.4f}" in shown
    assert "accuracy" in as_text([frontier_table(built.frontier)])
    with_ties = build_plan(make_members(rows=300), request(5400))
    assert with_ties.ties and "accuracy" not in as_text([*plan_page(with_ties), frontier_table(with_ties.frontier)])
    assert not {"ties", "oof_accuracy", "baseline_accuracies"} & with_ties.model_dump().keys(), "as older plans are written"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"prior": (0.4, 0.4, 0.2)}, "prior: 0.2 for a tie, where the plan's battles have none"),
        ({"ties": True}, "pools.0.blend.ties: false, where the plan's is true"),
    ],
)
def test_a_plan_whose_parts_are_of_two_kinds_is_refused(built: Plan, change: dict[str, object], fault: str) -> None:
    assert first_fault_of(built) is None
    assert first_fault_of(built.model_copy(update=change)) == fault


# --- tables -----------------------------------------------------------------------------------------------------------------

BATTLES: list[Row] = [(str(i), [f"why {i}"], ["x" * (i % 9)], ["y"], i * i % 7 % 2) for i in range(60)]


def test_tie_mass_is_taken_out_of_every_table_before_members_are_judged(tmp_path: Path) -> None:
    labels = write(tmp_path / "wsdm.csv", as_csv(named(BATTLES, language="English")))
    p = np.random.default_rng(3).dirichlet([2, 2, 3], len(BATTLES))
    three = pd.DataFrame({"id": [row[0] for row in BATTLES], "p_a": p[:, 0], "p_b": p[:, 1], "p_tie": p[:, 2]})
    two = pd.DataFrame({"id": three["id"], "p_a": 0.7 - 0.01 * p[:, 0], "p_b": 0.3 + 0.01 * p[:, 0]})
    for name, table in (("three", three), ("two", two)):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        import_scores(
            name, tmp_path / f"{name}.csv", labels, target="cpu", load_seconds=1, seconds_per_row=0.1, store=tmp_path / "store"
        )
    members = align(score_tables(tmp_path / "store"))
    assert not members.ties and (members.p[:, :, 2] == 0).all() and members.uniform_loss == np.log(2)
    order = [three["id"].tolist().index(i) for i in members.ids]
    expected = p[order, 0] / (p[order, 0] + p[order, 1])
    np.testing.assert_allclose(members.p[members.names.index("three"), :, 0], expected, atol=1e-12)
