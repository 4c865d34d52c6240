"""Several processes on one study: each trial is done once, and that of a killed process is done again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.postgres import postgres
from tests.helpers.tiny_models import TINY_ENTRY
from tests.helpers.waiting import wait_until
from zoo.data.sample import write_sample
from zoo.entries.load import load_entry
from zoo.entries.toml import document
from zoo.errors import ZooError
from zoo.experiments.run import run_chain
from zoo.experiments.study import dashboard, shared_storage
from zoo.experiments.tune import together
from zoo.experiments.tune.space import Knob, Space
from zoo.experiments.tune.study import Study, best_of
from zoo.experiments.tune.together import TakenOver
from zoo.pipeline.weights import fetch_request
from zoo.store import list_artifacts

SPACE = Space(learning_rate=Knob(low=1e-4, high=1e-2, log=True))
TRIALS = 8
# A process as `zoo tune` is one, but for the training: it writes a line when it begins a trial and one when it has ended it.
WORKER = """
import sys, time
from pathlib import Path
from zoo.experiments.tune import together
from zoo.experiments.tune.space import Knob, Space
from zoo.experiments.tune.study import Study
together.BEAT_SECONDS, together.GRACE_SECONDS = 0.2, 3.0
place, log, most = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
space = Space(learning_rate=Knob(low=1e-4, high=1e-2, log=True))
study = Study("tune any", place, space, {"learning_rate": 1e-3}, seed=0, facts={"kind": "tune"})
def tell(*said):
    with log.open("a") as file:
        print(*said, file=file)
with study.together.beating():
    while True:
        study.together.revive()
        if study.drawn() >= most and not study.together.others():
            break
        trial = study.ask(most) if study.drawn() < most else None
        if trial is None:
            time.sleep(0.1)
            continue
        drawn = study.draw(trial)
        rate = drawn.get("learning_rate", 1e-3)
        tell("began", trial.number, rate)
        time.sleep(0.4)
        study.note(trial, {"drawn": drawn, "settings": drawn})
        study.complete(trial, 1 + trial.params["learning_rate"])
        tell("ended", trial.number, rate)
"""


@pytest.fixture(params=["journal", pytest.param("postgresql", marks=pytest.mark.services)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "journal":
        yield str(tmp_path / "shared" / "studies.journal")
        return
    with postgres() as address:
        yield address


def study_in(place: str) -> Study:
    return Study("tune any", place, SPACE, {"learning_rate": 1e-3}, seed=0, facts={"kind": "tune"})


def test_processes_share_a_study_and_the_trial_of_a_killed_one_is_done_again(place: str, tmp_path: Path) -> None:
    log, rng = tmp_path / "log", random.Random(3)
    command = [sys.executable, "-c", WORKER, place, str(log), str(TRIALS)]
    began = lambda: log.read_text().count("began") if log.exists() else 0  # noqa: E731
    workers = [subprocess.Popen(command) for _ in range(2)]
    wait_until(lambda: began() >= 2, "two trials", workers[0])
    time.sleep(rng.uniform(0, 0.3))
    workers[0].send_signal(signal.SIGKILL)
    assert [worker.wait() for worker in workers] == [-signal.SIGKILL, 0]
    trials, lines = study_in(place).trials(), [line.split() for line in log.read_text().splitlines()]
    assert [trial.state for trial in trials] == ["complete"] * TRIALS and sum(t.is_default for t in trials) == 1
    ended = Counter(number for what, number, _ in lines if what == "ended")
    assert set(ended.values()) == {1} and len(ended) in (TRIALS, TRIALS - 1), "none is done twice"
    begun = {rate for what, _, rate in lines if what == "began"}
    done = {str(trial.drawn.get("learning_rate", 1e-3)) for trial in trials}
    assert begun == done, "what the killed one had drawn is done by the other"
    assert subprocess.run(command).returncode == 0 and study_in(place).trials() == trials, "a third finds all done"


def test_a_process_that_was_taken_for_dead_hears_of_it_and_ends_its_trial_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "GRACE_SECONDS", 0.0)
    slow, other = (study_in(str(tmp_path / "journal")) for _ in range(2))
    assert slow.together and other.together
    trial = slow.ask(3)
    slow.draw(trial)
    slow.note(trial, {"fingerprint": "f"})
    assert [other.together.revive() for _ in range(2)] == [[], [0]], "not before it was seen twice"
    again = other.ask(3)
    assert other.draw(again) == {} and again.params == trial.params, "the entry's own settings are so still"
    for act in (lambda: slow.report(trial, 0.5, 1.0), lambda: slow.complete(trial, 1.0), lambda: slow.note(trial, {"why": ""})):
        with pytest.raises(TakenOver):
            act()
    other.complete(again, 2.0)
    assert [(t.number, t.is_default, t.log_loss) for t in slow.trials()] == [(1, True, 2.0)] and best_of(
        slow.trials()
    ).number == 1
    assert slow.drawn() == 1


def test_trials_that_are_given_back_are_taken_by_others_and_none_is_one_too_many(tmp_path: Path) -> None:
    one, other = (study_in(str(tmp_path / "journal")) for _ in range(2))
    assert one.together and other.together
    first = one.ask(2)
    one.draw(first)
    second = other.ask(2)
    drawn = other.draw(second)
    assert one.ask(2) is None and one.drawn() == 2 and one.together.others() == 1
    other.together.give_back(second, "interrupted")
    third = one.ask(2)
    assert one.draw(third) == drawn and (one.drawn(), one.together.others()) == (2, 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("postgresql://zoo:hunter2@host/db", "a password in an address"),
        ("postgresql://host", "is no storage"),
        ("sqlite:////tmp/x.db", "is no storage"),
        ("studies.journal", "is no storage"),
        ("/tmp", "is no storage"),
    ],
)
def test_storages_that_cannot_be_shared_are_refused(text: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_STUDY_STORAGE", text)
    with pytest.raises(ZooError, match=told) as error:
        shared_storage()
    assert "hunter2" not in str(error.value)


def test_a_storage_that_is_not_there_or_is_something_else_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a journal\n")
    for place, told in (
        (str(tmp_path / "text"), "is no journal"),
        ("postgresql://zoo@127.0.0.1:1/zoo", "cannot be kept or read"),
    ):
        with pytest.raises(ZooError, match=told) as error:
            study_in(place)
        assert "\n" not in str(error.value)
    assert (tmp_path / "text").read_text() == "not a journal\n", "and is not written on"
    assert dashboard("/home/somebody/mlruns/studies.db") == "optuna-dashboard sqlite:////home/somebody/mlruns/studies.db"
    assert dashboard("/shared/zoo.journal") == "optuna-dashboard /shared/zoo.journal"


# --- real trainings -----------------------------------------------------------------------------------------------------------

PLAIN = {"method": "lora", "rank": 4, "alpha": 8, "learning_rate": 5e-3, "eval_rows": 16, "max_rows": 32, "batch_rows": 8}
QUICK = (
    "import sys; from zoo.experiments.tune import together; together.BEAT_SECONDS, together.GRACE_SECONDS = 0.5, 10.0; "
    "from zoo.cli.main import main; sys.argv[0] = 'zoo'; main()"
)


@pytest.mark.chain
@pytest.mark.timeout(500)
def test_zoo_tune_started_twice_works_on_one_study_and_survives_a_kill(
    tiny_llama: Path, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "entries").mkdir()
    own: dict[str, Any] = TINY_ENTRY | {"train": PLAIN, "prompt": {**TINY_ENTRY["prompt"], "max_tokens": 96}}
    (tmp_path / "entries" / "tiny.toml").write_text(document(own))
    (tmp_path / "space.toml").write_text("learning_rate = { low = 1e-4, high = 1e-2, log = true }\n")
    monkeypatch.setenv("ZOO_ENTRIES", str(tmp_path / "entries"))
    monkeypatch.setenv("ZOO_STUDY_STORAGE", str(tmp_path / "shared.journal"))
    data, store = tmp_path / "battles.csv", own_home / "store"
    write_sample(data, 320, 7)
    entry = load_entry("tiny")
    run_chain([fetch_request(entry, store, source=str(tiny_llama))], entry, store, say=lambda _: None, track=False)
    options = ["--data", str(data), "--space", str(tmp_path / "space.toml"), "--fold", "0", "--source", str(tiny_llama)]
    command = [sys.executable, "-c", QUICK, "tune", "tiny", *options, "--trials", "2", "--json"]
    start: Callable[[], subprocess.Popen[str]] = lambda: subprocess.Popen(  # noqa: E731
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    killed = start()
    wait_until(lambda: list((store / ".partial").glob("train-*")), "a training", killed)
    other = start()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    out, said = other.communicate()
    assert other.returncode == 0, said
    report = json.loads(out)
    assert [trial["state"] for trial in report["trials"]] == ["complete"] * 2
    assert "trial 0: the process that trained it has ended; it is tried again" in said
    assert report["storage"] == str(tmp_path / "shared.journal")
    assert len(list_artifacts(store, "train")) in (1, 2)
