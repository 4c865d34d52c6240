"""Groups left out of the build in turn: who is chosen by them, and what the plan says of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ensemble.members.texts import COLUMN, SCRIPT
from ensemble.search.build import build_plan, pose_problem
from ensemble.search.contest import Contest
from ensemble.search.rehearse import rehearse
from ensemble.search.robust import LEAST_ROWS, AskedGroups, Groups, beyond_by_group, groups_of, score
from tests.helpers.members import make_members, request
from zoo.errors import ZooError

OF = np.repeat([0, 1, 2], [600, 300, 100])


def with_column(values: list[str], **options: object):
    members = make_members(rows=len(values), **options)
    return replace(members, about=pd.DataFrame({COLUMN: values}, index=list(members.ids)))


def test_scores_are_the_worst_group_and_the_mean_of_groups():
    losses = np.choose(OF, [1.0, 1.2, 1.4])
    assert score(losses, OF, "worst") == pytest.approx(1.4) and score(losses, OF, "mean") == pytest.approx(1.2)
    prompts = np.arange(1_000)
    noise = np.random.default_rng(0).normal(size=1_000)
    for by in ("worst", "mean"):
        difference, error = beyond_by_group(losses + noise, losses, OF, prompts, by)
        assert difference == pytest.approx(score(losses + noise, OF, by) - score(losses, OF, by))
        assert error > 0 and beyond_by_group(losses, losses, OF, prompts, by) == (0, 0)
    assert beyond_by_group(losses + noise, losses, OF, prompts, "worst")[1] == pytest.approx(
        noise[OF == 2].std(ddof=1) / 10, rel=1e-6
    )


@pytest.mark.parametrize(("by", "winner"), [("worst", "steady"), ("mean", "steady"), (None, "specialist")])
def test_a_specialist_of_the_largest_group_wins_on_the_mixture_and_not_on_groups(by, winner):
    names = ("log_pool", "steady", "specialist")
    of = np.repeat(OF, 4)
    losses = np.stack([np.full(4_000, 1.3), np.full(4_000, 1.0), np.choose(of, [0.8, 1.15, 1.2])])[:, None]
    held = Groups(AskedGroups("source", by), ("a", "b", "c"), of) if by else None
    contest = Contest(names, losses, of[None], np.arange(4_000), np.ones(3), held=held)
    assert contest.winner == winner
    assert ("groups of source" in contest.why()) == bool(by)


def test_groups_are_of_a_column_of_lengths_and_of_scripts():
    members = with_column(["x"] * 200 + ["y"] * 100)
    found = groups_of(members, AskedGroups("source"))
    assert found.names == ("x", "y") and (found.of == np.repeat([0, 1], [200, 100])).all()
    scripts = replace(members, about=pd.DataFrame({SCRIPT: ["latin"] * 150 + ["cjk"] * 150}))
    assert set(groups_of(scripts, AskedGroups("language")).names) == {"latin", "cjk"}
    bands = groups_of(scripts, AskedGroups("length"))
    assert len(bands.names) == 4 and np.ptp(np.bincount(bands.of)) <= 1
    means = [scripts.characters[bands.of == place].mean() for place in range(4)]
    assert sorted(bands.names) == [name for _, name in sorted(zip(means, bands.names, strict=True))]


def test_small_groups_are_put_together_and_what_leaves_one_is_refused():
    few = LEAST_ROWS // 2
    found = groups_of(with_column(["x"] * 200 + ["y"] * few + ["z"] * few), AskedGroups("source"))
    assert sorted(zip(np.bincount(found.of).tolist(), found.names, strict=True)) == [(2 * few, "y and z"), (200, "x")]
    for values, message in (
        (["x"] * 200, "fewer than two groups"),
        ([str(i) for i in range(200)], "200 values"),
    ):
        with pytest.raises(ZooError, match=message):
            groups_of(with_column(values), AskedGroups("source"))
    for column, message in (("source", "no such column beside .*; give one of theirs"), ("language", "came without texts")):
        with pytest.raises(ZooError, match=message):
            groups_of(make_members(rows=100), AskedGroups(column))


def test_a_group_with_nearly_all_prompts_leaves_nothing_to_build_on_and_is_refused():
    """Judges, or lengths of answers, of the same prompts: leaving one out leaves all of its prompts out."""
    members = with_column(["x", "y", "x"] * 100)  # of each prompt three rows
    with pytest.raises(ZooError, match="without the prompts of x 0 rows are left"):
        groups_of(members, AskedGroups("source"))
    every_other = with_column(["x", "y", "y", *["y"] * 3] * 50)
    with pytest.raises(ZooError, match="without the prompts of y 0 rows are left"):
        groups_of(every_other, AskedGroups("source"))
    apart = with_column((["x"] * 3 + ["y"] * 3) * 50)
    assert len(groups_of(apart, AskedGroups("source")).names) == 2


@pytest.mark.slow
def test_a_group_is_judged_by_a_build_that_never_saw_it_nor_its_prompts():
    """Whatever the group's labels are, its rows' three probabilities stay, and sum to 1. Prompts lie in two groups here."""
    values = ["x" if i % 7 < 4 else "y" for i in range(300)]
    members = with_column(values).subset([0, 1, 3])
    asked = request(5_400, robust=AskedGroups("source"), coverage=False)
    held = np.array(values) == "y"
    touched = np.isin(members.groups, members.groups[held])
    assert (touched & ~held).any()
    losses = []
    for turned in range(3):
        turning = replace(members, y=np.where(touched, (members.y + turned) % 3, members.y))
        [rehearsal] = rehearse(pose_problem(turning, asked), asked, [3_600.0])
        losses.append(rehearsal.losses["log_pool"][0, held])
    np.testing.assert_allclose(np.exp(-np.stack(losses)).sum(axis=0), 1, atol=1e-6)


@pytest.mark.slow
def test_a_robust_plan_has_the_loss_of_each_group_and_promises_their_rows_mean():
    members = with_column(["x"] * 200 + ["y"] * 100).subset([0, 1, 3])
    plan = build_plan(members, request(5_400, robust=AskedGroups("source", "mean"), coverage=False))
    assert plan.robust is not None and (plan.robust.column, plan.robust.by) == ("source", "mean")
    assert {group.name: group.rows for group in plan.robust.groups} == {"x": 200, "y": 100}
    assert sum(group.rows * group.log_loss for group in plan.robust.groups) / 300 == pytest.approx(plan.oof_log_loss)
    assert "a fold is a group of source" in plan.estimate


def test_what_cannot_be_grouped_is_refused_before_anything_is_searched():
    said: list[str] = []
    with pytest.raises(ZooError, match="--robust source"):
        build_plan(make_members(rows=100), request(5_400, robust=AskedGroups("source")), say=said.append)
    assert not any("searching" in line for line in said)
