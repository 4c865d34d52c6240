"""Whole predictions: every usable row from every member, what was paid for, and the same command going on."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from ensemble.plan import FEATURES, Gate, Job
from tests.helpers.clocks import Clock
from tests.helpers.plans import PRIOR
from tests.helpers.predictions import (
    BAD_ROW,
    BUDGET,
    ROWS,
    allow,
    check_file,
    chunks,
    make_plan,
    member,
    outcome,
    run,
    start_predict,
)
from tests.helpers.waiting import wait_until
from zoo.contracts import without_paths
from zoo.errors import ZooError


def test_good_members_score_every_usable_row_and_the_bad_one_gets_the_prior(place: Path) -> None:
    done = run(place, make_plan(place, [member(place, "good.a@ab-512"), member(place, "good.b@ba-512")]))
    assert done.patterns == {"good.a@ab-512 + good.b@ba-512": ROWS - 1, "prior": 1}
    assert done.log_loss == pytest.approx(-np.log(0.8))
    assert [m.log_loss for m in done.members] == pytest.approx([-np.log(0.8)] * 2)
    assert done.bad_rows == 1 and not done.stopped_by
    assert check_file(place / "out.csv")[int(BAD_ROW)] == pytest.approx(PRIOR)


def test_without_time_the_prior_is_written(place: Path) -> None:
    long = member(place, "good@ab-512")
    long = long.model_copy(update={"cost": long.cost.model_copy(update={"load_seconds": 2 * BUDGET})})
    done = run(place, make_plan(place, [long]))
    assert done.patterns == {"prior": ROWS}
    assert np.allclose(check_file(place / "out.csv"), PRIOR)


def test_a_member_that_cannot_even_load_in_time_is_skipped(place: Path) -> None:
    late = member(place, "good.late@ab-512")
    late = late.model_copy(update={"cost": late.cost.model_copy(update={"load_seconds": 2 * BUDGET})})
    done = run(place, make_plan(place, [member(place, "good@ab-512"), late]))
    assert "loading alone takes" in outcome(done, "good.late@ab-512")
    assert done.patterns == {"good@ab-512": ROWS - 1, "prior": 1}


def test_variants_in_one_job_share_a_process_and_replicas_share_the_rows(place: Path) -> None:
    pair = [member(place, "good@ab-512"), member(place, "good@ba-512")]
    other = member(place, "good.split@ab-512")
    jobs = [
        Job(members=("good@ab-512", "good@ba-512"), devices=(0,), start_seconds=0, end_seconds=1),
        *(
            Job(
                members=(other.name,),
                devices=(d,),
                replica=d,
                replicas=2,
                row_share=0.5,
                phase=1,
                start_seconds=1,
                end_seconds=2,
            )
            for d in (0, 1)
        ),
    ]
    done = run(place, make_plan(place, [*pair, other], jobs, gpus=2))
    assert done.patterns == {"good@ab-512 + good@ba-512 + good.split@ab-512": ROWS - 1, "prior": 1}
    launches = sorted(p.parent for p in (place / "home" / "predict").rglob("launches"))
    assert len(launches) == 3
    halves = [set((folder / "ids.txt").read_text().split()) for folder in launches[1:]]
    assert not halves[0] & halves[1] and len(halves[0] | halves[1]) == ROWS - 1
    assert abs(len(halves[0]) - len(halves[1])) <= 1


@pytest.mark.parametrize(("row_seconds", "expected"), [(120.0, 5), (0.001, 10)])
def test_a_gate_gives_the_rows_that_gain_most_and_more_of_them_where_time_is_left(
    place: Path, row_seconds: float, expected: int
) -> None:
    """The gate likes long rows (i % 7 of 5 and 6 gain anything, 10 rows); the plan pays for 5 of 39."""
    weights = tuple(float(name == "log_characters") for name in FEATURES)
    shortest = float(np.log1p(4 * 5.5 + 5))
    center = tuple(shortest if name == "log_characters" else 0.0 for name in FEATURES)
    cheap = ("good.cheap@ab-512",)
    gate = Gate(features=FEATURES, center=center, scale=(1.0,) * 9, coefficients=weights, intercept=0.0, given=cheap)
    members = [
        member(place, cheap[0]),
        member(place, "good.dear@ab-512", row_seconds=row_seconds, coverage=5 / 39, gate=gate),
    ]
    jobs = [Job(members=(m.name,), devices=(0,), phase=i, start_seconds=i, end_seconds=i + 1) for i, m in enumerate(members)]
    done = run(place, make_plan(place, members, jobs))
    assert done.patterns == {"good.cheap@ab-512 + good.dear@ab-512": expected, cheap[0]: ROWS - 1 - expected, "prior": 1}
    (asked,) = (path for path in (place / "home" / "predict").rglob("job-01/*/ids.txt"))
    lengths = [1 + int(i) % 7 for i in asked.read_text().split()]
    assert lengths == sorted(lengths, reverse=True) and lengths[:5] == [7] * 5


def test_the_same_command_goes_on_and_scores_no_row_twice(place: Path, clock: Clock) -> None:
    plan = make_plan(place, [member(place, "held@ab-512", row_seconds=BUDGET / 20)])
    allow(place, 2)
    clock.passes = lambda: len(chunks(place)) == 2
    first = run(place, plan)
    assert first.patterns == {"held@ab-512": 20, "prior": ROWS - 20}
    allow(place, ROWS)
    clock.passes, clock.seconds = lambda: False, 0
    second = run(place, plan)
    assert second.patterns == {"held@ab-512": ROWS - 1, "prior": 1}
    (scored,) = (place / "home" / "predict").rglob("scored")
    assert sorted(scored.read_text().split(), key=int) == [str(i) for i in range(ROWS - 1)]
    assert run(place, plan).patterns == second.patterns
    assert len(scored.read_text().split()) == ROWS - 1


def test_a_liar_is_asked_again_by_the_same_command(place: Path) -> None:
    plan = make_plan(place, [member(place, "nan@ab-512")])
    assert "NaN" in outcome(run(place, plan), "nan@ab-512")
    script = place / "stand_in"
    script.write_text(script.read_text().replace('kind == "nan"', "False"))
    assert run(place, plan).patterns == {"nan@ab-512": ROWS - 1, "prior": 1}


def test_a_checkpoint_that_is_nowhere_is_said_before_anything_runs(place: Path) -> None:
    plan = make_plan(place, [member(place, "good@ab-512")])
    (place / "home" / "store" / "fake-good" / "manifest.json").unlink()
    with pytest.raises(ZooError, match="checkpoint good is neither in"):
        run(place, plan)


def test_a_request_without_a_path_is_not_taken_for_the_folder_it_runs_in(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = member(place, "good@ab-512")
    plan = make_plan(place, [planned.model_copy(update={"request": without_paths(planned.request)})])
    assert run(place, plan).patterns == {"good@ab-512": ROWS - 1, "prior": 1}
    (place / "home" / "store" / "fake-good" / "manifest.json").rename(place / "manifest.json")
    shutil.rmtree(place / "home" / "predict")  # what it scored would do without the checkpoint
    monkeypatch.chdir(place)
    with pytest.raises(ZooError, match=r"checkpoint good is not in .*ZOO_HOME"):
        run(place, plan)


def test_two_predictions_of_the_same_do_not_work_side_by_side(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ensemble.predict.run.LOCK_PATIENCE_SECONDS", 0.0)
    plan = make_plan(place, [member(place, "hung@ab-512")])
    process = start_predict(place, plan)
    wait_until(lambda: chunks(place), "a finished chunk", process)
    with pytest.raises(ZooError, match=f"process {process.pid} is predicting .*: kill {process.pid}"):
        run(place, plan)
    assert np.isclose(check_file(place / "out.csv").max(axis=1), 0.8).sum() == 10  # no worse than what the other has
    process.send_signal(signal.SIGTERM)
    assert process.communicate() and process.returncode == 0
    assert os.path.exists(place / "out.csv")  # noqa: PTH110
