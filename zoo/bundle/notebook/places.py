"""Where the script reads and writes, and what its stages leave for each other."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SUBMISSION, REPORT, LOG, STATE = "submission.csv", "predict.json", "predict.log", "state.json"


class Refused(Exception):
    """Nothing can be done here; the message says why and names the mend."""


@dataclass(frozen=True)
class Places:
    """Folders of one notebook session.

    `inputs`: what is attached, read-only. `working`: what the notebook leaves. `scratch`: everything else, on a disk that is
    large and forgotten; `environment`: an environment to take instead of installing the wheels.
    """

    inputs: Path
    working: Path
    scratch: Path
    environment: Path | None = None

    @property
    def submission(self) -> Path:
        return self.working / SUBMISSION

    @property
    def log(self) -> Path:
        return self.scratch / LOG

    @property
    def home(self) -> Path:
        return self.scratch / "home"


def places_of(environment: Mapping[str, str]) -> Places:
    """The places that the environment names, Kaggle's own where it names none.

    By `PZ_INPUT`, `PZ_WORKING`, `PZ_SCRATCH` and `PZ_ENVIRONMENT`.
    """
    given = environment.get("PZ_ENVIRONMENT")
    return Places(
        inputs=Path(environment.get("PZ_INPUT", "/kaggle/input")),
        working=Path(environment.get("PZ_WORKING", "/kaggle/working")),
        scratch=Path(environment.get("PZ_SCRATCH", "/tmp/preference-zoo")),
        environment=Path(given) if given else None,
    )


@dataclass
class State:
    """What a stage leaves for the next, in the scratch folder.

    `started_at`: Unix seconds at which the session's hours began. `installs`, `serves`: whether the image takes the bundle's
    wheels, and the cards its engine. `python`: the interpreter to predict with, empty before there is one; `engines`: those
    that it has. `direct`: whether the working folder has room for a second copy of the submission while it is replaced.
    """

    started_at: float
    installs: bool = True
    serves: bool = True
    why_not: str = ""
    python: str = ""
    product: str = ""
    engines: list[str] = field(default_factory=list)
    on_processors: bool = False
    turing: bool = False
    direct: bool = True
    checks: list[dict[str, str]] = field(default_factory=list)

    def save(self, places: Places) -> None:
        """Write it whole.

        A scratch folder that takes nothing is told, not raised: the stage itself goes on.
        """
        try:
            places.scratch.mkdir(parents=True, exist_ok=True)
            write_whole(places.scratch / STATE, json.dumps(vars(self), indent=1))
        except OSError as error:
            say(f"{places.scratch}: {error.strerror or error}; set PZ_SCRATCH to a folder with room")


def load_state(places: Places, environment: Mapping[str, str]) -> State:
    """What earlier stages of this session left.

    Hours count from `PZ_STARTED_AT` where it is set, else from the first stage of the session.
    """
    try:
        kept: dict[str, Any] = json.loads((places.scratch / STATE).read_text(encoding="utf-8"))
        state = State(**kept)
    except (OSError, ValueError, TypeError):
        state = State(time.time())
    if told := environment.get("PZ_STARTED_AT"):
        try:
            state.started_at = float(told)
        except ValueError as error:
            raise Refused(f"PZ_STARTED_AT={told}: no Unix seconds; leave it out, or set it to time.time()") from error
    return state


def write_whole(path: Path, text: str) -> None:
    """The file, replaced at once or not at all. OSError where there is no room for both."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def say(text: str) -> None:
    """One line for the notebook, with the time of day: its log has none for what a cell prints."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stdout, flush=True)
