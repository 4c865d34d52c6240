"""Members that are slow, hung, deaf to signals, dying or wrong in what they write: a whole file, in time, every time."""

from __future__ import annotations

from pathlib import Path

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


def test_members_that_lie_are_in_no_row(place: Path) -> None:
    wrong = {
        "nan@ab-512": "NaN",
        "unsummed@ab-512": "do not sum to 1",
        "stranger@ab-512": "not in the battles",
        "doubling@ab-512": "in another chunk too",
        "garbage@ab-512": "not a score table",
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
