"""A stand-in for the interpreter of the scoring stage: it honours the stage's contract and misbehaves by its entry's name.

Chunk files are written atomically and in the order listed. It knows the truth: id modulo 3.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet

FOREVER = 900  # seconds: longer than any test waits; what a killed test run left behind ends by itself
DEAF = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep({FOREVER})"

PARENT = os.getppid()

request, out = json.loads(Path(sys.argv[4]).read_text()), Path(sys.argv[5])
kind, rows = request["entry"].split(".")[0], request["spec"]["chunk_rows"]
ids = Path(request["selection"]["ids"]["path"]).read_text().split()


def note(file: str, text: str) -> None:
    with (out / file).open("a") as log:
        log.write(text + "\n")


def table(part: list[str]) -> pyarrow.Table:
    p = [[0.8 if int(i) % 3 == label else 0.1 for i in part] for label in range(3)]
    status = ["ok"] * len(part)
    if kind == "nan":
        p[0][0] = float("nan")
    if kind == "unsummed":
        p[1] = [2 * value for value in p[1]]
    if kind == "stranger":
        part = ["x" + i for i in part]
    if kind == "unasked":
        part = [*part[:-1], "39"]  # the bad row, which no member is asked for
    if kind == "refusing":
        for n, i in enumerate(part):
            if int(i) % 2:
                status[n], p[0][n], p[1][n], p[2][n] = "refused: too long", *[float("nan")] * 3
    zeros = [0] * len(part)
    columns = {"id": part, "fold": [-1] * len(part), "p_a": p[0], "p_b": p[1], "p_tie": p[2]}
    return pyarrow.table({**columns, "n_tokens": zeros, "n_truncated_tokens": zeros, "status": status})


def write_chunk(number: int, variant: dict) -> None:
    folder = out / f"{variant['order']}-{variant['max_tokens']}" / "chunks"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{number:05d}.parquet"
    if file.exists():
        return
    part = ids[number * rows : (number + 1) * rows]
    note("scored", "\n".join(part))
    partial = file.with_suffix(".tmp")
    pyarrow.parquet.write_table(table(ids[:rows] if kind == "doubling" else part), partial)
    if kind == "garbage":
        partial.write_bytes(b"PAR1 not a table")
    partial.rename(file)


def hang(until: Callable[[], bool] = lambda: False) -> None:
    """Do nothing more while the prediction lives, until something holds."""
    while os.getppid() == PARENT and not until():
        time.sleep(0.01)


def is_allowed(chunks: int) -> bool:
    """Whether a member that is "held" or "doomed" may write so many chunks: the test says how many in a file."""
    return chunks <= int((Path(__file__).parent / "allowed").read_text())


def misbehave(number: int) -> None:
    if kind in ("held", "doomed"):
        hang(lambda: is_allowed(number + 2))
    if kind in ("hung", "deaf"):
        hang()
    if kind == "dying" and number == 1:
        (out / "error.json").write_text(json.dumps({"message": "out of memory", "known": False}))
        sys.exit(1)
    if kind in ("killed", "doomed") and number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "slow":
        time.sleep(0.2)
    if kind == "mortal" and (out / "launches").read_text().count("started") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "stopped" and number == 1 and not (out / "went").exists():
        (out / "went").touch()
        os.kill(os.getpid(), signal.SIGSTOP)


note("launches", "started")
if kind == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (out / "child").write_text(str(subprocess.Popen([sys.executable, "-c", DEAF]).pid))
for number in range(-(-len(ids) // rows)):
    for variant in request["spec"]["variants"]:
        write_chunk(number, variant)
    misbehave(number)
