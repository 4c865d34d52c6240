"""SIGKILL at random moments of every quick command, the making of the database included; then the same command once more."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ensemble.plan import load_plan
from tests.soak.homes import check_end, check_rows, check_store, check_tracking
from tests.soak.ledger import Counts, Ledger
from tests.soak.processes import environment, run
from zoo.data.battles import read_battles
from zoo.data.sample import write_sample
from zoo.errors import ZooError

CASES = 70
ROWS = 120
LEXICAL = ["zoo", "run", "lexical", "--data", "battles.csv", "--target", "cpu"]
IMPORT = ["zoo", "import", "theirs", "--scores", "theirs.csv", "--labels", "battles.csv", "--target", "cpu"]
IMPORT += ["--seconds-per-row", "0.1"]
BUILD = [
    "ensemble",
    "build",
    "--budget",
    "5m",
    "--target",
    "cpu",
    "--rows",
    "40",
    "--battles",
    "battles.csv",
    "-o",
    "plan.json",
]
PROMOTE = ["zoo", "promote", "theirs"]


@dataclass(frozen=True)
class Kind:
    """A command, what has to be in its home before it, and which tables must be whole after it."""

    name: str
    command: list[str]
    before: tuple[list[str], ...]
    tables: tuple[str, ...]


KINDS = (
    Kind("run lexical, empty home", LEXICAL, (), ("lexical-score",)),
    Kind("import, empty home", IMPORT, (), ("import",)),
    Kind("run lexical, used home", LEXICAL, (IMPORT,), ("lexical-score", "import")),
    Kind("build", BUILD, (LEXICAL, IMPORT), ("lexical-score", "import")),
    Kind("promote", PROMOTE, (LEXICAL, IMPORT), ("lexical-score", "import")),
    Kind("sync, database gone", ["zoo", "sync"], (LEXICAL, IMPORT), ("lexical-score", "import")),
)


def run_part(folder: Path, ledger: Ledger, seed: int, say: Callable[[str], None]) -> None:
    """All cases of this part. What a command takes undisturbed is measured once and says when it can be killed."""
    folder.mkdir(parents=True, exist_ok=True)
    write_inputs(folder)
    bases = {kind.name: _base(folder, kind) for kind in KINDS}
    for number in range(CASES):
        kind = KINDS[number % len(KINDS)]
        draw = random.Random(f"{seed}/kills/{number}")
        place, took = bases[kind.name]
        ledger.run(f"kill/{kind.name}/{number}", lambda c, k=kind, d=draw, p=place, t=took: _case(folder, k, p, t, d, c), say)


def write_inputs(folder: Path) -> None:
    """Battles, and a table of scores for them that is no good but right in form."""
    write_sample(folder / "battles.csv", ROWS, 3)
    ids = read_battles(folder / "battles.csv").frame["id"]
    draw = random.Random(0)
    lines = []
    for row_id in ids:
        weights = [draw.uniform(0.2, 1) for _ in range(3)]
        lines.append(",".join([row_id, *(f"{w / sum(weights):.6f}" for w in weights)]))
    (folder / "theirs.csv").write_text("\n".join(["id,p_a,p_b,p_tie", *lines]) + "\n")


def _base(folder: Path, kind: Kind) -> tuple[Path, float]:
    """A folder with the home before the command, and the seconds that the command takes on it undisturbed."""
    place = folder / "bases" / kind.name.replace(" ", "-").replace(",", "")
    trial = folder / "trial"
    for target in (place, trial):
        shutil.rmtree(target, ignore_errors=True)
    place.mkdir(parents=True)
    for name in ("battles.csv", "theirs.csv"):
        shutil.copy(folder / name, place)
    for command in kind.before:
        done = run(command, place, environment(place / "home"))
        if done.code != 0:
            raise RuntimeError(f"{' '.join(command)} failed undisturbed: {done.errors}")
    if kind.name.endswith("database gone"):
        for left in (place / "home").glob("*mlflow.db*"):
            left.unlink()
    shutil.copytree(place, trial, symlinks=True)
    return place, run(kind.command, trial, environment(trial / "home")).seconds


def _case(folder: Path, kind: Kind, base: Path, took: float, draw: random.Random, counts: Counts) -> None:
    place = folder / "case"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(base, place, symlinks=True)
    env = environment(place / "home")
    for _ in range(draw.choice((1, 1, 2))):
        moment, everything = draw.uniform(0, took), draw.random() < 0.6
        ended = run(kind.command, place, env, kill_after=moment, everything=everything)
        counts.notes.append(f"{'killed' if ended.killed else 'ended before'} {moment:.2f} of {took:.1f} s")
        if not ended.killed:
            check_end(ended, counts)
        check_store(place / "home", counts, finished=False)
    check_end(run(kind.command, place, env), counts)
    check_tracking(place / "home", place, counts)
    check_store(place / "home", counts)
    ids = set(read_battles(place / "battles.csv").ids)
    check_rows(place / "home", dict.fromkeys(kind.tables, ids), counts)
    if kind.command[1] == "build":
        try:
            load_plan(place / "plan.json")
        except ZooError as error:
            counts.add("invalid_files", str(error))
