"""Members that are slow, hung, deaf to signals, dying or wrong in what they write: a whole file, in time, every time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from ensemble.plan import Job
from tests.helpers.clocks import Clock
from tests.helpers.predictions import BUDGET, ROWS, allow, chunks, make_plan, member, outcome, run
from tests.helpers.waiting import is_alive, wait_until


def test_late_members_keep_their_finished_rows_and_end_with_the_deadline(place: Path, clock: Clock) -> None:
    """One that is slower than planned, one that hangs and one that hears no SIGTERM; more silence than this is no fault yet."""
    late = [member(place, f"{kind}@ab-512", row_seconds=BUDGET / 20) for kind in ("held", "hung", "deaf")]
    allow(place, 2)
    clock.passes = lambda: len(chunks(place)) == 4
    jobs = [Job(members=(m.name,), devices=(d,), start_seconds=0, end_seconds=1) for d, m in enumerate(late)]
    done = run(place, make_plan(place, late, jobs, gpus=3))
    assert [m.rows for m in done.members] == [20, 10, 10]
    assert all("rows to go" in m.note for m in done.members)
    assert done.patterns == {"held@ab-512 + hung@ab-512 + deaf@ab-512": 10, "held@ab-512": 10, "prior": ROWS - 20}
    (child,) = (place / "home" / "predict").rglob("child")
    wait_until(lambda: not is_alive(int(child.read_text())), "the end of what a deaf member had started")


def test_a_hung_member_makes_way_for_the_next(place: Path, clock: Clock) -> None:
    clock.passes = lambda: chunks(place) and not list(place.rglob("job-01"))
    done = run(place, make_plan(place, [member(place, "hung@ab-512"), member(place, "good@ab-512")]))
    assert "taken for hung" in outcome(done, "hung@ab-512")
    assert done.patterns == {"hung@ab-512 + good@ab-512": 10, "good@ab-512": ROWS - 11, "prior": 1}
    assert done.used_seconds < BUDGET / 2


def test_members_that_die_keep_their_finished_rows(place: Path) -> None:
    names = ("dying@ab-512", "killed@ab-512", "good@ab-512")
    done = run(place, make_plan(place, [member(place, name) for name in names]))
    assert "out of memory" in outcome(done, "dying@ab-512")
    assert "SIGKILL" in outcome(done, "killed@ab-512")
    assert done.patterns == {" + ".join(names): 20, "good@ab-512": ROWS - 21, "prior": 1}


def test_a_member_that_dies_once_is_started_again_and_scores_the_rest(place: Path) -> None:
    done = run(place, make_plan(place, [member(place, "mortal@ab-512")]))
    assert done.patterns == {"mortal@ab-512": ROWS - 1, "prior": 1} and done.exit_code == 0
    assert "started once more: " in outcome(done, "mortal@ab-512") and "SIGKILL" in outcome(done, "mortal@ab-512")
    (launches,) = place.rglob("launches")
    assert launches.read_text().split() == ["started"] * 2
    (scored,) = place.rglob("scored")
    assert sorted(scored.read_text().split(), key=int) == [str(i) for i in range(ROWS - 1)]


def test_a_member_that_dies_again_is_not_started_a_third_time(place: Path) -> None:
    done = run(place, make_plan(place, [member(place, "killed@ab-512")]))
    assert done.patterns == {"killed@ab-512": 20, "prior": ROWS - 20}
    (launches,) = place.rglob("launches")
    assert launches.read_text().split() == ["started"] * 2


def test_a_member_that_dies_when_its_time_is_over_is_not_started_again(place: Path, clock: Clock) -> None:
    """It dies after the clock has gone on, and not before; loading it again would take half the budget.

    Rows are expected to take so long that its silence until then is no fault.
    """
    slow = member(place, "doomed@ab-512", row_seconds=BUDGET / 20)
    slow = slow.model_copy(update={"cost": slow.cost.model_copy(update={"load_seconds": BUDGET / 2})})
    allow(place, 1)

    def goes_on() -> bool:
        if found := bool(chunks(place)):
            allow(place, 3)
        return found

    clock.step, clock.until, clock.passes = BUDGET * 0.6, BUDGET * 0.6, goes_on
    done = run(place, make_plan(place, [slow]))
    assert "SIGKILL" in outcome(done, slow.name) and "not started again: loading alone takes" in outcome(done, slow.name)
    (launches,) = place.rglob("launches")
    assert launches.read_text().split() == ["started"]


def test_a_prediction_to_which_no_member_contributed_says_so_last_and_loudly(place: Path) -> None:
    done = run(place, make_plan(place, [member(place, "nan@ab-512")]))
    assert done.exit_code == 3 and done.last_line.startswith("NO MEMBER CONTRIBUTED")
    good = run(place, make_plan(place, [member(place, "good@ab-512")]))
    assert good.exit_code == 0 and not good.last_line


def test_what_a_member_s_folder_raises_leaves_out_that_member_alone(place: Path) -> None:
    """Its folder is a file, and so is its attempt's: nothing can be written or read there."""
    plan = make_plan(place, [member(place, "good@ab-512"), member(place, "good.other@ab-512")])
    (folder,) = {done.report.parent for done in [run(place, plan)]}
    shutil.rmtree(folder / "job-00")
    (folder / "job-00").write_text("not a folder")
    done = run(place, plan)
    assert "cannot be started" in outcome(done, "good@ab-512")
    assert done.patterns == {"good.other@ab-512": ROWS - 1, "prior": 1}


def test_a_damaged_table_of_an_earlier_run_costs_its_own_rows_alone(place: Path) -> None:
    plan = make_plan(place, [member(place, "good@ab-512")])
    first = run(place, plan)
    (scored,) = place.rglob("scored")
    tables = sorted(chunks(place))
    tables[1].write_bytes(tables[1].read_bytes()[:-20])
    frame = pd.read_parquet(tables[2])
    frame.loc[0, "p_a"] = -0.2
    frame.to_parquet(tables[2], index=False)
    done = run(place, plan)
    assert done.patterns == first.patterns and done.log_loss == pytest.approx(first.log_loss)
    again = scored.read_text().split()[ROWS - 1 :]
    assert again == [str(i) for i in range(10, 30)]
    assert len(list(place.rglob("*.rejected-0"))) == 2


def test_members_that_lie_are_in_no_row(place: Path) -> None:
    wrong = {
        "nan@ab-512": "NaN",
        "unsummed@ab-512": "do not sum to 1",
        "stranger@ab-512": "not in the battles",
        "doubling@ab-512": "in another chunk too",
        "garbage@ab-512": "not a score table",
        "unasked@ab-512": "not asked for",
    }
    done = run(place, make_plan(place, [member(place, name) for name in (*wrong, "good@ab-512")]))
    for name, said in wrong.items():
        assert said in outcome(done, name)
    assert done.patterns == {"good@ab-512": ROWS - 1, "prior": 1}
    assert done.used == ("good@ab-512",)


def test_rows_that_a_stage_refuses_get_the_blend_without_it(place: Path) -> None:
    done = run(place, make_plan(place, [member(place, "refusing@ab-512"), member(place, "good@ab-512")]))
    assert done.patterns == {"refusing@ab-512 + good@ab-512": 20, "good@ab-512": 19, "prior": 1}
    assert next(m.refused_rows for m in done.members if m.name == "refusing@ab-512") == 19
