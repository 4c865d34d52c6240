"""The end, however it comes: a whole submission, what was done, and a line that says which."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .find import Found
from .places import LOG, REPORT, Places, State, say, write_whole
from .submission import Form, fault, write_prior

LOG_BYTES = 200_000  # of the log's end: what a notebook keeps is downloaded with every look at it


def put(made: Path, submission: Path) -> str:
    """Put a finished file in the submission's place; why that cannot be, else empty.

    Where there is no room for both, over what is there, which is written back if the new one does not fit either.
    """
    text = made.read_text(encoding="utf-8", errors="surrogateescape")
    with suppress(OSError):
        write_whole(submission, text)
        return ""
    try:
        before = submission.read_bytes() if submission.exists() else b""
        submission.write_bytes(text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        with suppress(OSError):
            submission.write_bytes(before)
        return f"{submission}: {error.strerror or error}; remove what else lies in {submission.parent}"
    return ""


def first_file(found: Found, form: Form, places: Places) -> int:
    """Write the prior of every row at once; how many rows.

    OSError where there is no room for one such file.
    """
    prior = found.bundle["prior"]
    try:
        places.working.mkdir(parents=True, exist_ok=True)
        return write_prior(found.battles, form, prior, places.submission)
    except OSError:
        places.scratch.mkdir(parents=True, exist_ok=True)
        rows = write_prior(found.battles, form, prior, places.scratch / "prior.csv")
        if why := put(places.scratch / "prior.csv", places.submission):
            raise OSError(why) from None
        return rows


def standing(found: Found, form: Form, places: Places) -> tuple[bool, str]:
    """Whether the submission is whole, and the line that says what is in it."""
    if wrong := fault(places.submission, found.battles, form):
        return False, f"{places.submission} is NOT whole: {wrong}"
    rows, priors = _count(places.submission, found, form)
    if priors == rows:
        return True, f"{places.submission} is whole: {rows:,} rows, ALL the plan's prior, no member is in it"
    told = f", {priors:,} of them the plan's prior" if priors else ", members in each"
    return True, f"{places.submission} is whole: {rows:,} rows{told}"


def leave(found: Found, form: Form, places: Places, state: State, code: int | None, said: Mapping[str, Any]) -> bool:
    """Leave the submission whole, predict.json and the log's end beside it; whether it is whole.

    `code`: how predicting ended, None where it was not begun. `said`: what predict.json is to tell of the notebook.
    """
    whole, line = standing(found, form, places)
    if not whole:
        say(f"{line}; the prior takes its place")
        with suppress(OSError):
            first_file(found, form, places)
        whole, line = standing(found, form, places)
    ended = "predicting was not begun" if code is None else f"predicting ended with exit code {code}"
    report = _report(places) | {"notebook": {**vars(state), **said, "ended": ended, "submission": line}}
    for name, text in ((REPORT, json.dumps(report, indent=1)), (LOG, _end_of(places.log))):
        try:
            write_whole(places.working / name, text)
        except OSError as error:
            say(f"{places.working / name}: {error.strerror or error}; the submission stays as it is")
    say(f"{line}; {ended}")
    return whole


def _count(submission: Path, found: Found, form: Form) -> tuple[int, int]:
    """Rows of a submission, and those that are the prior. Of one that names winners it cannot be told: none."""
    rows = priors = 0
    prior = [float(cell) for cell in _numbers(form.row("", found.bundle["prior"]), form)]
    with submission.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = csv.reader(file)
        next(lines)
        for row in lines:
            rows += 1
            cells = [float(cell) for cell in _numbers(row, form)]
            priors += bool(cells) and all(abs(a - b) < 1e-9 for a, b in zip(cells, prior, strict=True))
    return rows, priors


def _numbers(row: Sequence[str], form: Form) -> list[str]:
    return [cell for cell, part in zip(row, form.parts, strict=True) if part in ("a", "b", "tie")]


def _report(places: Places) -> dict[str, Any]:
    """The newest predict.json of the home; nothing where predicting left none."""
    found = sorted(places.home.glob(f"predict/*/{REPORT}"), key=lambda path: path.stat().st_mtime)
    with suppress(OSError, ValueError, IndexError):
        report: dict[str, Any] = json.loads(found[-1].read_text(encoding="utf-8"))
        return report
    return {}


def _end_of(log: Path) -> str:
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_BYTES))
        return file.read().decode("utf-8", "replace")
    return ""
