"""Processes that share the chunks of one run by claims, with engines that compute something simple."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.paths import HELPERS
from zoo.contracts import Variant
from zoo.errors import ZooError
from zoo.stages.score import engine_handle, share
from zoo.stages.score.chunks import PLAN, Answer, Chunk
from zoo.stages.score.engines import Crew, Job
from zoo.stages.score.share import TOKEN as TOLD_BY
from zoo.stages.score.share import WORK, Claimed, keep_share, main, settle_machine
from zoo.stages.score.token_file import TOKEN, Encoding
from zoo.stages.score.work import Listener
from zoo.store.leases import Leases

COUNT = 60


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_handle, "COMMAND", (sys.executable, str(HELPERS / "stand_in_engine.py")))


def chunks() -> list[Chunk]:
    lengths = np.full(COUNT, 5)
    encoding = Encoding(Variant(max_tokens=9), np.arange(COUNT) * 5, lengths, 0 * lengths)
    return [Chunk((encoding,), i, np.array([i])) for i in range(COUNT)]


def test_two_who_share_a_run_score_each_chunk_once_and_a_silent_one_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "tokens.bin").write_bytes(np.arange(5 * COUNT, dtype=TOKEN).tobytes())
    gone = Leases(tmp_path / "leases", "gone", lapse_seconds=1)
    assert all(gone.claim(number) for number in (0, 7, 30))  # and it never scores them: it renews nothing from here on
    written: list[tuple[str, int]] = []

    def one(name: str, turn: int) -> None:
        own = [*chunks()[turn:], *chunks()[:turn]]

        def take(number: int, answer: Answer, memory: object) -> None:
            (file,) = own[number].files(tmp_path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            written.append((name, own[number].index))

        leases = Leases(tmp_path / "leases", name, lapse_seconds=1)
        threading.Thread(target=beat, args=(leases,), daemon=True).start()
        with Crew(Job({}, (1, 2, 3), tmp_path / name, ({"PACE": "0.02"},), shared=tmp_path)) as crew:
            crew.score(own, Listener(take=take), may=Claimed(leases, own, tmp_path))

    over = threading.Event()

    def beat(leases: Leases) -> None:
        while not over.wait(0.1):
            leases.renew()

    both = [threading.Thread(target=one, args=(name, turn)) for name, turn in (("a", 0), ("b", COUNT // 2))]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    over.set()
    assert sorted(index for _, index in written) == list(range(COUNT))
    assert {name for name, _ in written} == {"a", "b"}


def test_one_table_is_of_one_kind_of_machine(tmp_path: Path) -> None:
    (tmp_path / WORK).mkdir()
    (tmp_path / PLAN).write_text(json.dumps({"machine": ""}))
    assert settle_machine(tmp_path, "4 x A100, 40960 MiB") == "4 x A100, 40960 MiB"
    assert settle_machine(tmp_path, "8 x A100, 40960 MiB") == "4 x A100, 40960 MiB"
    assert json.loads((tmp_path / PLAN).read_text())["machine"] == "4 x A100, 40960 MiB"
    with pytest.raises(ZooError, match="one table is of one kind of machine"):
        settle_machine(tmp_path, "4 x L4, 23034 MiB")
    (tmp_path / PLAN).write_text(json.dumps({"machine": ""}))  # as where the first was killed before it wrote this
    settle_machine(tmp_path, "8 x A100, 40960 MiB")
    assert json.loads((tmp_path / PLAN).read_text())["machine"] == "4 x A100, 40960 MiB"


def test_a_task_that_begins_when_all_is_over_ends_in_peace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "score-1"), "60", "3", "4"]) == 0
    assert "score-1: over" in capsys.readouterr().out and not (tmp_path / "score-1").exists()


def test_a_task_that_cannot_read_its_share_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / WORK).mkdir()
    keep_share(tmp_path / WORK, [], [])
    assert main([str(tmp_path), "60", "3", "4"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ") and "request.json" in told and told.count("\n") == 1


def test_who_comes_back_leaves_the_token_that_tasks_compare(tmp_path: Path) -> None:
    keep_share(tmp_path, [], [])
    token = (tmp_path / TOLD_BY).read_text()
    keep_share(tmp_path, [], [])
    assert (tmp_path / TOLD_BY).read_text() == token


def test_a_file_server_that_is_away_for_a_moment_costs_nobody_his_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[type[OSError]] = [OSError, PermissionError, FileNotFoundError]

    class Renewed:
        def renew(self) -> None:
            raise faults.pop(0)

    monkeypatch.setattr(share.time, "sleep", lambda seconds: None)
    share._beat(Renewed())  # type: ignore[arg-type]
    assert not faults, "it goes on until the folder is gone"
