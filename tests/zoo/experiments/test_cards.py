"""Cards lent by memory: never more than a card has, everybody in the end, in turn; ended holders leave nothing behind."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.stand_in_card import MIB, fake_driver
from tests.helpers.waiting import wait_until
from zoo.contracts import Entry
from zoo.entries.load import load_entry, override
from zoo.experiments import cards as cards_module
from zoo.experiments.cards import Cards, Loan, Need
from zoo.experiments.needs import need_of
from zoo.models.memory import GIB
from zoo.targets import SHARE

GiB = 1024  # in MiB


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards_module, "POLL_SECONDS", 0.002)


def driver(folder: Path, monkeypatch: pytest.MonkeyPatch, count: int, size: int = 80 * GiB) -> None:
    fake_driver(folder, count, size)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


class Watch:
    """What is lent at any moment, and the most that ever was."""

    def __init__(self) -> None:
        self.now, self.most, self.lock = Counter[str](), Counter[str](), threading.Lock()

    def use(self, cards: Cards, need: Need, *, alone: bool = False) -> Loan:
        with cards.lent(need, alone=alone) as loan:
            mine = loan.environment["CUDA_VISIBLE_DEVICES"].split(",")
            size = int(loan.environment.get(SHARE, 80 * GIB))
            with self.lock:
                self.now.update({name: size for name in mine})
                self.most.update({name: max(0, self.now[name] - self.most[name]) for name in mine})
                if alone:
                    assert all(self.now[name] == size for name in mine)
            time.sleep(0.001)
            with self.lock:
                self.now.subtract({name: size for name in mine})
        return loan


needs = st.builds(
    Need,
    gpus=st.integers(1, 4),
    bytes=st.none() | st.integers(1, 100).map(lambda gib: gib * GIB),
    elastic=st.booleans(),
)


@settings(deadline=None, max_examples=25)
@given(gpus=st.integers(1, 3), jobs=st.integers(1, 6), asked=st.lists(st.tuples(needs, st.booleans()), max_size=12))
def test_no_card_is_lent_beyond_what_it_has(
    tmp_path_factory: pytest.TempPathFactory, gpus: int, jobs: int, asked: list[tuple[Need, bool]]
) -> None:
    folder, watch = tmp_path_factory.mktemp("cards"), Watch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cards_module, "free_gpu_bytes", lambda: {f"GPU-{i}": 80 * GIB for i in range(gpus)})
        patch.setattr(cards_module, "gpu_uuids", lambda: {str(i): f"GPU-{i}" for i in range(gpus)})
        names = [str(i) for i in range(gpus)]
        commands = [Cards(names, jobs, folder), Cards([f"GPU-{name}" for name in names], jobs, folder)]
        with ThreadPoolExecutor(jobs) as pool:
            work = enumerate(asked)
            loans = list(pool.map(lambda one: watch.use(commands[0], one[1][0], alone=one[1][1]), work))
    assert all(most <= 80 * GIB for most in watch.most.values())
    for (need, alone), loan in zip(asked, loans, strict=True):
        assert len(loan.environment["CUDA_VISIBLE_DEVICES"].split(",")) == min(need.gpus, gpus)
        assert loan.whole or not alone
        if need.bytes and need.bytes < 80 * GIB and not alone and not need.elastic:
            assert loan.environment[SHARE] == str(need.bytes)
    assert not [path for path in (folder / ".locks" / "cards").glob("*.loan") if commands[1]._lent()]


def test_two_commands_share_one_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second measures less free memory, since the first one's run is at work; it is not counted twice."""
    driver(tmp_path, monkeypatch, 1)
    first, second = Cards(["0"], 2, tmp_path), Cards(["GPU-0"], 2, tmp_path)
    with first.lent(Need(bytes=50 * GIB)):
        (tmp_path / "taken.json").write_text(json.dumps({"now": {"0": 50 * GIB}}))
        with second.lent(Need(bytes=30 * GIB)) as loan:
            assert loan.environment == {"CUDA_VISIBLE_DEVICES": "GPU-0", SHARE: str(30 * GIB)}
            assert second._take(Need(bytes=MIB * 2), alone=False) is None
    (tmp_path / "taken.json").unlink()
    with second.lent(Need(bytes=90 * GIB)) as loan:
        assert loan.whole and SHARE not in loan.environment


def test_who_comes_first_is_served_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large run is not passed by small ones that would fit."""
    driver(tmp_path, monkeypatch, 1)
    cards, served = Cards(["0"], 4, tmp_path), []

    def one(number: int, gib: int) -> None:
        with cards.lent(Need(bytes=gib * GIB)):
            served.append(number)

    with cards.lent(Need(bytes=40 * GIB)):
        threads = []
        for number, gib in enumerate([60, 5, 5, 30]):
            threads.append(threading.Thread(target=one, args=(number, gib)))
            threads[-1].start()
            wait_until(lambda n=number: len(cards._waiting) == n + 1, "its place in the queue")
        time.sleep(0.05)
        assert served == []
    for thread in threads:
        thread.join()
    assert served[0] == 0 and sorted(served) == [0, 1, 2, 3]


def test_a_loan_ends_with_the_process_that_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And outlives the command that lent it: a run goes on when its command is killed."""
    driver(tmp_path, monkeypatch, 1)
    cards = Cards(["0"], 2, tmp_path)
    with cards.lent(Need(bytes=50 * GIB)) as loan:
        run = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[loan.lock])
    assert cards._take(Need(bytes=50 * GIB), alone=False) is None
    run.kill()
    run.wait()
    with cards.lent(Need(bytes=50 * GIB)) as loan:
        assert loan.environment[SHARE] == str(50 * GIB)


def test_nobody_waits_once_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(tmp_path, monkeypatch, 1)
    cards, stopped = Cards(["0"], 2, tmp_path), threading.Event()
    with cards.lent(Need(bytes=50 * GIB)), ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(lambda: cards.lent(Need(bytes=50 * GIB), stopped=stopped).__enter__()) for _ in range(3)]
        wait_until(lambda: len(cards._waiting) == 3, "three that wait")
        stopped.set()
        assert [one.result().environment for one in waiting] == [{}, {}, {}]


def test_runs_are_counted_where_the_driver_tells_no_memory(tmp_path: Path) -> None:
    cards, watch, names = Cards(["MIG-a", "MIG-b"], 3, tmp_path), Counter[str](), []
    with cards.lent(Need(bytes=50 * GIB)) as one, cards.lent(Need()) as two, cards.lent(Need(gpus=2)) as three:
        for loan in (one, two, three):
            assert SHARE not in loan.environment
            names += loan.environment["CUDA_VISIBLE_DEVICES"].split(",")
    watch.update(names)
    assert watch == {"MIG-a": 2, "MIG-b": 2}


def test_spread_over_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(tmp_path, monkeypatch, 3)
    cards, taken = Cards(["0", "1", "2"], 3, tmp_path), Counter[str]()
    order = random.Random(0).sample([10, 10, 10], 3)
    with cards.lent(Need(bytes=order[0] * GIB)) as a, cards.lent(Need(bytes=10 * GIB)) as b, cards.lent(Need()) as c:
        taken.update(loan.environment["CUDA_VISIBLE_DEVICES"] for loan in (a, b, c))
    assert taken == {"0": 1, "1": 1, "2": 1}


# --- needs ----------------------------------------------------------------------------------------------------------------


def changed(name: str, *settings: str) -> Entry:
    return override(load_entry(name), list(settings))


def test_a_run_needs_what_its_largest_stage_takes(tmp_path: Path) -> None:
    small = need_of(changed("smollm2-135m"), tmp_path)
    more = need_of(changed("smollm2-135m", "train.micro_batch_tokens=65536", "train.batch_rows=512"), tmp_path)
    unfilled = need_of(changed("smollm2-135m", "train.micro_batch_tokens=65536", "train.batch_rows=1"), tmp_path)
    assert unfilled.bytes and unfilled.bytes <= small.bytes, "one row fills no larger micro-batch"
    assert small.bytes and more.bytes and small.bytes < 8 * GIB < more.bytes and not small.elastic and small.gpus == 1
    large = need_of(changed("llama-3-8b", "train.gradient_checkpointing=true"), tmp_path)
    assert large.bytes and large.elastic and large.bytes > 2 * 8e9, "evaluating the 16-bit base takes more than QLoRA does"
    assert need_of(changed("smollm2-135m", "train.gpus=3"), tmp_path).gpus == 3
    long = need_of(changed("smollm2-135m", "train.micro_batch_tokens=512", "prompt.max_tokens=1024"), tmp_path)
    assert long == need_of(changed("smollm2-135m", "train.micro_batch_tokens=1024", "prompt.max_tokens=1024"), tmp_path)


def test_what_is_not_known_is_an_even_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert need_of(load_entry("lexical"), tmp_path) == Need()
    shapeless = load_entry("smollm2-135m").model_copy(update={"shape": None})
    assert need_of(shapeless, tmp_path) == Need(1)
    driver(tmp_path, monkeypatch, 1)
    with Cards(["0"], 4, tmp_path).lent(need_of(shapeless, tmp_path)) as loan:
        assert loan.environment[SHARE] == str(20 * GIB)
    with Cards(["0"], 4, tmp_path).lent(Need(bytes=5 * GIB, elastic=True)) as loan:
        assert loan.environment[SHARE] == str(20 * GIB)


def with_free(monkeypatch: pytest.MonkeyPatch, *free: int) -> list[str]:
    monkeypatch.setattr(cards_module, "free_gpu_bytes", lambda: {f"GPU-{i}": size for i, size in enumerate(free)})
    monkeypatch.setattr(cards_module, "gpu_uuids", lambda: {str(i): f"GPU-{i}" for i in range(len(free))})
    return [str(i) for i in range(len(free))]


@pytest.mark.parametrize("need", [Need(), Need(bytes=8 * GIB), Need(bytes=8 * GIB, elastic=True), Need(gpus=2)])
@pytest.mark.parametrize("alone", [False, True])
def test_a_card_without_free_memory_keeps_nobody_waiting(
    need: Need, alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no other, the run gets it and says itself that it is out of memory."""
    cards = Cards(with_free(monkeypatch, 0), 3, tmp_path)
    with cards.lent(need, alone=alone) as loan:
        assert loan.environment == {"CUDA_VISIBLE_DEVICES": "0"} and (loan.whole or not alone)


def test_a_run_waits_for_a_card_that_it_fits_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes none beside it that has nothing free, or too little, for all that it has room for nobody else."""
    cards = Cards(with_free(monkeypatch, 0, 80 * GIB, 2 * GIB), 3, tmp_path)
    for need in (Need(bytes=60 * GIB), Need()):
        with ThreadPoolExecutor(1) as pool:
            with cards.lent(Need(bytes=80 * GIB)) as first:
                assert first.environment["CUDA_VISIBLE_DEVICES"] == "1"
                later = pool.submit(lambda need=need: take(cards, need))
                if need.bytes is None:
                    assert later.result() == "2", "what is not known may fit anywhere but on a full card"
                else:
                    time.sleep(0.05)
                    assert not later.done()
            assert later.result() in ("1", "2")


def take(cards: Cards, need: Need) -> str:
    with cards.lent(need) as loan:
        return loan.environment["CUDA_VISIBLE_DEVICES"]
