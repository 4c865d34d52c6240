"""The members' score tables for a file: no blend, no budget, as many hosts as the runner has.

Each is an artifact of the store, so a killed run goes on. Given to `ensemble predict` as tables they are blended in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ensemble.plan import Plan, PlanMember, load_plan
from ensemble.predict.attempts import Setting, job_request
from ensemble.predict.workplace import Workplace
from zoo.contracts import Input, Say, ScoringRequest, Selection, changed
from zoo.errors import ZooError
from zoo.pipeline.chain import battles_input
from zoo.pipeline.runner import run_stage
from zoo.reading import check_ordinary
from zoo.scores.tables import OK, SCORES, read_scores, write_scores
from zoo.settings import home
from zoo.store import artifact_name, find


@dataclass(frozen=True)
class MemberTable:
    """A member's table as it was written, and how many of its rows have no probabilities."""

    member: str
    path: Path
    rows: int
    failed_rows: int


def write_scores_only(plan_path: Path, battles_path: Path, folder: Path, *, store: Path | None, say: Say) -> list[MemberTable]:
    """Score the battles with each member of the plan; `folder` gets MEMBER.parquet.

    Gates are not asked: every member sees every row. ZooError before anything runs where a member was imported or its
    checkpoint is not in the store.
    """
    plan = load_plan(plan_path)
    check_ordinary(battles_path, mend="give a file")
    if folder.exists() and not folder.is_dir():
        raise ZooError(f"{folder}: not a folder; --scores-only writes a table a member: give -o FOLDER")
    battles = battles_input(battles_path, say=say, most_bad=1.0)
    where = Input(path=battles.path, fingerprint=battles.fingerprint)
    setting = Setting(where, store or home() / "store", Workplace(folder, say))
    jobs = [(members, _request(members, setting, battles.unusable)) for members in _together(plan)]
    folder.mkdir(parents=True, exist_ok=True)
    tables = []
    for members, request in jobs:
        names, known = ", ".join(member.name for member in members), find(home() / "store", request)
        say(f"score {names}: {'in the store' if known else 'running'} ({artifact_name(request)})")
        artifact = known or run_stage(request, home() / "store", say=say)
        tables += [_copied(member, artifact.path / member.variant.slug / SCORES, folder) for member in members]
    return tables


def _together(plan: Plan) -> list[list[PlanMember]]:
    """The members of one load: those of the plan's jobs, each once, however its rows were dealt over devices."""
    left, found = [member.name for member in plan.members], []
    for job in plan.schedule:
        if names := [name for name in job.members if name in left]:
            found.append([plan.member(name) for name in names])
            left = [name for name in left if name not in names]
    return found


def _request(members: Sequence[PlanMember], setting: Setting, unusable: str | None) -> ScoringRequest:
    """All rows of the file by these members; nothing takes the table for one of a member's own battles."""
    request = job_request(members, Input(fingerprint=""), setting)
    return changed(request, selection=Selection(rows="all", diagnostic=True), unusable=unusable)


def _copied(member: PlanMember, table: Path, folder: Path) -> MemberTable:
    """A member's table under the member's name, by which `--scores` knows it."""
    frame, path = read_scores(table), folder / f"{member.name}.parquet"
    write_scores(frame, path)
    return MemberTable(member.name, path, len(frame), int((frame["status"] != OK).sum()))
