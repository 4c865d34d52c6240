"""Members in, a plan out: what `ensemble build`, `frontier` and `recalibrate` do and leave."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble.search.pose import BUDGET, BuildOptions, pose
from zoo.contracts import Say
from zoo.errors import ZooError

if TYPE_CHECKING:
    from ensemble.plan import FrontierPoint, Plan
    from ensemble.predict.missing import Labelled


def make_plan(
    asked: BuildOptions,
    budget: str | None,
    output: Path,
    *,
    parsimony: bool = False,
    calibration: Labelled | None = None,
    say: Say,
) -> Plan:
    """Build the plan, write it to `output`, log it, and calibrate it where that is asked for.

    A plan of files alone leaves nothing in the home. ZooError where no plan can be made, and where it cannot be calibrated:
    then `output` has it as it was built.
    """
    from ensemble.plan import save_plan
    from ensemble.search.build import build_plan, plan_numbers
    from zoo.store import check_output
    from zoo.tracking.spans import recorded, span
    from zoo.tracking.sync import log_build

    given = [] if calibration is None else [calibration.path, *calibration.scores.values()]
    check_output(output, *asked.files, *given)
    with recorded("build") as recording:
        with span("gather members") as gathering:
            members, request = pose(asked, budget, parsimony=parsimony, output=output, say=say)
            gathering.attributes |= {"members": len(members.names), "rows": len(members.y)}
        if calibration is not None:
            check_names(calibration, [*members.names, *members.left_out])
        plan = build_plan(members, request, say=say)
        save_plan(plan, output)
    if not asked.scores:
        used = {member.name for member in plan.members}
        artifacts = {name: f for name, f in zip(members.names, members.fingerprints, strict=True) if name in used}
        # The plan without its paths, never the file, whatever its name.
        log_build(plan.model_dump(mode="json"), plan_numbers(plan), artifacts, spans=recording.finished())
    return plan if calibration is None else calibrated(plan, output, calibration, record=not asked.scores, say=say)


def make_frontier(asked: BuildOptions, output: Path, *, points: int, say: Say) -> tuple[FrontierPoint, ...]:
    """Compute the frontier, and write its files into the folder `output`."""
    from ensemble.report.frontier import FILES, save_frontier
    from ensemble.search.frontier import compute_frontier
    from zoo.store import check_output

    for file in FILES:
        check_output(output / file, *asked.files)
    members, request = pose(asked, BUDGET, output=output, say=say)
    found = compute_frontier(members, request, points=points, say=say)
    save_frontier(found, output)
    return found


def recalibrated(plan_path: Path, asked: Labelled, output: Path, *, say: Say) -> Plan:
    """A plan calibrated on labelled battles of another kind, as a new plan at `output`."""
    from ensemble.plan import load_plan, save_plan
    from ensemble.predict.recalibrate import recalibrate
    from ensemble.report.record import record_recalibration
    from zoo.store import check_output

    started = time.monotonic()
    check_output(output, plan_path, asked.path, *asked.scores.values())
    new = recalibrate(load_plan(plan_path), plan_path, asked, say=say)
    save_plan(new, output)
    record_recalibration(new, time.monotonic() - started)
    return new


def recalibrated_path(plan_path: Path) -> Path:
    """Where a plan goes that was recalibrated, if nobody says."""
    return plan_path.with_name(f"{plan_path.stem}-recalibrated.json")


def calibration_asked(labels: Path | None, tables: Mapping[str, Path], *, run: bool, max_bad_rows: float) -> Labelled | None:
    """What `build` is asked to calibrate on; None where it is not.

    ZooError for what cannot be right: no build's time is spent before that is known.
    """
    from ensemble.members.files import labelled_file
    from ensemble.predict.missing import Labelled
    from zoo.reading import check_ordinary

    if labels is None:
        if run or tables:
            option = "--run" if run else "--calibrate-scores"
            raise ZooError(f"{option}: is for --calibrate-on; give that with labelled battles, or leave {option} out")
        return None
    labelled_file(labels, most_bad=max_bad_rows)
    for path in tables.values():
        check_ordinary(path, mend="give a file")
    return Labelled(labels, tables, run, max_bad_rows)


def check_names(asked: Labelled, candidates: Sequence[str]) -> None:
    """ZooError where a table of --calibrate-scores is of nobody who may be in the plan."""
    for name, path in asked.scores.items():
        if name not in candidates:
            raise ZooError(f"--calibrate-scores {name}={path}: no candidate is called so; there are {', '.join(candidates)}")


def calibrated(plan: Plan, path: Path, asked: Labelled, *, record: bool = True, say: Say) -> Plan:
    """The plan of a build, which lies at `path`, calibrated; it takes that one's place.

    `record`: whether MLflow is told. ZooError where it cannot be done: the plan that was built stays.
    """
    from ensemble.plan import save_plan
    from ensemble.predict.recalibrate import recalibrate
    from ensemble.report.record import record_recalibration

    started = time.monotonic()
    names = [member.name for member in plan.members]
    tables = {name: table for name, table in asked.scores.items() if name in names}
    for name in asked.scores.keys() - tables.keys():
        say(f"{name}: is not in the plan; its table of --calibrate-scores is left alone")
    try:
        new = recalibrate(plan, path, replace(asked, scores=tables), say=say)
    except ZooError as error:
        known = "".join(f" --scores {name}={table}" for name, table in tables.items())
        mend = f"ensemble recalibrate {path} --labels {asked.path}{known}"
        raise ZooError(f"{error}; {path} is written without calibration: these are options of `{mend}`") from error
    save_plan(new, path)
    if record:
        record_recalibration(new, time.monotonic() - started)
    return new
