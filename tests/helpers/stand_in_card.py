"""Runs on cards of memory that is counted in a file: python -m tests.helpers.stand_in_card FOLDER ... TITLE

In place of `zoo experiment ... --only TITLE`. FOLDER/needs.json says what each run takes of its cards, FOLDER/size.json what a
card has. A run that takes more than is left on a card ends as one that is out of memory does; all it took is noted down.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OUT_OF_MEMORY = 4
MIB = 1 << 20


@contextmanager
def account(folder: Path) -> Iterator[dict[str, Any]]:
    """What is taken of each card, and the most that ever was; held by one run at a time."""
    with (folder / "taken.json").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        found: dict[str, Any] = json.loads(file.read() or '{"now": {}, "most": {}, "order": []}')
        yield found
        file.truncate(0)
        file.write(json.dumps(found))


def fake_driver(folder: Path, cards: int, size: int) -> None:
    """A program `nvidia-smi` in FOLDER/bin that tells of so many cards of `size` MiB, all that is not taken free."""
    (folder / "bin").mkdir()
    (folder / "size.json").write_text(json.dumps(size * MIB))
    program = folder / "bin" / "nvidia-smi"
    program.write_text(f"#!{sys.executable} -S\n{_DRIVER.format(cards=cards, size=size, folder=str(folder))}")
    program.chmod(0o755)


_DRIVER = """
import json, os, sys
fields = sys.argv[1].partition("=")[2].split(",")
taken = "{folder}/taken.json"
text = open(taken).read() if os.path.exists(taken) else ""
now = json.loads(text)["now"] if text else {{}}
for card in range({cards}):
    free = {size} - now.get(str(card), 0) // 2**20
    told = {{"index": card, "uuid": f"GPU-{{card}}", "name": "Stand-in"}}
    told |= {{"memory.free": f"{{free}} MiB", "memory.total": "{size} MiB"}}
    print(", ".join(str(told[field]) for field in fields))
"""


def main(folder: Path, title: str) -> int:
    size, need = json.loads((folder / "size.json").read_text()), json.loads((folder / "needs.json").read_text())[title]
    cards, share = os.environ["CUDA_VISIBLE_DEVICES"].split(","), os.environ.get("ZOO_GPU_BYTES")
    with account(folder) as found:
        fits = all(found["now"].get(card, 0) + need["takes"] <= size for card in cards)
        found["order"].append([title, cards, share and int(share)])
        if fits:
            for card in cards:
                found["now"][card] = found["now"].get(card, 0) + need["takes"]
                found["most"][card] = max(found["most"].get(card, 0), found["now"][card])
    if not fits:
        print("OutOfMemoryError: CUDA out of memory")
        return OUT_OF_MEMORY
    time.sleep(need.get("seconds", 0.02))
    with account(folder) as found:
        for card in cards:
            found["now"][card] -= need["takes"]
    if need.get("killed") and not (folder / f"{title}.again").exists():
        (folder / f"{title}.again").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return int(need.get("code", 0))


if __name__ == "__main__":
    sys.exit(main(Path(os.environ["ZOO_STAND_IN"]), sys.argv[-1]))
