"""Plans edited by hand: each is refused in one line, or gives a valid submission, on the GPUs of its target and on fewer."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ensemble.plan import (
    FEATURES,
    LENGTH_FEATURES,
    TREE_FEATURES,
    End,
    FittingRows,
    Gate,
    HeldGroup,
    Job,
    Plan,
    PlanTarget,
    Pool,
    Robust,
    load_plan,
)
from ensemble.pools.blend import RIDGED_LOGISTIC, BlendSpec, fit_blend
from ensemble.predict.attempts import Setting
from ensemble.predict.board import Board, Submission
from ensemble.predict.conductor import Conductor
from ensemble.predict.deadline import Deadline
from ensemble.predict.devices import dealt_over
from ensemble.predict.job import JobRun
from ensemble.predict.workplace import Workplace
from tests.helpers.plans import plan_member, plan_of, plan_pool
from tests.helpers.shifts import SUMMARY, calibration
from zoo.contracts import Input
from zoo.errors import ZooError
from zoo.scores.tables import probabilities, read_submission, score_table

NAMES = ("cheap@ab", "split@ab", "dear@ab")
IDS = tuple(str(i) for i in range(20))
WITH_LENGTHS = (*TREE_FEATURES, *LENGTH_FEATURES)


def geometric_pool() -> Pool:
    """The geometric mean of a second-order pool and of trees, of all members."""
    rng = np.random.default_rng(0)
    odds = rng.normal(size=(len(NAMES), 500, 3))
    y = (odds.mean(axis=0) + rng.gumbel(size=(500, 3))).argmax(axis=1)
    trees = BlendSpec("trees", parts=(RIDGED_LOGISTIC,), tree_rounds=(1, 1))
    second = BlendSpec("second_order", 0.01, floor=1e-2)
    spec = BlendSpec("geometric", parts=(second, trees), part_weights=(0.5, 0.5))
    blend = fit_blend(spec, NAMES, np.exp(odds) / np.exp(odds).sum(axis=2, keepdims=True), y)
    return Pool(members=NAMES, blend=blend, log_loss=0.8)


def valid() -> dict[str, Any]:
    """A plan with whatever a plan may have: a gate, replicas, two phases, every pool kind, a planned pool, ...."""
    gate = Gate(
        features=FEATURES, center=(0.1,) * 9, scale=(1.0,) * 9, coefficients=(0.2,) * 9, intercept=0.01, given=NAMES[:2]
    )
    members = [
        *(plan_member(name, weight=0.4) for name in NAMES[:2]),
        plan_member(NAMES[2], weight=0.2, coverage=0.5, gate=gate),
    ]
    pools = [
        geometric_pool(),
        plan_pool(NAMES[:2], 0.85, "log", planned=True),
        plan_pool(NAMES[:2], 0.9, "linear", temperature=1.2),
        plan_pool(NAMES[:1], 1.0),
        plan_pool(NAMES[::2], 0.8, "logistic"),
    ]
    halves = [
        Job(members=NAMES[1:2], devices=(d,), replica=d, replicas=2, row_share=0.5, start_seconds=1, end_seconds=2)
        for d in (0, 1)
    ]
    schedule = (
        Job(members=NAMES[:1], devices=(0,), start_seconds=0, end_seconds=1),
        *halves,
        Job(members=NAMES[2:], devices=(0, 1), phase=1, start_seconds=2, end_seconds=3),
    )
    beside = {
        "calibration": calibration(temperature=1.5, tie_bias=0.2, equal_share=0.3),
        "fitting": FittingRows(
            summary=SUMMARY, ends=(End(feature="tie", end="low", rows=9, cost=0.1, cost_se=0.1),), known="AAAA"
        ),
        "robust": Robust(column="c", by="mean", groups=(HeldGroup(name="x", rows=9, log_loss=1.0, log_loss_se=0.1),)),
    }
    plan = plan_of(members, pools, target=PlanTarget(name="pair", gpus=2), schedule=schedule, **beside)
    return json.loads(plan.model_dump_json())  # type: ignore[no-any-return]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value of a JSON document lies, containers too."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inside for place in places(item, (*path, key)))]


PLACES = [place for place in places(valid()) if place]
CHANGES = st.sampled_from(["put", "put", "delete", "double", "swap"])
ODD = st.one_of(
    st.sampled_from([0, -1, 1, 2, 0.5, 1e-300, 1e18, 1e308, -0.3, float("inf"), float("nan"), 10**400, True, None, "", "x"]),
    st.sampled_from([*NAMES, "nobody@ab", "../..", "*", [], {}, [[]], "a\nb"]),
    st.floats(),
    st.integers(-3, 100),
)


def mutated(plan: dict[str, Any], place: tuple[Any, ...], change: str, value: Any) -> None:
    holder: Any = plan
    for key in place[:-1]:
        if not isinstance(holder, dict | list) or (isinstance(holder, list) and key >= len(holder)):
            return
        holder = holder[key] if isinstance(holder, list) else holder.get(key)
    if not isinstance(holder, dict | list) or (isinstance(holder, list) and place[-1] >= len(holder)):
        return
    if change == "delete":
        holder.pop(place[-1], None) if isinstance(holder, dict) else holder.pop(place[-1])
    elif change == "double" and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[place[-1]]))
    elif change == "swap" and isinstance(holder, list):
        holder.reverse()
    else:
        holder[place[-1]] = value


def hand_in(run: JobRun, rows: np.ndarray, work: object, pace: object, now: float) -> None:
    """In place of a process: each member's table at once."""
    run.rows, run.status, run.ended = rows, "ended", now
    for member in run.members:
        run.board.add(member.name, score_table([IDS[row] for row in rows], np.tile((0.7, 0.1, 0.2), (len(rows), 1))))


def predicted(plan: Plan, folder: Path, gpus: int) -> np.ndarray:
    """What `ensemble predict` does with a plan but for reading battles and starting processes: the file (rows, 3)."""
    board = Board(IDS, [member.name for member in plan.members])
    deadline = Deadline(plan.budget_seconds, time.monotonic())
    dealt, impossible = dealt_over(plan, gpus)
    setting = Setting(Input(fingerprint="0"), folder, Workplace(folder, str))
    usable = np.ones(len(IDS), dtype=bool)
    conductor = Conductor(dealt, board, np.arange(20.0) * 50, usable, setting, deadline, given={}, say=str)
    for run in conductor.runs:
        if impossible.keys() & set(run.job.members):
            run.skip("impossible", 0.0)
    conductor.predicted_seconds()
    for _ in range(20):
        if not conductor.finished:
            conductor.tick()
    assert conductor.finished
    submission = Submission(folder / "submission.csv", plan, board, deadline)
    submission.write(conductor.planned)
    return probabilities(read_submission(submission.output).set_index("id").loc[list(IDS)])


def refused_or_predicted(raw: Any, folder: Path, gpus: int) -> str | None:
    """Why a plan is refused, in one line; None where its submission is valid, which reading it has checked."""
    path = folder / "plan.json"
    path.write_text(raw if isinstance(raw, str) else json.dumps(raw))
    try:
        plan = load_plan(path)
        predicted(plan, folder, gpus)
    except ZooError as refused:
        assert "\n" not in str(refused)
        return str(refused)
    return None


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobRun, "start", hand_in)


def test_the_plan_that_is_edited_is_valid(instant: None, tmp_path: Path) -> None:
    assert [refused_or_predicted(valid(), tmp_path, gpus) for gpus in (2, 1, 0)] == [None] * 3


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), st.sampled_from(["put", "put", "delete", "double", "swap"]), ODD),
        min_size=1,
        max_size=3,
    ),
    st.integers(0, 2),
)
def test_an_edited_plan_is_refused_or_gives_a_valid_submission(instant, tmp_path_factory, edits, gpus) -> None:
    raw = valid()
    for place, change, value in edits:
        mutated(raw, place, change, value)
    refused_or_predicted(raw, tmp_path_factory.getbasetemp(), gpus)


def part(plan: dict[str, Any], place: int) -> dict[str, Any]:
    return plan["pools"][0]["blend"]["parts"][place]  # type: ignore[no-any-return]


def tree(plan: dict[str, Any]) -> dict[str, Any]:
    return part(plan, 1)["trees"]["lead"][0]  # type: ignore[no-any-return]


def edit(change: Callable[..., object]) -> dict[str, Any]:
    raw = valid()
    change(raw)
    return raw


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda p: p["schedule"][0].update(members=["nobody@ab"]), "schedule.0.members: 'nobody@ab' is not a member"),
        (lambda p: p["schedule"].pop(0), "cheap@ab is in no job"),
        (lambda p: p["schedule"].append(p["schedule"][0]), "replicas are numbered from 0"),
        (lambda p: p["schedule"][1].update(row_share=0.9), "row shares of its replicas sum to 1.4"),
        (lambda p: (p["schedule"][1].update(phase=1), p["schedule"][3].update(phase=2)), "replicas are of different phases"),
        (lambda p: p["schedule"][0].update(devices=[2]), "devices: 2 is none of the 2 of pair"),
        (lambda p: p["schedule"][0].update(devices=[]), "devices: at least one"),
        (lambda p: p["schedule"][0].update(end_seconds=0, start_seconds=1), "end_seconds: before its start"),
        (lambda p: p["schedule"][3].update(phase=0), "not before phase 0 of this member"),
        (lambda p: p["pools"][3].update(members=["nobody@ab"]), "pools.3.members: 'nobody@ab' is not a member"),
        (lambda p: p["pools"][3]["blend"].update(members=["dear@ab"]), "pools.3.blend.members: not the pool's own"),
        (lambda p: p["pools"].pop(0), "none of all members"),
        (lambda p: p["pools"][3]["blend"].update(weights=[-1.0]), "shares that sum to 1, not to -1"),
        (lambda p: p["pools"][3]["blend"].update(least=[0.5, 0.5, 0.0]), "leave something to the blend are wanted, not 1"),
        (lambda p: p["pools"][2]["blend"].update(temperature=0), "pools.2.blend.temperature"),
        (lambda p: p["pools"][2]["blend"].update(temperatures=[0, 1]), "pools.2.blend.temperatures.0"),
        (lambda p: p["pools"][2].update(log_loss=float("inf")), "pools.2.log_loss"),
        (lambda p: p["pools"][2]["blend"].update(pool="trees"), "trees belong to pools of that kind"),
        (lambda p: part(p, 0).update(members=[*NAMES[::-1]]), "blend.parts.0: its members and ties are not those of the whole"),
        (lambda p: part(p, 0)["products"].update(members=["nobody@ab"] * 3), "parts.0.products.members: some of the blend's"),
        (lambda p: part(p, 0)["products"]["odd"].pop(), "parts.0.products.odd: 3 rows of 3 numbers"),
        (lambda p: part(p, 0)["products"]["lead_scale"].pop(), "parts.0.products.lead_scale: one number for each"),
        (lambda p: part(p, 1)["trees"].update(n_features=7), "parts.1.trees.n_features: of 3 members this version reads 11"),
        (lambda p: part(p, 1)["trees"].update(reads=["lead"]), "parts.1.trees.reads: this version knows lead, "),
        (lambda p: part(p, 1)["trees"].update(reads=[*WITH_LENGTHS]), "trees.n_features: of 3 members this version reads 14"),
        (lambda p: tree(p)["features"].__setitem__(0, 11), "trees.lead.0: features are numbered from 0 to 10"),
        (lambda p: tree(p)["values"].pop(), "trees.lead.0: as many thresholds"),
        (lambda p: tree(p)["left"].__setitem__(0, 0), "trees.lead.0: every node but the first"),
        (lambda p: p["members"][2]["gate"].update(given=["nobody@ab"]), "gate.given: 'nobody@ab' is not a member"),
        (lambda p: p["members"][2]["gate"].update(features=["entropy"]), "gate.features: this version knows"),
        (lambda p: p["members"][2]["gate"]["scale"].__setitem__(0, 0), "gate.scale: must be more than zero"),
        (lambda p: p["members"][0].update(coverage=0.5), "without a gate"),
        (lambda p: p["members"][0].update(checkpoint="../*"), "is no fingerprint"),
        (lambda p: p["members"][0]["tokens"].update(cap=0), "tokens.cap"),
        (lambda p: p.update(prior=[0.5, 0.7, -0.2]), "prior: three shares"),
        (lambda p: p.update(prior=[0.5, 0.5, 0.5]), "prior: three shares"),
        (lambda p: p.update(budget_seconds=1e300), "budget_seconds: no number of a plan is beyond"),
        (lambda p: p.update(budget_seconds=0), "budget_seconds: must be more than zero"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(instant, tmp_path: Path, change: Callable[..., object], told: str) -> None:
    refused = refused_or_predicted(edit(change), tmp_path, 2)
    assert refused is not None and told in refused and refused.startswith(f"{tmp_path / 'plan.json'}: ")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "9" * 5000, "null", "[]", '{"schema_version": 2}'])
def test_what_is_no_plan_at_all_is_refused_in_one_line(instant, tmp_path: Path, text: str) -> None:
    assert refused_or_predicted(text, tmp_path, 2)
