"""`ensemble predict` by the real clock with all wrong around it: members, pipes, disk, chunks, plans, sizes.

Members are stand-ins for an engine, which misbehave by their names (tests/helpers/stand_in_scoring.py); all else is real.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from tests.helpers.predictions import ROWS, make_plan, member, prepare
from tests.soak.homes import check_end
from tests.soak.ledger import Counts, Ledger
from tests.soak.processes import Ended, environment, kill, run, start
from zoo.errors import ZooError
from zoo.scores.tables import read_submission

BUDGET_SECONDS = 20.0
PATIENCE_SECONDS = 30.0  # past the budget: what is still there then hangs
MEMBERS = (
    "dying",
    "killed",
    "hung",
    "deaf",
    "stopped",
    "slow",
    "nan",
    "unsummed",
    "stranger",
    "refusing",
    "doubling",
    "garbage",
)
NOT_FOUND, NOT_USABLE, PRIOR_ALONE = 1, 2, 3  # exit codes: a plan that is refused; no member in any row
SURE = 0.5  # the prior gives no label as much, and a stand-in its own 0.8
WRONG: tuple[Any, ...] = (None, -1, 0, 1e308, float("inf"), float("nan"), "x", "", [], {}, [[]], True, "../..", 2**70)


def run_part(folder: Path, ledger: Ledger, seed: int, say: Callable[[str], None]) -> None:
    """60 predictions: 24 with bad members, 12 with bad pipes, 18 with a bad disk, chunks or plan, 6 of other sizes or again."""
    number = 0
    for name, case, times in (
        *((f"member {kind}", _member(kind), 2) for kind in MEMBERS),
        *((f"{stream} {state}", _pipe(stream, state), 2) for stream in STREAMS for state in STATES),
        ("disk of the home full", _full_disk, 6),
        ("chunks damaged", _damaged_chunks, 6),
        ("plan edited", _edited_plan, 6),
        ("10 times the rows", _sized(10), 2),
        ("200 times the rows", _sized(200), 2),
        ("killed, orphans stopped, again", _orphans, 2),
    ):
        for time_ in range(times):
            place, draw = folder / f"{number:02d}", random.Random(f"{seed}/predictions/{number}")
            number += 1
            ledger.run(f"predict/{name}/{time_}", lambda c, p=place, d=draw, f=case: _in_place(p, d, f, c), say)


Case = Callable[[Path, random.Random, Counts], None]


def _in_place(place: Path, draw: random.Random, case: Case, counts: Counts) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    prepare(place)
    case(place, draw, counts)
    shutil.rmtree(place, ignore_errors=True)


def _command(plan: Path) -> list[str]:
    return ["ensemble", "predict", str(plan), "battles.csv", "-o", "out.csv", "--budget", f"{BUDGET_SECONDS:g}s"]


def _env(place: Path) -> dict[str, str]:
    return environment(place / "home", ZOO_SETTINGS=str(place / "settings.toml"))


def _predict(place: Path, plan: Path, counts: Counts, rows: int = ROWS) -> Ended:
    ended = run(_command(plan), place, _env(place), limit=BUDGET_SECONDS + PATIENCE_SECONDS)
    check_prediction(place, ended, counts, rows)
    return ended


def check_prediction(place: Path, ended: Ended, counts: Counts, rows: int = ROWS) -> None:
    """In time, in a line, with a whole file, an exit code that says what is in it, and nothing of what members lied about."""
    check_end(ended, counts, codes=(0, PRIOR_ALONE))
    if ended.seconds > BUDGET_SECONDS:
        counts.add("late", f"{ended.seconds:.2f} s of {BUDGET_SECONDS:g}")
    try:
        ids = pd.read_csv(place / "out.csv", dtype=str)["id"].tolist()
        expected = [str(i) for i in range(rows)]
        lost, doubled = len(set(expected) - set(ids)), len(ids) - len(set(ids))
        if lost:
            counts.add("rows_lost", f"{lost} rows of the submission", lost)
        if doubled:
            counts.add("rows_doubled", f"{doubled} rows of the submission", doubled)
        if not lost and not doubled and ids != expected:
            counts.add("invalid_files", "rows in another order, or strangers among them")
        frame = read_submission(place / "out.csv")
    except (ZooError, OSError, ValueError, KeyError) as error:
        counts.add("invalid_files", str(error))
        return
    _check_content(frame, ended, counts)


def _check_content(frame: pd.DataFrame, ended: Ended, counts: Counts) -> None:
    """Stand-ins know the truth, the id modulo 3, and are sure of it: a row by a member is told from one by the prior."""
    p = frame[["p_a", "p_b", "p_tie"]].to_numpy()
    sure = p.max(axis=1) > SURE
    wrong = int((p.argmax(axis=1) != frame["id"].astype(int) % 3)[sure].sum())
    if wrong:
        counts.add("invalid_files", f"{wrong} rows hold what no honest member said")
    if ended.code is not None and (ended.code == PRIOR_ALONE) == bool(sure.any()):
        counts.add("invalid_files", f"exit code {ended.code} with {int(sure.sum())} rows by members")
    counts.notes.append(f"{int(sure.sum())} of {len(frame)} rows by members")


def _two(place: Path, kind: str) -> Path:
    """A plan of a member of this kind and a good one."""
    return make_plan(place, [member(place, f"{kind}@ab-512"), member(place, "good@ab-512")])


def _member(kind: str) -> Case:
    def case(place: Path, draw: random.Random, counts: Counts) -> None:
        _predict(place, _two(place, kind), counts)

    return case


STREAMS, STATES = ("stdout", "stderr"), ("stalled", "broken", "closed")


def _pipe(stream: str, state: str) -> Case:
    def case(place: Path, draw: random.Random, counts: Counts) -> None:
        plan = _two(place, draw.choice(("slow", "hung")))
        reading, writing = os.pipe()
        begun = time.monotonic()
        options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: writing}
        if state == "stalled":
            _fill(writing)
        elif state == "broken":
            os.close(reading)
        else:
            options["preexec_fn"] = lambda: os.close(1 if stream == "stdout" else 2)
        process = start(_command(plan), place, env=_env(place), **options)
        os.close(writing)
        code: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(BUDGET_SECONDS + PATIENCE_SECONDS)
        seconds = time.monotonic() - begun
        kill(process.pid)
        process.wait()
        if state != "broken":
            os.close(reading)
        check_prediction(place, Ended(code, seconds, False, "", ""), counts)

    return case


def _fill(pipe: int) -> None:
    """Make a pipe as small as can be and fill it: the next write blocks."""
    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, b"x" * 64)
    os.set_blocking(pipe, True)


def _full_disk(place: Path, draw: random.Random, counts: Counts) -> None:
    (place / "home").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", place / "home"], capture_output=True)
    if mounted.returncode:
        counts.notes.append("not run: a disk of its own needs root")
        return
    try:
        plan, free = _two(place, "slow"), draw.choice((0, 4096, 40_000))
        with (place / "home" / "ballast").open("wb") as ballast, contextlib.suppress(OSError):
            while shutil.disk_usage(place / "home").free > free:
                os.write(ballast.fileno(), b"x" * 4096)
        counts.notes.append(f"{free} bytes free")
        _predict(place, plan, counts)
    finally:
        subprocess.run(["umount", "-l", place / "home"], check=True)


@contextmanager
def _vandal(place: Path, draw: random.Random) -> Iterator[list[str]]:
    """While the block runs, chunk files are cut short, filled with noise, emptied or taken away."""
    done, stop = [], threading.Event()

    def vandalize() -> None:
        while not stop.wait(0.15):
            chunks = [p for p in (place / "home" / "predict").rglob("*.parquet") if str(p) not in done]
            if chunks:
                victim = draw.choice(chunks)
                with contextlib.suppress(OSError):
                    data = victim.read_bytes()
                    noise = bytes(draw.randrange(256) for _ in range(64))
                    victim.write_bytes(draw.choice((data[: len(data) // 2], b"", data[:-64] + noise, noise)))
                    done.append(str(victim))

    thread = threading.Thread(target=vandalize, daemon=True)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def _damaged_chunks(place: Path, draw: random.Random, counts: Counts) -> None:
    with _vandal(place, draw) as damaged:
        _predict(place, _two(place, "slow"), counts)
    counts.notes.append(f"{len(damaged)} chunks damaged")
    _predict(place, place / "plan.json", counts)  # the same command goes on from what is left


def _edited_plan(place: Path, draw: random.Random, counts: Counts) -> None:
    plan = _two(place, "good.b")
    raw = json.loads(plan.read_text())
    where = draw.choice(list(places(raw)))
    holder: Any = raw
    for key in where[:-1]:
        holder = holder[key]
    value = draw.choice(WRONG)
    if draw.random() < 0.2 and isinstance(holder, dict):
        del holder[where[-1]]
        value = "(removed)"
    else:
        holder[where[-1]] = value
    counts.notes.append(f"{'.'.join(map(str, where))} = {value!r}")
    plan.write_text(json.dumps(raw))
    ended = run(_command(plan), place, _env(place), limit=BUDGET_SECONDS + PATIENCE_SECONDS)
    if ended.code in (NOT_FOUND, NOT_USABLE):
        check_end(ended, counts, codes=(NOT_FOUND, NOT_USABLE))
        if len([line for line in ended.errors.splitlines() if line.startswith("error: ")]) != 1:
            counts.add("invalid_files", f"not one line of error: {ended.errors[-400:]}")
    else:
        check_prediction(place, ended, counts)


def places(raw: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value of a JSON document lies."""
    if prefix:
        yield prefix
    items = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    for key, value in items:
        yield from places(value, (*prefix, key))


def _sized(times: int) -> Case:
    def case(place: Path, draw: random.Random, counts: Counts) -> None:
        plan = _two(place, draw.choice(("slow", "good.b")))
        prepare(place, ROWS * times)
        _predict(place, plan, counts, ROWS * times)

    return case


def _orphans(place: Path, draw: random.Random, counts: Counts) -> None:
    """The prediction alone is killed, its members are stopped where they are, and the same command comes again."""
    plan = _two(place, "slow")
    first = start(_command(plan), place, env=_env(place), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + PATIENCE_SECONDS
    while not list((place / "home" / "predict").rglob("*.parquet")) and time.monotonic() < until and first.poll() is None:
        time.sleep(0.01)
    children = subprocess.run(["pgrep", "-f", f"{place}/home/predict"], capture_output=True, text=True).stdout.split()
    first.kill()
    first.wait()
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGSTOP)
    counts.notes.append(f"{len(children)} orphans stopped")
    (place / "out.csv").unlink(missing_ok=True)
    _predict(place, plan, counts)
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
