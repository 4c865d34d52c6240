"""What a competition's board said of plans: a file of the home for each, and a run."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.settings import home
from zoo.store import leave_out, locked, write_atomic
from zoo.tracking.builds import build_key
from zoo.tracking.home import kept_uses, public, public_data, unmark
from zoo.tracking.kept import KeptUse, read_kept, set_file_aside

PUBLIC, PRIVATE, PROMISE, PROMISE_SE = "board/public", "board/private", "promise/log_loss", "promise/log_loss_se"


@dataclass(frozen=True)
class Submitted:
    """A submission and what became of it.

    `plan`: the name of its file; `build`: the key of the build that it is of; `at`: when it was told first, UTC. Scores and
    the promise, with its standard error, in nats.
    """

    plan: str
    build: str
    at: datetime.datetime
    promise: float
    promise_se: float
    public: float
    private: float | None
    note: str

    @property
    def difference(self) -> float:
        """The public board's score less the promise."""
        return self.public - self.promise


def keep_submission(
    plan: Mapping[str, Any], numbers: Mapping[str, float], *, note: str = "", params: Mapping[str, str]
) -> Path:
    """Keep what the board said of a plan as a file of the home, whole or not at all.

    It is logged from there. `plan`: as JSON; `numbers`: under PUBLIC and PROMISE, and the others as far as they are known. The
    same plan and public score are the same submission: what is told later is added to it. OSError where the file cannot be
    written.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat()
    said = json.dumps([dict(plan), numbers[PUBLIC]], sort_keys=True, default=str)
    path = kept_uses() / f"submission-{hashlib.sha256(said.encode()).hexdigest()[:16]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(home(), "submissions"):
        before = read_kept(path, KeptUse) if path.exists() else {}
        if before is None:
            set_file_aside(path, "what was told before of this submission is in it")
            before = {}
        digest = str(plan.get("dataset_digest") or "unknown")
        record: dict[str, Any] = {
            "kind": "submission",
            "build": build_key(plan),
            "dataset_digest": digest,
            "at": now,
            "seconds": 0.0,
        }
        record |= {"params": public_data(dict(params)), "note": public(note)} | before
        record["numbers"] = record.get("numbers", {}) | dict(numbers)
        record["note"] = public(note) or record["note"]
        if record != before:
            write_atomic(path, json.dumps(record | {"changed": now}, indent=1))
            unmark(path.stem)
    return path


def read_submissions() -> list[Submitted]:
    """Every submission that was told, oldest first.

    A file that cannot be read is told and left out.
    """
    found = []
    for path in kept_uses().glob("submission-*.json"):
        record = read_kept(path, KeptUse)
        numbers = record["numbers"] if record else {}
        if not {PUBLIC, PROMISE, PROMISE_SE} <= numbers.keys():
            leave_out(ZooError(f"{path}: not a kept submission; remove it"))
            continue
        plan, at = str(record["params"].get("plan", "")), datetime.datetime.fromisoformat(record["at"])
        scores = (numbers[PROMISE], numbers[PROMISE_SE], numbers[PUBLIC], numbers.get(PRIVATE))
        found.append(Submitted(plan, record["build"], at, *scores, record.get("note", "")))
    return sorted(found, key=lambda one: (one.at, one.build, one.public))
