"""Attempts of a job: its folders, and the request that each attempt is given.

A job's folder holds one sub-folder an attempt. An attempt's list of rows never changes, since a stage that is started again on
the same folder skips the chunks that are there; rows wanted beyond that list make a new attempt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ensemble.plan import PlanMember
from ensemble.predict.workplace import Workplace
from zoo.contracts import Input, ScoreRequest, ScoringRequest, Selection, changed
from zoo.errors import ZooError
from zoo.store import MANIFEST, REQUEST, RESULT, differing_field, identity, write_atomic

IDS = "ids.txt"  # the rows of an attempt, one id a line


@dataclass(frozen=True)
class Setting:
    """What all jobs of a prediction share."""

    battles: Input
    store: Path
    place: Workplace
    lock: int | None = None  # descriptor kept open by the jobs, so that the folder stays locked while one lives
    visible_gpus: tuple[str, ...] = ()  # by the plan's device number; none where no GPU is at hand
    layout: str = ""  # begins the names of jobs' folders where the schedule is not the plan's own: its numbers mean others


def checkpoint_folder(member: PlanMember, setting: Setting) -> Path:
    """Where a member's checkpoint lies now.

    The store's artifact of that fingerprint, else where the request says, if it does. Plans of `ensemble build` name no path; a
    request by hand may.
    """
    for manifest in sorted(setting.store.glob(f"*-{member.checkpoint}/{MANIFEST}")):
        return manifest.parent
    path = member.request.model.place if member.request else None
    if path and (path / MANIFEST).exists():
        return path
    places = f"is neither in {setting.store} nor at {path}" if path else f"is not in {setting.store}"
    raise ZooError(
        f"{member.name}: checkpoint {member.checkpoint} {places}; copy it into the store "
        "or name the store that has it (ZOO_HOME)"
    )


def job_request(members: Sequence[PlanMember], ids: Input, setting: Setting) -> ScoringRequest:
    """The members' score request, re-issued on the new battles.

    It asks for the listed rows and these members' variants.
    """
    first = members[0]
    if first.request is None:
        raise ZooError(f"{first.name}: imported, so it cannot be run; give its table: --scores {first.name}=FILE")
    model = Input(path=checkpoint_folder(first, setting), fingerprint=first.checkpoint)
    request = changed(first.request, model=model, battles=setting.battles, selection=Selection(rows="listed", ids=ids))
    if not isinstance(request, ScoreRequest):
        return request
    return changed(request, spec=changed(request.spec, variants=tuple(member.variant for member in members)))


def attempts(folder: Path) -> list[Path]:
    """A job's attempts, oldest first, of this run and of those before."""
    return sorted((path for path in folder.glob("attempt-*") if (path / REQUEST).exists()), key=_number)


def listed_ids(attempt: Path) -> set[str]:
    """The rows that an attempt was asked for."""
    return set((attempt / IDS).read_text(encoding="utf-8").split("\n"))


def new_attempt(
    folder: Path, members: Sequence[PlanMember], ids: Sequence[str], setting: Setting
) -> tuple[Path, ScoringRequest]:
    """A fresh folder with the list and the request to score `ids` with `members`, in that order."""
    attempt = folder / f"attempt-{1 + max((_number(path) for path in folder.glob('attempt-*')), default=-1):02d}"
    attempt.mkdir(parents=True)
    write_atomic(attempt / IDS, "".join(f"{row_id}\n" for row_id in ids))
    request = job_request(members, _listed(attempt), setting)
    write_atomic(attempt / REQUEST, request.model_dump_json(indent=1))
    return attempt, request


def reopen(attempt: Path, members: Sequence[PlanMember], ids: Sequence[str], setting: Setting) -> ScoringRequest | None:
    """The request to go on with an attempt, with today's paths.

    None where it was not asked for these ids and members.
    """
    try:
        listed = listed_ids(attempt)
        before = json.loads((attempt / REQUEST).read_text())
    except (OSError, ValueError):
        return None
    if not set(ids) <= listed:
        return None
    request = job_request(members, _listed(attempt), setting)
    if differing_field(identity(request), identity(before)):
        return None
    (attempt / RESULT).unlink(missing_ok=True)
    write_atomic(attempt / REQUEST, request.model_dump_json(indent=1))
    return request


def _number(attempt: Path) -> int:
    digits = attempt.name.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else -1


def _listed(attempt: Path) -> Input:
    path = attempt / IDS
    return Input(path=path.absolute(), fingerprint=hashlib.sha256(path.read_bytes()).hexdigest()[:16])
