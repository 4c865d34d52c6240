"""Four processes at once on one home, again and again: the same stage, another one, a build, a look."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.soak import kills
from tests.soak.homes import check_end, check_rows, check_store, check_tracking
from tests.soak.ledger import Counts, Ledger
from tests.soak.processes import HANG_SECONDS, Ended, environment, kill, run, start
from zoo.data.battles import read_battles

ROUNDS = 10
AT_ONCE = 4
LOOKS = (["zoo", "leaderboard"], ["zoo", "list"], ["zoo", "sync"], ["zoo", "du"], ["zoo", "verify"])


def run_part(folder: Path, ledger: Ledger, seed: int, say: Callable[[str], None]) -> None:
    """All rounds of this part, each on a home of its own that has one member."""
    folder.mkdir(parents=True, exist_ok=True)
    kills.write_inputs(folder)
    for number in range(ROUNDS):
        draw = random.Random(f"{seed}/crowd/{number}")
        ledger.run(f"crowd/{AT_ONCE} at once/{number}", lambda c, d=draw: _round(folder, d, c), say)


def _round(folder: Path, draw: random.Random, counts: Counts) -> None:
    place = folder / "case"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name in ("battles.csv", "theirs.csv"):
        shutil.copy(folder / name, place)
    env = environment(place / "home")
    if draw.random() < 0.7:  # else the home, and its database, are made by all of them at once
        check_end(run(kills.IMPORT, place, env), counts)
    commands = [kills.LEXICAL, kills.LEXICAL, kills.IMPORT, draw.choice(LOOKS)]
    draw.shuffle(commands)
    running = []
    for number, command in enumerate(commands):
        out, error = (place / f"{number}.out").open("wb"), (place / f"{number}.err").open("wb")
        running.append(start(command, place, env=env, stdout=out, stderr=error))
    for number, (process, command) in enumerate(zip(running, commands, strict=True)):
        code: int | None
        try:
            code = process.wait(HANG_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
            kill(process.pid)
        said = (place / f"{number}.err").read_text(errors="replace")
        looked = command in LOOKS  # before there is a member, a look may say so
        check_end(Ended(code, HANG_SECONDS, False, said, ""), counts, codes=(0, 1) if looked else (0,))
    check_end(run(kills.BUILD, place, env), counts)
    check_tracking(place / "home", place, counts)
    check_store(place / "home", counts)
    ids = set(read_battles(place / "battles.csv").ids)
    check_rows(place / "home", {"lexical-score": ids, "import": ids}, counts)
