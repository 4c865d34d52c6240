"""Predictions with members that are slow, hung, deaf, dying or lying: a whole file, in time, every time.

The stage `score` runs with an interpreter of the user's choice; here that is a script which honours the contract of a scoring
stage (chunk files, atomically, in the order listed) and misbehaves by the name of its entry. It knows the truth: id modulo 3.
"""

from __future__ import annotations

import datetime
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from ensemble.plan import Blend, Gate, Job, Plan, PlanMember, PlanTarget, Pool, save_plan
from ensemble.pools.gate import FEATURES
from ensemble.predict.outcome import Prediction
from ensemble.predict.run import predict
from zoo.contracts import Cost, Held, Input, PromptSpec, ScoreRequest, ScoreSpec, Variant
from zoo.errors import ZooError
from zoo.scores.tables import read_submission

PRIOR = (0.4, 0.35, 0.25)
ROWS = 40
BAD_ROW = "39"

STAND_IN = """
import json, os, signal, subprocess, sys, time
import pyarrow, pyarrow.parquet

request, out = json.load(open(sys.argv[4])), sys.argv[5]
kind, rows = request["entry"].split(".")[0], request["spec"]["chunk_rows"]
ids = open(request["selection"]["ids"]["path"]).read().split()
with open(os.path.join(out, "launches"), "a") as log:
    log.write("started\\n")
if kind == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    with open(os.path.join(out, "child"), "w") as file:
        file.write(str(subprocess.Popen([sys.executable, "-c", child]).pid))


def table(part):
    p = [[0.8 if int(i) % 3 == label else 0.1 for i in part] for label in range(3)]
    status = ["ok"] * len(part)
    if kind == "nan":
        p[0][0] = float("nan")
    if kind == "unsummed":
        p[1] = [2 * value for value in p[1]]
    if kind == "stranger":
        part = ["x" + i for i in part]
    if kind == "refusing":
        for n, i in enumerate(part):
            if int(i) % 2:
                status[n], p[0][n], p[1][n], p[2][n] = "refused: too long", *[float("nan")] * 3
    zeros = [0] * len(part)
    columns = {"id": part, "fold": [-1] * len(part), "p_a": p[0], "p_b": p[1], "p_tie": p[2]}
    return pyarrow.table({**columns, "n_tokens": zeros, "n_truncated_tokens": zeros, "status": status})


for number, start in enumerate(range(0, len(ids), rows)):
    for variant in request["spec"]["variants"]:
        folder = os.path.join(out, variant["order"] + "-%d" % variant["max_tokens"], "chunks")
        os.makedirs(folder, exist_ok=True)
        file = os.path.join(folder, "%05d.parquet" % number)
        if os.path.exists(file):
            continue
        with open(os.path.join(out, "scored"), "a") as log:
            log.write("\\n".join(ids[start : start + rows]) + "\\n")
        part = ids[:rows] if kind == "doubling" else ids[start : start + rows]
        pyarrow.parquet.write_table(table(part), file + ".tmp")
        if kind == "garbage":
            open(file + ".tmp", "wb").write(b"PAR1 not a table")
        os.rename(file + ".tmp", file)
    if kind in ("slow", "late"):
        time.sleep(0.7 if kind == "slow" else 3)
    if kind in ("hung", "deaf"):
        time.sleep(60)
    if kind == "dying" and number == 1:
        json.dump({"message": "out of memory", "known": False}, open(os.path.join(out, "error.json"), "w"))
        sys.exit(1)
    if kind == "killed" and number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose `score` stage is the stand-in, and a labelled file of battles with one bad row."""
    script = tmp_path / "stand_in"
    script.write_text(f"#!{sys.executable}\n{STAND_IN}")
    script.chmod(0o755)
    (tmp_path / "settings.toml").write_text(f'[environments]\nscore = "{script}"\n')
    monkeypatch.setenv("ZOO_SETTINGS", str(tmp_path / "settings.toml"))
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    lines = ["id,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie"]
    for i in range(ROWS):
        winner = ",".join("1" if i % 3 == label else "0" for label in range(3))
        prompt = "not json" if str(i) == BAD_ROW else '"[""' + "why " * (1 + i % 7) + '""]"'
        lines.append(f'{i},{prompt},"[""yes""]","[""no""]",{winner}')
    (tmp_path / "battles.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def member(
    place: Path, name: str, *, row_seconds: float = 0.001, coverage: float = 1.0, gate: Gate | None = None
) -> PlanMember:
    entry, _, slug = name.partition("@")
    checkpoint = entry.replace(".", "-")
    folder = place / "home" / "store" / f"fake-{checkpoint}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text("{}")
    variant = Variant(order=slug[:2], max_tokens=int(slug[3:]))
    request = ScoreRequest(
        entry=entry,
        model=Input(path=Path("/elsewhere"), fingerprint=checkpoint),
        battles=Input(path=Path("/gone/train.csv"), fingerprint="0"),
        held=Held(),
        prompt=PromptSpec(template="{prompt}{response_a}{response_b}"),
        spec=ScoreSpec(variants=(variant,), chunk_rows=10),
        target="cpu",
    )
    return PlanMember(
        name=name,
        entry=entry,
        variant=variant,
        weight=1.0,
        coverage=coverage,
        predicted_seconds=0.2 + ROWS * row_seconds,
        oof_log_loss=1.0,
        checkpoint=checkpoint,
        cost=Cost(target="cpu", load_seconds=0.2, seconds_per_row=row_seconds, gpus=0),
        gate=gate,
        request=request.model_dump(mode="json"),
    )


def pool(names: tuple[str, ...], *, planned: bool = False) -> Pool:
    count = len(names)
    blend = Blend(pool="linear", members=names, weights=(1 / count,) * count, temperatures=(1.0,) * count)
    return Pool(members=names, planned=planned, blend=blend, log_loss=1.0 - 0.1 * count)


def make_plan(place: Path, members: list[PlanMember], jobs: list[Job] | None = None, *, gpus: int = 0) -> Path:
    names = [m.name for m in members]
    jobs = jobs or [Job(members=(n,), devices=(0,), start_seconds=float(i), end_seconds=i + 1.0) for i, n in enumerate(names)]
    subsets = [subset for k in range(1, len(names) + 1) for subset in itertools.combinations(names, k)]
    plan = Plan(
        created_at=datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC),
        target=PlanTarget(name="cpu", gpus=gpus),
        budget_seconds=60,
        margin=1.5,
        margin_reason="test",
        predicted_seconds=sum(m.predicted_seconds for m in members),
        overhead_seconds=0.1,
        rows=ROWS,
        dataset_digest="0",
        fitted_rows=100,
        oof_log_loss=0.9,
        oof_log_loss_se=0.01,
        prior=PRIOR,
        members=tuple(members),
        pools=tuple(pool(subset) for subset in subsets),
        schedule=tuple(jobs),
    )
    save_plan(plan, place / "plan.json")
    return place / "plan.json"


def run(place: Path, plan: Path, budget: float, **options: object) -> Prediction:
    """Predict, and check what must hold whatever the members do."""
    started = time.monotonic()
    done = predict(plan, place / "battles.csv", place / "out.csv", started_at=started, budget_seconds=budget, **options)
    assert time.monotonic() - started < budget
    check_file(place / "out.csv")
    assert sum(done.patterns.values()) == ROWS
    assert json.loads(done.report.read_text())["patterns"] == done.patterns
    return done


def check_file(path: Path) -> np.ndarray:
    frame = read_submission(path)  # checks the columns, that rows sum to 1, and that nothing is NaN or negative
    assert frame["id"].tolist() == [str(i) for i in range(ROWS)]
    assert not [p.name for p in path.parent.iterdir() if p.name.endswith(".tmp")]
    return frame[["p_a", "p_b", "p_tie"]].to_numpy()


def outcome(done: Prediction, name: str) -> str:
    return next(m.note for m in done.members if m.name == name)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_good_members_score_every_usable_row_and_the_bad_one_gets_the_prior(place: Path) -> None:
    done = run(place, make_plan(place, [member(place, "good.a@ab-512"), member(place, "good.b@ba-512")]), 20)
    assert done.patterns == {"good.a@ab-512 + good.b@ba-512": ROWS - 1, "prior": 1}
    assert done.log_loss == pytest.approx(-np.log(0.8))
    assert [m.log_loss for m in done.members] == pytest.approx([-np.log(0.8)] * 2)
    assert done.bad_rows == 1 and done.used_seconds < 20 and not done.stopped_by
    assert check_file(place / "out.csv")[int(BAD_ROW)] == pytest.approx(PRIOR)


def test_late_members_keep_their_finished_rows_and_end_with_the_deadline(place: Path) -> None:
    late = [member(place, f"{kind}@ab-512", row_seconds=0.3) for kind in ("late", "hung", "deaf")]
    jobs = [Job(members=(m.name,), devices=(d,), start_seconds=0, end_seconds=1) for d, m in enumerate(late)]
    done = run(place, make_plan(place, late, jobs, gpus=3), 8)
    for m in done.members:
        assert 10 <= m.rows < ROWS - 1 and m.rows % 10 == 0
        assert "rows to go" in m.note
    assert done.patterns["late@ab-512 + hung@ab-512 + deaf@ab-512"] == 10
    (child,) = (place / "home" / "predict").rglob("child")
    wait_for(lambda: not alive(int(child.read_text())), 2)
    assert not alive(int(child.read_text()))


def test_a_hung_member_makes_way_for_the_next(place: Path) -> None:
    done = run(place, make_plan(place, [member(place, "hung@ab-512"), member(place, "good@ab-512")]), 30)
    assert "taken for hung" in outcome(done, "hung@ab-512")
    assert done.patterns == {"hung@ab-512 + good@ab-512": 10, "good@ab-512": ROWS - 11, "prior": 1}
    assert done.used_seconds < 15


def test_members_that_die_keep_their_finished_rows(place: Path) -> None:
    names = ("dying@ab-512", "killed@ab-512", "good@ab-512")
    done = run(place, make_plan(place, [member(place, name, row_seconds=0.1) for name in names]), 40)
    assert "out of memory" in outcome(done, "dying@ab-512")
    assert "SIGKILL" in outcome(done, "killed@ab-512")
    assert done.patterns == {" + ".join(names): 20, "good@ab-512": ROWS - 21, "prior": 1}


def test_members_that_lie_are_in_no_row(place: Path) -> None:
    lies = {
        "nan@ab-512": "NaN",
        "unsummed@ab-512": "do not sum to 1",
        "stranger@ab-512": "not in the battles",
        "doubling@ab-512": "in another chunk too",
        "garbage@ab-512": "not a score table",
    }
    done = run(place, make_plan(place, [member(place, name) for name in (*lies, "good@ab-512")]), 30)
    for name, said in lies.items():
        assert said in outcome(done, name)
    assert done.patterns == {"good@ab-512": ROWS - 1, "prior": 1}
    assert done.used == ("good@ab-512",)


def test_rows_that_a_stage_refuses_get_the_blend_without_it(place: Path) -> None:
    done = run(place, make_plan(place, [member(place, "refusing@ab-512"), member(place, "good@ab-512")]), 20)
    assert done.patterns == {"refusing@ab-512 + good@ab-512": 20, "good@ab-512": 19, "prior": 1}
    assert next(m.refused_rows for m in done.members if m.name == "refusing@ab-512") == 19


def test_without_time_the_prior_is_written(place: Path) -> None:
    long = member(place, "good@ab-512")
    long = long.model_copy(update={"cost": long.cost.model_copy(update={"load_seconds": 100.0})})
    done = run(place, make_plan(place, [long]), 5)
    assert done.patterns == {"prior": ROWS}
    assert np.allclose(check_file(place / "out.csv"), PRIOR)


def test_a_member_that_cannot_even_load_in_time_is_skipped(place: Path) -> None:
    late = member(place, "good.late@ab-512")
    late = late.model_copy(update={"cost": late.cost.model_copy(update={"load_seconds": 100.0})})
    done = run(place, make_plan(place, [member(place, "good@ab-512"), late]), 10)
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
    done = run(place, make_plan(place, [*pair, other], jobs, gpus=2), 20)
    assert done.patterns == {"good@ab-512 + good@ba-512 + good.split@ab-512": ROWS - 1, "prior": 1}
    launches = sorted(p.parent for p in (place / "home" / "predict").rglob("launches"))
    assert len(launches) == 3
    halves = [set((folder / "ids.txt").read_text().split()) for folder in launches[1:]]
    assert not halves[0] & halves[1] and len(halves[0] | halves[1]) == ROWS - 1
    assert abs(len(halves[0]) - len(halves[1])) <= 1


@pytest.mark.parametrize(("row_seconds", "expected"), [(1.3, 5), (0.001, 10)])
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
    done = run(place, make_plan(place, members, jobs), 12)
    assert done.patterns == {"good.cheap@ab-512 + good.dear@ab-512": expected, cheap[0]: ROWS - 1 - expected, "prior": 1}
    (asked,) = (path for path in (place / "home" / "predict").rglob("job-01/*/ids.txt"))
    lengths = [1 + int(i) % 7 for i in asked.read_text().split()]
    assert lengths == sorted(lengths, reverse=True) and lengths[:5] == [7] * 5


def test_the_same_command_goes_on_and_scores_no_row_twice(place: Path) -> None:
    plan = make_plan(place, [member(place, "slow@ab-512")])
    first = run(place, plan, 2.0)
    assert 0 < first.patterns["slow@ab-512"] < ROWS - 1
    second = run(place, plan, 20)
    assert second.patterns == {"slow@ab-512": ROWS - 1, "prior": 1}
    (scored,) = (place / "home" / "predict").rglob("scored")
    ids = scored.read_text().split()
    lost = 10  # a chunk that was being written when time was up may be scored again
    assert set(ids) == {str(i) for i in range(ROWS - 1)} and len(ids) <= ROWS - 1 + lost
    third = run(place, plan, 20)
    assert third.patterns == second.patterns and third.used_seconds < 5


def test_a_liar_is_asked_again_by_the_same_command(place: Path) -> None:
    plan = make_plan(place, [member(place, "nan@ab-512")])
    assert "NaN" in outcome(run(place, plan, 10), "nan@ab-512")
    script = place / "stand_in"
    script.write_text(script.read_text().replace('kind == "nan"', "False"))
    assert run(place, plan, 10).patterns == {"nan@ab-512": ROWS - 1, "prior": 1}


def start_predict(place: Path, plan: Path, budget: float, before: str = "") -> subprocess.Popen[bytes]:
    code = f"""
        import sys, time
        from pathlib import Path
        from ensemble.predict.run import predict
        from zoo.targets import process_age_seconds
        {before}
        started = time.monotonic() - process_age_seconds()
        done = predict(Path({str(plan)!r}), Path({str(place / "battles.csv")!r}), Path({str(place / "out.csv")!r}),
                       started_at=started, budget_seconds={budget})
        print(done.stopped_by)
    """
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(condition: object, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:  # type: ignore[operator]
        time.sleep(0.02)


def test_a_stop_request_writes_what_is_there_and_exits_0(place: Path) -> None:
    plan = make_plan(place, [member(place, "good@ab-512"), member(place, "deaf@ab-512")])
    process = start_predict(place, plan, 60)
    wait_for(lambda: list((place / "home").rglob("child")))
    wait_for(lambda: len(list((place / "home").rglob("*.parquet"))) == 5)
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=20)
    assert process.returncode == 0, error.decode()
    assert out.decode().strip() == "SIGTERM"
    assert np.isclose(check_file(place / "out.csv").max(axis=1), 0.8).sum() == ROWS - 1


def start_command(place: Path, plan: Path) -> subprocess.Popen[str]:
    arguments = ["predict", str(plan), str(place / "battles.csv"), "-o", str(place / "out.csv"), "--budget", "60s"]
    command = [sys.executable, "-m", "ensemble", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def warnings_of(error: str) -> list[str]:
    return [line for line in error.splitlines() if line.startswith("warning: ")]


def test_the_command_says_on_stderr_which_rows_were_bad(place: Path) -> None:
    process = start_command(place, make_plan(place, [member(place, "good@ab-512")]))
    out, error = process.communicate(timeout=30)
    assert process.returncode == 0, error
    assert [line for line in warnings_of(error) if "1 rows of" in line and "bad" in line]
    assert "warning" not in out


def test_the_command_says_on_stderr_that_it_was_stopped_early(place: Path) -> None:
    process = start_command(place, make_plan(place, [member(place, "hung@ab-512")]))
    wait_for(lambda: list((place / "home").rglob("*.parquet")))
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 0, error
    assert "warning: SIGTERM: stopped early" in warnings_of(error)
    assert [line for line in warnings_of(error) if line.startswith("warning: hung@ab-512: ")]
    check_file(place / "out.csv")


def test_killed_with_sigkill_it_leaves_a_whole_file(place: Path) -> None:
    plan = make_plan(place, [member(place, "slow@ab-512")])
    process = start_predict(place, plan, 60)
    wait_for(lambda: list((place / "home").rglob("*.parquet")))
    process.kill()
    process.communicate()
    check_file(place / "out.csv")


def test_the_watchdog_ends_a_prediction_whose_main_thread_hangs(place: Path) -> None:
    plan = make_plan(place, [member(place, "deaf@ab-512")])
    hang = "import ensemble.predict.run; ensemble.predict.run.job_statuses = lambda *_: time.sleep(60)"
    started = time.monotonic()
    process = start_predict(place, plan, 3.5, hang)
    _, error = process.communicate(timeout=20)
    assert time.monotonic() - started < 4  # the test's own start of the process comes on top
    assert process.returncode == 0 and b"the file on disk is whole" in error
    check_file(place / "out.csv")


def test_tables_given_by_the_user_stand_in_for_members(place: Path) -> None:
    imported = member(place, "good@ab-512").model_copy(update={"request": None})
    plan = make_plan(place, [imported, member(place, "good.b@ab-512")])
    with pytest.raises(ZooError, match="--scores good@ab-512=FILE"):
        run(place, plan, 20)
    assert not (place / "out.csv").exists()
    rows = "".join(f"{i},0.8,0.1,0.1\n" for i in range(25))
    (place / "table.csv").write_text("id,p_a,p_b,p_tie\n" + rows)
    done = run(place, plan, 20, scores={"good@ab-512": place / "table.csv"})
    assert done.patterns == {"good@ab-512 + good.b@ab-512": 25, "good.b@ab-512": ROWS - 26, "prior": 1}
    with pytest.raises(ZooError, match="no member 'nobody'"):
        run(place, plan, 20, scores={"nobody": place / "table.csv"})


@pytest.mark.parametrize("names", ["p_a,p_b,p_tie", "winner_model_a,winner_model_b,winner_tie"])
def test_a_given_table_may_be_rounded_as_an_imported_one_may(place: Path, names: str) -> None:
    plan = make_plan(place, [member(place, "good@ab-512").model_copy(update={"request": None})])
    rows = "".join(f"{i},0.3333,0.3333,0.3333\n" for i in range(ROWS))
    (place / "table.csv").write_text(f"id,{names}\n{rows}")
    assert run(place, plan, 20, scores={"good@ab-512": place / "table.csv"}).patterns == {"good@ab-512": ROWS}
    (place / "table.csv").write_text(f"id,{names}\n{rows}".replace("0,0.3333", "0,0.3300", 1))
    with pytest.raises(ZooError, match="do not sum to 1: 0"):
        run(place, plan, 20, scores={"good@ab-512": place / "table.csv"})


def test_a_checkpoint_that_is_nowhere_is_said_before_anything_runs(place: Path) -> None:
    plan = make_plan(place, [member(place, "good@ab-512")])
    (place / "home" / "store" / "fake-good" / "manifest.json").unlink()
    with pytest.raises(ZooError, match="checkpoint good is neither in"):
        run(place, plan, 20)


def test_a_request_without_a_path_is_not_taken_for_the_folder_it_runs_in(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = member(place, "good@ab-512")
    model = {"path": "", "fingerprint": planned.checkpoint}
    plan = make_plan(place, [planned.model_copy(update={"request": {**(planned.request or {}), "model": model}})])
    assert run(place, plan, 20).patterns == {"good@ab-512": ROWS - 1, "prior": 1}
    (place / "home" / "store" / "fake-good" / "manifest.json").rename(place / "manifest.json")
    monkeypatch.chdir(place)
    with pytest.raises(ZooError, match=r"checkpoint good is not in .*ZOO_HOME"):
        run(place, plan, 20)


def test_two_predictions_of_the_same_do_not_work_side_by_side(place: Path) -> None:
    plan = make_plan(place, [member(place, "hung@ab-512")])
    process = start_predict(place, plan, 60)
    wait_for(lambda: list((place / "home").rglob("*.parquet")))
    with pytest.raises(ZooError, match="another prediction"):
        run(place, plan, 2)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20) and process.returncode == 0
    assert os.path.exists(place / "out.csv")  # noqa: PTH110
