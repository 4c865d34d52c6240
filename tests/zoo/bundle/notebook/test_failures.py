"""The failures that a notebook meets, each brought about for real: a whole submission every time, and a line that says why."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ensemble.bundle.dry_run import refused, write_driver
from tests.helpers.waiting import wait_until
from tests.zoo.bundle.notebook.scenes import ENGINE, LEXICAL, MEMBER_IN_EVERY_ROW, MEMBERS, T4, make_scene, stand_in
from zoo.bundle import Image
from zoo.bundle.contracts import BUNDLE, MARKER

PRIOR_ROWS = ["id,winner_model_a,winner_model_b,winner_tie", *(f"{i},0.4,0.35,0.25" for i in range(3))]
BOTH = f"members: {LEXICAL} {ENGINE}"


def with_cards(folder: Path, environment: dict[str, str], *cards: dict[str, str], driver: str = "580.159.04") -> None:
    write_driver(folder / "driver", cards, driver=driver)
    environment["PATH"] = f"{folder / 'driver'}:{environment['PATH']}"


def given(folder: Path, body: str = MEMBER_IN_EVERY_ROW, *, engine: str = "vllm") -> dict[str, str]:
    return {"PZ_ENVIRONMENT": stand_in(folder / "environment", body, engine=engine)}


def test_two_t4_and_everything_there(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    with_cards(tmp_path, scene.environment, T4, T4)
    done = scene.run(**given(tmp_path))
    assert done.returncode == 0 and BOTH in done.stdout, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "is whole: 3 rows, ALL the plan's prior" in lines[0]
    assert "is whole: 3 rows, members in each; predicting ended with exit code 0" in lines[-1]
    assert "fail" not in done.stdout.replace("failed", "")
    assert scene.rows()[1] == "0,0.7,0.2,0.1"
    assert (tmp_path / "working" / "predict.log").read_text().startswith("members:")
    assert scene.report()["notebook"]["ended"].endswith("exit code 0")


def test_the_stages_one_by_one_do_the_same(tmp_path: Path) -> None:
    scene, environment = make_scene(tmp_path), given(tmp_path)
    with_cards(tmp_path, scene.environment, T4, T4)
    assert scene.run("look").returncode == 0 and scene.rows() == PRIOR_ROWS
    assert scene.run("prepare", **environment).returncode == 0 and scene.rows() == PRIOR_ROWS
    done = scene.run("predict", **environment)
    assert done.returncode == 0 and BOTH in done.stdout and scene.rows()[1] == "0,0.7,0.2,0.1"


def test_a_stage_that_is_none(tmp_path: Path) -> None:
    done = make_scene(tmp_path).run("peek")
    assert done.returncode == 2 and "look, prepare, predict" in done.stdout


# --- the image --------------------------------------------------------------------------------------------------------


def test_an_image_of_another_python(tmp_path: Path) -> None:
    """Its wheels cannot be installed: the digest to pin is named, and the image's own Python is tried."""
    image = Image(python="3.99", glibc="2.17", driver=580, docker_image="gcr.io/kaggle@sha256:abc")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "requirements.lock").write_text("")
    scene = make_scene(tmp_path, image=image, wheels=wheels)
    with_cards(tmp_path, scene.environment, T4, T4)
    done = scene.run()
    assert done.returncode == 0 and scene.rows() == PRIOR_ROWS
    assert (
        "the wheels are for 3.99; pin the image in kernel-metadata.json (docker_image: gcr.io/kaggle@sha256:abc)" in done.stdout
    )
    assert "no wheel is installed: Python" in done.stdout and "image's own Python" in done.stdout


def test_an_image_of_an_older_c_library(tmp_path: Path) -> None:
    done = make_scene(tmp_path, image=Image(python="3.12", glibc="9.99", driver=580)).run("look")
    assert done.returncode == 0 and "glibc: " in done.stdout and "the wheels need 9.99" in done.stdout


def test_a_disk_without_room_for_the_wheels(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "requirements.lock").write_text("")
    with (wheels / "huge.whl").open("wb") as file:
        file.truncate(1 << 20)
    scene = make_scene(tmp_path, wheels=wheels)
    recorded = scene.job / BUNDLE
    recorded.write_text(recorded.read_text().replace(f'"bytes": {1 << 20}', f'"bytes": {1 << 50}'))
    done = scene.run("look")
    assert done.returncode == 0 and "set PZ_SCRATCH to a larger disk" in done.stdout


# --- the cards --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cards", "driver", "said"),
    [
        ((), "580.1", "no GPU, 2 x T4 wanted; choose the accelerator 2 x T4"),
        (
            ({"name": "Tesla P100-PCIE-16GB", "memory.total": "16384", "compute_cap": "6.0"},),
            "580.1",
            "capability 6.0, 7.5 wanted",
        ),
        ((T4, T4), "570.86.10", "570.86.10, 580 or newer wanted"),
    ],
    ids=["none", "P100", "old driver"],
)
def test_cards_that_cannot_serve_leave_the_other_members(
    tmp_path: Path, cards: tuple[dict[str, str], ...], driver: str, said: str
) -> None:
    scene = make_scene(tmp_path)
    with_cards(tmp_path, scene.environment, *cards, driver=driver)
    done = scene.run(**given(tmp_path))
    assert done.returncode == 0 and said in done.stdout, done.stdout
    assert f"members: {LEXICAL}\n" in done.stdout and "big@ab is left out: needs the engine: " in done.stdout


def of_engine(engine: str) -> tuple[dict[str, object], ...]:
    """The usual members, of which the large one is served by this engine."""
    return MEMBERS[0], {**MEMBERS[1], "request": {"stage": "score", "spec": {"engine": engine}}}


@pytest.mark.parametrize(
    ("engine", "packages", "runs"),
    [
        ("transformers", "transformers torch", True),
        ("transformers", "vllm", False),
        ("vllm", "transformers torch", False),
        ("vllm", "vllm transformers torch", True),
    ],
)
def test_a_member_runs_where_its_own_engine_is(tmp_path: Path, engine: str, packages: str, runs: bool) -> None:
    scene = make_scene(tmp_path, members=of_engine(engine))
    with_cards(tmp_path, scene.environment, T4, T4)
    done = scene.run(**given(tmp_path, engine=packages))
    assert done.returncode == 0 and (f"members: {LEXICAL} {ENGINE}" in done.stdout) == runs, done.stdout
    assert ("big@ab is left out: needs the engine: " in done.stdout) != runs


def test_an_encoder_is_left_out_where_no_card_can_serve_it(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, members=of_engine("transformers"))
    with_cards(tmp_path, scene.environment)
    done = scene.run(**given(tmp_path, engine="transformers torch"))
    assert done.returncode == 0 and "language models and encoders are left out" in done.stdout, done.stdout
    assert f"members: {LEXICAL}\n" in done.stdout and "big@ab is left out: needs the engine: cards no GPU" in done.stdout


@pytest.mark.parametrize(
    ("cards", "said"),
    [
        ((T4,), "Tesla T4, 2 x T4 wanted; choose 2 x T4; members are dealt over 1"),
        (
            ({"name": "NVIDIA L4", "memory.total": "23034", "compute_cap": "8.9"},),
            "capability 8.9, 7.5 wanted; the engine has code",
        ),
        (({**T4, "memory.total": "8192"},) * 2, "8.00 GiB a card; 14.56 GiB are wanted"),
    ],
    ids=["one T4", "L4", "small"],
)
def test_other_cards_serve_with_a_warning(tmp_path: Path, cards: tuple[dict[str, str], ...], said: str) -> None:
    scene = make_scene(tmp_path)
    with_cards(tmp_path, scene.environment, *cards)
    done = scene.run(**given(tmp_path))
    assert done.returncode == 0 and said in done.stdout and BOTH in done.stdout, done.stdout


def test_a_driver_that_does_not_answer_is_no_driver(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    tool = tmp_path / "driver" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver'\nexit 9\n")
    tool.chmod(0o755)
    scene.environment["PATH"] = f"{tool.parent}:{scene.environment['PATH']}"
    assert "no GPU, 2 x T4 wanted" in scene.run("look").stdout


# --- what is attached -------------------------------------------------------------------------------------------------


def test_a_part_that_is_not_mounted(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    with_cards(tmp_path, scene.environment, T4, T4)
    scene.mounted("model-1").unlink()
    done = scene.run(**given(tmp_path))
    slug = scene.bundle.part("model-1").slug
    assert done.returncode == 0 and f"model-1 is not mounted: attach somebody/{slug}, in its newest version" in done.stdout
    assert f"members: {LEXICAL}\n" in done.stdout and "big@ab is left out: model-1 is not mounted" in done.stdout


def test_a_part_in_another_version(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    marker = scene.made / "model-1" / MARKER
    marker.write_text(marker.read_text().replace(scene.bundle.part("model-1").digest, "0" * 64))
    done = scene.run("look")
    assert "model-1 is not mounted" in done.stdout and f"{scene.mounted('model-1')}: no part of this job" in done.stdout


def test_a_part_that_is_mounted_twice(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    with_cards(tmp_path, scene.environment, T4, T4)
    shutil.copytree(scene.made / "model-1", scene.inputs / "a-copy")
    done = scene.run(**given(tmp_path))
    assert done.returncode == 0 and "model-1 is mounted 2 times" in done.stdout and BOTH in done.stdout


def test_a_byte_that_is_another(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    with_cards(tmp_path, scene.environment, T4, T4)
    weights = scene.made / "model-1" / "model" / "weights.bin"
    weights.write_bytes(b"X" + weights.read_bytes()[1:])
    done = scene.run(**given(tmp_path))
    assert done.returncode == 0 and f"members: {LEXICAL}\n" in done.stdout
    assert f"big@ab is left out: model-1: {scene.mounted('model-1')}/model/weights.bin is damaged" in done.stdout


def test_a_file_that_is_cut_off_and_one_that_is_not_there(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    with_cards(tmp_path, scene.environment, T4, T4)
    (scene.made / "model-1" / "model" / "weights.bin").write_bytes(b"X")
    (scene.made / "job" / "store" / LEXICAL / "manifest.json").unlink()
    done = scene.run(**given(tmp_path))
    assert done.returncode == 0 and scene.rows() == PRIOR_ROWS and "has 1 bytes, 2,500 wanted" in done.stdout, done.stdout
    assert "manifest.json: No such file" in done.stdout and "no member can run here" in done.stdout.splitlines()[-2]


def test_a_plan_that_is_damaged(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    plan = scene.made / "job" / "plan.json"
    plan.write_text(plan.read_text() + " ")
    done = scene.run(**given(tmp_path))
    assert done.returncode == 0 and scene.rows() == PRIOR_ROWS and "plan.json is damaged" in done.stdout


def test_two_different_jobs_are_refused(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    other = scene.inputs / "older" / "job"
    shutil.copytree(scene.made / "job", other)
    (other / BUNDLE).write_text((other / BUNDLE).read_text().replace("32400", "30000").replace("somebody", "someone"))
    done = scene.run()
    assert done.returncode == 1 and "REFUSED: two different jobs" in done.stdout and str(other) in done.stdout
    (other / BUNDLE).write_bytes((scene.made / "job" / BUNDLE).read_bytes())
    done = scene.run("look")
    assert done.returncode == 0 and "the job is mounted 2 times" in done.stdout


@pytest.mark.parametrize("count", [0, 2])
def test_no_or_several_files_to_predict_are_refused(tmp_path: Path, count: int) -> None:
    scene = make_scene(tmp_path)
    competition = scene.inputs / "competitions" / scene.bundle.competition
    if count:
        shutil.copytree(competition, scene.inputs / scene.bundle.competition)
    else:
        (competition / "test.csv").unlink()
    done = scene.run()
    assert done.returncode == 1 and ("several files test.csv" if count else "no test.csv below") in done.stdout


def test_a_file_of_another_format_is_named_with_the_mend(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    competition = scene.inputs / "competitions" / scene.bundle.competition
    (competition / "test.csv").rename(competition / "test.parquet")
    done = scene.run()
    assert (
        done.returncode == 1 and f"{competition / 'test.parquet'}: only test.csv is read here; write it as CSV" in done.stdout
    )


def test_another_data_set_s_test_csv_is_not_the_competition_s(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    (scene.inputs / "datasets" / "x").mkdir()
    (scene.inputs / "datasets" / "x" / "test.csv").write_text("id\n99\n")
    assert scene.run("look").returncode == 0 and scene.rows() == PRIOR_ROWS


def test_a_competition_that_asks_row_by_row_is_refused(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    (scene.inputs / "competitions" / scene.bundle.competition / "kaggle_evaluation").mkdir()
    done = scene.run(KAGGLE_IS_COMPETITION_RERUN="1")
    assert done.returncode == 1 and "asks for rows one by one through a server" in done.stdout


# --- the run ----------------------------------------------------------------------------------------------------------


def test_a_budget_that_is_spent(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    done = scene.run(**given(tmp_path), PZ_STARTED_AT=f"{time.time() - 3600:.3f}")
    assert done.returncode == 0 and scene.rows() == PRIOR_ROWS and "the budget of 3600 s is spent" in done.stdout


def test_a_start_that_is_no_time_is_refused(tmp_path: Path) -> None:
    done = make_scene(tmp_path).run(PZ_STARTED_AT="noon")
    assert done.returncode == 1 and "REFUSED: PZ_STARTED_AT=noon" in done.stdout


def test_no_member_contributed(tmp_path: Path) -> None:
    """`ensemble predict` says 3, and the file is the prior: whole, and the last line says so."""
    done = make_scene(tmp_path).run(**given(tmp_path, "sys.exit(3)"))
    assert done.returncode == 0
    assert "ALL the plan's prior, no member is in it; predicting ended with exit code 3" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ("write([(i, 0.7, 0.2, 0.1) for i in ids[:-1]])", "fewer rows than test.csv, from row 3 on"),
        ("write([(i, 0.7, 0.2, 'nan') for i in ids])", "row 1, id 0: not finite"),
        ("write([(i, 0.7, 0.2, 0.2) for i in ids])", "row 1, id 0: sums to 1.1"),
        ("write([(i, 0.7, 0.2, 0.1) for i in reversed(ids)])", "row 1 has id 2, 0 wanted"),
        ("output.write_text('nonsense')", "columns nonsense"),
        ("output.unlink()", "No such file"),
    ],
)
def test_a_file_that_is_not_whole_gives_way_to_the_prior(tmp_path: Path, body: str, wrong: str) -> None:
    scene = make_scene(tmp_path)
    done = scene.run(**given(tmp_path, body))
    assert (
        done.returncode == 0
        and scene.rows() == PRIOR_ROWS
        and f"is NOT whole: {wrong}" in done.stdout.replace(f"[Errno 2] {wrong}", wrong)
    ), done.stdout


def test_a_prediction_that_is_killed_leaves_its_last_file(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    done = scene.run(**given(tmp_path, MEMBER_IN_EVERY_ROW + "os.kill(os.getpid(), 9)"))
    assert done.returncode == 0 and scene.rows()[1] == "0,0.7,0.2,0.1" and "exit code -9" in done.stdout.splitlines()[-1]


def test_a_prediction_that_hangs_is_ended_with_the_budget(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, budget_seconds=8)
    done = scene.run(**given(tmp_path, MEMBER_IN_EVERY_ROW + "time.sleep(1000)"))
    assert done.returncode == 0 and scene.rows()[1] == "0,0.7,0.2,0.1" and "exit code 124" in done.stdout.splitlines()[-1]


def test_a_script_that_is_told_to_end_hands_it_on(tmp_path: Path) -> None:
    """SIGTERM reaches the prediction, which writes what it has; the ending is the usual one."""
    scene = make_scene(tmp_path)
    body = """
    import signal
    def end(*_):
        write([(i, 0.7, 0.2, 0.1) for i in ids])
        sys.exit(0)
    signal.signal(signal.SIGTERM, end)
    (output.parent / "running").touch()
    time.sleep(100)
    """
    variables = scene.environment | given(tmp_path, body)
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen([sys.executable, str(scene.job / "script")], env=variables, stdout=out)
        wait_until((scene.submission.parent / "running").exists, "the prediction to run", process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert scene.rows()[1] == "0,0.7,0.2,0.1"
    assert "members in each; predicting ended with exit code 0" in (tmp_path / "out").read_text().splitlines()[-1]


@pytest.mark.skipif(bool(refused()), reason="needs a mount namespace of its own")
def test_a_full_disk_where_the_notebook_leaves_its_files(tmp_path: Path) -> None:
    """One page: room for the submission and for nothing else. It is written over where it cannot be replaced."""
    scene = make_scene(tmp_path)
    working = scene.submission.parent
    mount, shown = f"mount -t tmpfs -o size=4096 tmpfs {working}", f"cat {scene.submission}"
    script = f"{mount} && {sys.executable} {scene.job / 'script'}; code=$?; {shown}; exit $code"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    done = subprocess.run(command, env=scene.environment | given(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "the submission is made elsewhere and copied at the end" in done.stdout, done.stdout
    assert done.stdout.splitlines()[-4:] == [PRIOR_ROWS[0], *(f"{i},0.7,0.2,0.1" for i in range(3))]
    assert "predict.json: No space left on device; the submission stays as it is" in done.stdout


def test_a_scratch_folder_that_takes_nothing_is_no_end(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    (tmp_path / "file").touch()
    done = scene.run(**given(tmp_path), PZ_SCRATCH=str(tmp_path / "file" / "below"))
    assert done.returncode == 0 and scene.rows() == PRIOR_ROWS and "set PZ_SCRATCH to a folder with room" in done.stdout


def test_a_given_environment_is_told_and_one_that_is_none_too(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    done = scene.run(PZ_ENVIRONMENT=str(tmp_path / "nowhere"))
    assert done.returncode == 0 and scene.rows() == PRIOR_ROWS
    assert f"PZ_ENVIRONMENT: {tmp_path / 'nowhere'} is taken, no wheel is installed" in done.stdout
    assert "no environment to predict in" in done.stdout


def test_what_predict_json_says_comes_from_the_prediction_and_the_notebook(tmp_path: Path) -> None:
    body = (
        MEMBER_IN_EVERY_ROW
        + """
folder = Path(os.environ["ZOO_HOME"], "predict", "x")
folder.mkdir(parents=True)
(folder / "predict.json").write_text('{"patterns": {"lexical@ab": 3}}')
"""
    )
    scene = make_scene(tmp_path)
    assert scene.run(**given(tmp_path, body, engine="")).returncode == 0
    report = scene.report()
    assert report["patterns"] == {"lexical@ab": 3} and report["notebook"]["left_out"]["big@ab"].startswith("needs the engine")
    assert {check["name"] for check in report["notebook"]["checks"]} >= {"cards", "Python", "glibc", "RAM", "disk", "working"}
    assert json.dumps(report)


def test_rates_of_the_cards_come_home_in_predict_json(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, budget_seconds=32400)
    with_cards(tmp_path, scene.environment, T4, T4)
    measured = {"target": "t4x2", "rates": {"disk_bytes_per_second": 1e8}}
    done = scene.run(**given(tmp_path), RATES=json.dumps(measured))
    assert done.returncode == 0 and "zoo target import predict.json" in done.stdout
    assert scene.report()["notebook"]["rates"] == measured


@pytest.mark.parametrize("budget", [32400, 3600], ids=["no JSON", "no time"])
def test_rates_that_cannot_be_measured_hold_nothing_up(tmp_path: Path, budget: float) -> None:
    scene = make_scene(tmp_path, budget_seconds=budget)
    with_cards(tmp_path, scene.environment, T4, T4)
    done = scene.run(**given(tmp_path))
    assert done.returncode == 0 and BOTH in done.stdout and "rates" not in scene.report()["notebook"]
    assert ("warn  rates are not measured" in done.stdout) == (budget == 32400)


@pytest.mark.parametrize("fault", ["OSError(5, 'Input/output error')", "ValueError('no such thing')"])
def test_a_check_that_breaks_keeps_no_submission_from_its_place(tmp_path: Path, fault: str) -> None:
    scene = make_scene(tmp_path)
    checks = scene.made / "job" / "script" / "checks.py"
    text = checks.read_text()
    checks.write_text(text.replace("    total = os.sysconf", f"    raise {fault}\n    total = os.sysconf"))
    assert checks.read_text() != text
    done = scene.run("look")
    assert done.returncode == 0 and scene.rows() == PRIOR_ROWS and fault.partition("(")[0] in done.stderr
    done = scene.run(**given(tmp_path))
    assert done.returncode == 0 and scene.rows()[1] == "0,0.7,0.2,0.1"


def test_of_winners_nobody_says_that_members_are_in_them(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    competition = scene.inputs / "competitions" / scene.bundle.competition
    (competition / "sample_submission.csv").write_text("id,winner\n1,model_a\n")
    done = scene.run("look")
    assert done.returncode == 0 and "rows of winners" in done.stdout and "members in each" not in done.stdout
