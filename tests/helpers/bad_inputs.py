"""Rows of tests/bad_inputs.toml: the files that a row needs, made by builders with names, and how its command ended.

A file is `{ text = ... }`, `{ repeat = [TEXT, TIMES] }`, `{ hex = ... }`, `{ json = ... }`, `{ encode = [NAME, ENCODING] }`,
`{ copy = NAME, swap = [[OLD, NEW]] }`, `{ gzip = NAME, keep = BYTES }`, `{ zeros = MIB }`, `{ sparse = MIB }`,
`{ parquet = NAME }`, `{ plan = [[PATH, VALUE], ...] }`, `{ link = ... }`, `{ fifo = true }`, `{ folder = true }` or
`{ model = {CONFIG} }`, where NAME is one of the good files below.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pandas as pd

from tests.helpers.command_lines import Done, run_command
from tests.helpers.model_folders import model
from tests.helpers.paths import ROOT
from tests.helpers.plans import plan_member, plan_of, plan_pool, written
from zoo.data.sample import write_sample

TABLE = ROOT / "tests" / "bad_inputs.toml"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # but tabs and line breaks
MEMBER = "theirs"
HANGS_SECONDS = 60


class Hangs(BaseException):
    """No `Exception`: what it comes up in must not take it for a fault of its own and go on."""


class Row(NamedTuple):
    """One bad input; TOML's keys as they are. `code`: the exit code, or a list of those that are right."""

    name: str
    run: str
    code: int
    names: list[str]
    never: list[str]
    files: dict[str, Any]
    env: dict[str, str]
    home: str
    process: bool
    slow: bool


def rows() -> list[Row]:
    """All rows of the table. An unknown key is an error."""
    defaults: dict[str, Any] = {"code": 2, "names": [], "never": [], "files": {}, "env": {}, "home": ""}
    defaults |= {"process": False, "slow": False}
    return [Row(**{**defaults, **row}) for row in tomllib.loads(TABLE.read_text(encoding="utf-8"))["row"]]


def write_good_files(folder: Path) -> None:
    """What rows start from: battles, a table of them as a member's, a submission, and a plan of that member."""
    folder.mkdir(parents=True, exist_ok=True)
    write_sample(folder / "battles.csv", 60, 3)
    frame = pd.read_csv(folder / "battles.csv", dtype=str)
    won = frame[["winner_model_a", "winner_model_b", "winner_tie"]].astype(float).to_numpy()
    won[::3] = np.roll(won[::3], 1, axis=1)  # a member that is always right would be left out as one that saw the labels
    p = 0.25 + 0.25 * won
    table = pd.DataFrame({"id": frame["id"], "p_a": p[:, 0], "p_b": p[:, 1], "p_tie": p[:, 2]})
    table.to_csv(folder / "scores.csv", index=False)
    names = {"p_a": "winner_model_a", "p_b": "winner_model_b", "p_tie": "winner_tie"}
    table.rename(columns=names).to_csv(folder / "submission.csv", index=False)
    frame.drop(columns=[name for name in frame if name.startswith("winner_")]).to_csv(folder / "test.csv", index=False)
    member = plan_member(MEMBER)
    hours = 100 * 3600  # a command in the tests' process starts when that started
    written(plan_of([member], [plan_pool((MEMBER,), 0.9)], budget_seconds=hours), folder / "plan.json")


def make(path: Path, what: dict[str, Any], good: Path) -> None:
    """One file of a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match what:
        case {"text": str(text)}:
            path.write_text(text, encoding="utf-8", errors="surrogatepass")
        case {"repeat": [str(text), int(times)]}:
            path.write_text(text * times)
        case {"hex": str(digits)}:
            path.write_bytes(bytes.fromhex(digits))
        case {"json": found}:
            path.write_text(json.dumps(found))
        case {"copy": str(name)}:
            data = (good / name).read_text()
            for old, new in what.get("swap", []):
                assert old in data, f"{name} has no {old!r}"
                data = data.replace(old, new, what.get("times", 1))
            path.write_text(data, encoding="utf-8", errors="surrogatepass")
        case {"encode": [str(name), str(encoding)]}:
            path.write_bytes((good / name).read_text().encode(encoding))
        case {"gzip": str(name)}:
            path.write_bytes(gzip.compress((good / name).read_bytes())[: what.get("keep")])
        case {"zeros": int(mib)}:
            path.write_bytes(gzip.compress(bytes(mib << 20)))
        case {"sparse": int(mib)}:
            with path.open("wb") as file:
                file.truncate(mib << 20)
        case {"parquet": str(name)}:
            pd.read_csv(good / name, dtype={"id": str}).to_parquet(path)
        case {"plan": list(edits)}:
            path.write_text(json.dumps(_edited(json.loads((good / "plan.json").read_text()), edits)))
        case {"link": str(target)}:
            path.symlink_to(target)
        case {"fifo": True}:
            os.mkfifo(path)
        case {"folder": True}:
            path.mkdir()
        case {"model": dict(config)}:
            model(path, **config)
        case _:
            raise ValueError(f"{path.name}: no builder for {what}")


def _edited(plan: Any, edits: list[list[Any]]) -> Any:
    """A plan with values replaced, as in `["members.0.cost.load_seconds", -1]`; `nan` and `inf` as words are numbers."""
    for place, value in edits:
        *path, last = place.split(".")
        inside = plan
        for key in path:
            inside = inside[int(key)] if isinstance(inside, list) else inside[key]
        value = float(value) if value in ("nan", "inf", "-inf") else value
        inside[int(last) if isinstance(inside, list) else last] = value
    return plan


def run_row(row: Row, folder: Path, good: Path, homes: dict[str, Path]) -> Done:
    """Make a row's files in a folder, and run its command there, in this process or one of its own."""
    from ensemble.cli import main as ensemble_main
    from zoo.cli.main import main as zoo_main

    here = folder / "here"
    here.mkdir()
    for name, what in row.files.items():
        make(here / name, what, good)
    environment = {name: value.replace("HERE", str(here)) for name, value in row.env.items()}
    home = Path(environment.get("ZOO_HOME", folder / "home"))
    if row.home:
        shutil.copytree(homes[row.home], home)
    program, *arguments = _words(row.run.replace("GOOD", str(good)))
    if row.process:
        return in_process(program, arguments, here, {**environment, "ZOO_HOME": str(home)})
    main = {"zoo": zoo_main, "ensemble": ensemble_main}[program]
    with mock.patch.dict(os.environ, environment), time_limit():
        return run_command(main, program, *arguments, home=home, folder=here)


@contextmanager
def time_limit() -> Iterator[None]:
    """Fail what hangs in this process, long before the test's own limit."""

    def fail(*_: object) -> None:
        raise Hangs(f"still at work after {HANGS_SECONDS} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(HANGS_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _words(line: str) -> list[str]:
    return [word.encode().decode("unicode_escape") if "\\x" in word or "\\u" in word else word for word in shlex.split(line)]


def in_process(program: str, arguments: list[str], folder: Path, environment: dict[str, str]) -> Done:
    """The command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def faults(row: Row, done: Done) -> list[str]:
    """What of a command's end is not as the row says, or as no command may end."""
    text = done.stdout + done.stderr
    found = [f"{name!r} is not named" for name in row.names if name not in text]
    found += [f"{name!r} is there" for name in ["Traceback", *row.never] if name in text]
    if done.returncode != row.code:
        found.append(f"exit code {done.returncode}, not {row.code}")
    if raw := RAW.search(text):
        found.append(f"raw control character {raw[0]!r}")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if row.code and not (len(errors) == 1 and done.stderr.rstrip("\n").endswith(errors[0])) and not done.stdout:
        found.append("not one line `error: ...` at the end")
    return found
