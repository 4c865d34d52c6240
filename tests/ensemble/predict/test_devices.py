"""The GPUs that are there: said before anything starts, and the plan is carried out on them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.budget.schedule import Load, makespan, place
from ensemble.plan import Job, Plan, PlanTarget, load_plan
from ensemble.plan.checks import first_fault_of
from ensemble.predict.devices import dealt_over, gpus_at_hand
from tests.helpers.plans import plan_member, plan_of, plan_pool
from tests.helpers.predictions import ROWS, make_plan, member, outcome, run
from zoo.contracts import Cost


@pytest.mark.parametrize(("listed", "found"), [("3,GPU-5,1", ("3", "GPU-5")), ("7", ("7",)), ("-1", ()), ("", ())])
def test_the_plan_s_devices_are_the_gpus_at_hand(listed: str, found: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert gpus_at_hand(PlanTarget(name="t4x2", gpus=2)) == found
    assert gpus_at_hand(PlanTarget(name="cpu", gpus=0)) == ()


def plan_for(gpus: int, prices: list[tuple[float, float, int]]) -> Plan:
    """A plan of members with these seconds of loading and of work, and GPUs that one copy takes; each later one is gated."""
    names = [f"m{place}@ab" for place in range(len(prices))]
    loads = [Load((name,), load, work, wide=wide > 1) for name, (load, work, wide) in zip(names, prices, strict=True)]
    costs = [Cost(target="big", load_seconds=load, gpus=wide) for load, _, wide in prices]
    members = [
        plan_member(name, cost=cost, predicted_seconds=load.load_seconds + load.work_seconds)
        for name, cost, load in zip(names, costs, loads, strict=True)
    ]
    return plan_of(
        members,
        [plan_pool(tuple(names), 1.0)],
        target=PlanTarget(name="big", gpus=gpus),
        schedule=place(loads, gpus, start_seconds=4.0),
    )


@given(
    st.integers(1, 4),
    st.integers(0, 4),
    st.lists(st.tuples(st.floats(0.1, 50), st.floats(0.1, 500), st.booleans()), min_size=1, max_size=4),
)
def test_on_fewer_gpus_every_member_that_fits_one_is_dealt_whole_and_the_plan_stays_valid(gpus, there, prices) -> None:
    plan = plan_for(gpus, [(load, work, gpus if wide else 1) for load, work, wide in prices])
    dealt, impossible = dealt_over(plan, there)
    if there >= gpus:
        assert dealt is plan and not impossible
        return
    assert set(impossible) == {m.name for m in plan.members if 0 < there < m.cost.gpus}
    devices = max(1, there)
    shown = dealt.model_copy(update={"target": PlanTarget(name="big", gpus=there)})
    assert first_fault_of(shown) is None
    able = [m for m in plan.members if m.name not in impossible]
    loads = [Load((m.name,), m.cost.load_seconds, m.predicted_seconds - m.cost.load_seconds) for m in able]
    ends = max((job.end_seconds for job in dealt.schedule if not impossible.keys() & set(job.members)), default=0)
    assert ends == pytest.approx(plan.overhead_seconds + makespan(loads, devices) if loads else 0)


def test_a_plan_for_three_gpus_is_carried_out_on_one(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    members = [member(place, f"good.{name}@ab-512") for name in "abc"]
    jobs = [Job(members=(m.name,), devices=(d,), start_seconds=0, end_seconds=1) for d, m in enumerate(members)]
    plan = make_plan(place, members, jobs, gpus=3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    done = run(place, plan)
    assert done.patterns == {" + ".join(m.name for m in members): ROWS - 1, "prior": 1}
    told = capfd.readouterr().err
    assert "the plan is for 3 GPUs of cpu, 1 visible here: its jobs are dealt over these" in told
    assert told.index("3 GPUs") < told.index("started on")


def test_a_member_that_takes_more_gpus_than_there_are_is_left_out(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = member(place, "good.wide@ab-512")
    wide = wide.model_copy(update={"cost": wide.cost.model_copy(update={"gpus": 2})})
    narrow = member(place, "good@ab-512")
    jobs = [
        Job(members=(narrow.name,), devices=(0,), start_seconds=0, end_seconds=1),
        Job(members=(wide.name,), devices=(0, 1), start_seconds=1, end_seconds=2),
    ]
    plan = make_plan(place, [narrow, wide], jobs, gpus=2)
    assert load_plan(plan)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    done = run(place, plan)
    assert "one copy takes 2 GPUs, 1 visible here" in outcome(done, wide.name)
    assert done.patterns == {narrow.name: ROWS - 1, "prior": 1}
