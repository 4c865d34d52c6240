"""Ensemble builds as MLflow runs, linked to their members' runs, models and data."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.scores.metric_names import HOURS_25K
from zoo.settings import home
from zoo.store import identity, leave_out, locked, write_atomic
from zoo.tracking.client.connection import connect
from zoo.tracking.client.models import link_model
from zoo.tracking.client.runs import find_run, finished
from zoo.tracking.client.traces import log_trace
from zoo.tracking.client.writing import describe, write_batch, write_files, write_input
from zoo.tracking.describe import LAYOUT, NOTE, build_note, is_our_note, note_tags, run_link, with_build
from zoo.tracking.experiments import UNNAMED, experiment_of
from zoo.tracking.facts import Data
from zoo.tracking.home import kept_builds, mark, mark_begun, public_data
from zoo.tracking.kept import KeptBuild, read_kept
from zoo.tracking.models import crown
from zoo.tracking.naming import build_name

if TYPE_CHECKING:
    from zoo.report.leaderboard import Row
    from zoo.tracking.client.connection import MlflowClient

BUILD = "build.json"  # of a kept build: plan, numbers, members, built_at; beside it the figures and tables it logs


def keep_build(
    plan: Mapping[str, Any],
    numbers: Mapping[str, float],
    members: Mapping[str, str],
    files: Sequence[Path] = (),
    spans: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Keep what a build logs in a folder of the home, whole or not at all.

    It is logged from there, at once or again. The plan goes there without the paths in it; a build that is kept already stays
    as it is. `spans`: what took how long, see `zoo.tracking.spans`.
    """
    arguments: dict[str, Any] = {"plan": _kept_plan(plan), "numbers": dict(numbers), "members": dict(members)}
    arguments |= {"spans": public_data(list(spans))}
    folder = kept_builds() / plan_key(arguments["plan"])
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        if path.name != "plan.json":
            shutil.copy2(path, folder)
    if not (folder / BUILD).exists():
        arguments["built_at"] = datetime.datetime.now(datetime.UTC).isoformat()
        write_atomic(folder / BUILD, json.dumps(arguments))
    return folder


def builds_that_run(checkpoint: str) -> list[str]:
    """Names of the kept builds with a member that runs this checkpoint."""
    found = []
    for path in sorted(kept_builds().glob(f"*/{BUILD}")):
        kept = read_kept(path, KeptBuild)
        if kept and any(member.get("checkpoint") == checkpoint for member in kept["plan"].get("members", [])):
            found.append(f"build {path.parent.name[:6]}")
    return found


def _kept_plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A plan without the paths in it."""
    return dict(public_data(identity(dict(plan))))


def build_key(plan: Mapping[str, Any]) -> str:
    """The key of the build that a plan is of, from the plan as JSON.

    A recalibrated plan is of the build that made it.
    """
    return plan_key(_kept_plan({name: value for name, value in plan.items() if name != "calibration"}))


def build_mark(folder: Path) -> str:
    """The name under which it is noted that a kept build is logged."""
    return f"build-{folder.name}"


def plan_key(plan: Mapping[str, Any]) -> str:
    """What makes a build the same one when it is logged again."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True, default=str).encode()).hexdigest()[:16]


def mirror_build(folder: Path) -> bool:
    """Log a kept build; whether it was missing. Raises what MLflow raises.

    Its members' checkpoints become their entries' champions, and it is linked to their runs.
    """
    kept = _kept(folder)
    if kept is None:
        return False
    plan, members = kept["plan"], kept["members"]
    digest, key = str(plan.get("dataset_digest") or "unknown"), f"build:{plan_key(plan)}"
    built_at = (
        kept.get("built_at") or datetime.datetime.fromtimestamp((folder / BUILD).stat().st_mtime, datetime.UTC).isoformat()
    )
    when = round(1000 * datetime.datetime.fromisoformat(built_at).timestamp())
    with locked(home(), "tracking"):
        client = connect()
        mark_begun(build_mark(folder))
        experiment = experiment_of(client, Data(digest, UNNAMED))
        run = find_run(client, experiment, fingerprint=key)
        missing = not finished(run)
        if missing or not LAYOUT.items() <= run.data.tags.items():
            runs = {name: _member_run(client, experiment, name, fingerprint) for name, fingerprint in members.items()}
            tags = _tags(plan, key, digest, members, runs)
            if run and run.info.run_name != f"build {plan_key(plan)[:6]}" and not missing:
                del tags["mlflow.runName"]  # people called it something
            run = run or client.create_run(experiment, start_time=min(when, _begun(kept) or when), tags=tags)
            run_id = str(run.info.run_id)
            write_batch(client, run_id, tags=tags)
            links = {name: member_link(name, experiment, found) for name, found in runs.items()}
            describe(client, run, build_note(plan, links))
            for found in filter(None, runs.values()):
                _name_build(client, found, run_link(build_name(plan, list(members)), experiment, run_id))
        if missing:
            points = [(name, value, when, 0) for name, value in kept["numbers"].items()]
            write_batch(client, run_id, params=_params(plan, members), points=points)
            write_input(client, run_id, Data(digest, _data_name(digest, runs)), "evaluation")
            client.log_dict(run_id, plan, "plan.json")
            for path in sorted(path for path in folder.iterdir() if BUILD not in path.name):
                client.log_artifact(run_id, str(path))
            write_files(client, run_id, _figures(plan, kept["numbers"]), "figures")
            for found in filter(None, runs.values()):
                _use_member(client, run_id, found, built_at)
            asked, came = (
                {"command": "ensemble build", **_asked(plan)},
                {"run": build_name(plan, list(members)), **kept["numbers"]},
            )
            log_trace(client, run, key, kept.get("spans", []), asked=asked, came=came)
            client.set_terminated(run_id, end_time=when)
        mark(build_mark(folder))
    return missing


def _begun(kept: Mapping[str, Any]) -> int | None:
    """When a build began, in milliseconds, by the first of its spans; None for those of earlier versions."""
    spans = kept.get("spans") or []
    return round(spans[0]["start"] / 1e6) if spans else None


def _data_name(digest: str, runs: Mapping[str, Any]) -> str:
    """What a build's battles are called, as its members' runs have it: a plan knows their digest alone."""
    inputs = [given for run in runs.values() if run and run.inputs for given in run.inputs.dataset_inputs]
    return next((given.dataset.name for given in inputs if given.dataset.digest == digest[:36]), UNNAMED)


def _kept(folder: Path) -> dict[str, Any] | None:
    """What a build logged; None, with a line, where its file is broken: it keeps no other from being logged."""
    kept: dict[str, Any] | None = read_kept(folder / BUILD, KeptBuild)
    if kept is None:
        leave_out(ZooError(f"{folder / BUILD}: not a kept build; remove {folder}"))
    return kept


def _tags(
    plan: Mapping[str, Any], key: str, digest: str, members: Mapping[str, str], runs: Mapping[str, Any]
) -> dict[str, str]:
    tags = {"zoo.kind": "build", "zoo.stage": "build", "zoo.fingerprint": key, "zoo.dataset": digest, "zoo.scored": "yes"}
    tags |= LAYOUT | {"mlflow.runName": build_name(plan, list(members)), "mlflow.source.name": "ensemble build"}
    tags |= {"zoo.entry": "ensemble"}  # MLflow's groups of runs by entry have the builds side by side
    tags |= {"zoo.target": str(plan["target"]["name"])} if isinstance(plan.get("target"), dict) else {}
    tags |= {"zoo.study": str(plan["study"]["name"])} if isinstance(plan.get("study"), dict) else {}
    return tags | {
        f"member.{_tag_name(name)}": str(found.info.run_id) if found else f"fingerprint {members[name]}"
        for name, found in runs.items()
    }


def _asked(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Of a plan, what the build was asked for."""
    target = plan.get("target")
    where = {"target": target["name"] if isinstance(target, dict) else target}
    return where | {name: plan[name] for name in ("budget_seconds", "margin", "rows", "fitted_rows") if name in plan}


def _params(plan: Mapping[str, Any], members: Mapping[str, str]) -> dict[str, str]:
    params = {k: str(v) for k, v in plan.items() if isinstance(v, str | int | float) and k != "dataset_digest"}
    params = {name: value[:6000] for name, value in params.items() if value}
    return params | {"members": ", ".join(members)[:6000]}


def _figures(plan: Mapping[str, Any], numbers: Mapping[str, float]) -> dict[str, bytes]:
    """Cost against log loss of the members on the plan's data, target and number of rows, the plan among them.

    Losses on other rows do not compare, so members that were scored on fewer or more are not drawn.
    """
    from zoo.report.drawing import png
    from zoo.report.figures import cost_figure
    from zoo.report.leaderboard import SAME_ROWS

    target = plan["target"]["name"] if isinstance(plan.get("target"), dict) else None
    fitted = int(plan.get("fitted_rows") or 0)
    rows = [
        row
        for row in _scored_on(str(plan.get("dataset_digest") or "unknown"))
        if row.log_loss is not None and SAME_ROWS * fitted <= row.rows <= fitted / SAME_ROWS and not row.suspect
    ]
    best = next((row for row in rows if row.is_best and all(row.group == other.group for other in rows)), None)
    points = {
        row.member: (row.hours_25k, *_loss(row, best)) for row in rows if row.target == target and row.hours_25k is not None
    }
    if not points:
        return {}
    hours, loss, error = numbers.get(HOURS_25K), plan.get("oof_log_loss"), plan.get("oof_log_loss_se")
    of = f"data {str(plan.get('dataset_digest'))[:8]}"
    own = (hours, float(loss), 0.0 if best else float(error or 0.0)) if hours and loss else None  # its pairs are in the plan
    drawn = cost_figure(points, own, target=str(target), rows=fitted, of=of, best=best.member if best else "")
    return {"cost_log_loss.png": png(drawn)}


def _loss(row: Row, best: Row | None) -> tuple[float, float]:
    """A member's loss with the error of its paired difference from the best, which has none.

    With its own error where no member is the best of all.
    """
    if best is None or row.common_log_loss is None:
        return row.log_loss or 0.0, row.log_loss_se or 0.0
    return row.common_log_loss, 0.0 if row is best else row.difference_se or 0.0


def _scored_on(digest: str) -> list[Row]:
    """The leaderboard's rows of one data set; none where no member of it is in the store any more."""
    from zoo.report.leaderboard import leaderboard

    try:
        return leaderboard(home() / "store", data=digest)
    except ZooError:
        return []


def _tag_name(member: str) -> str:
    """A member's name as MLflow allows it in a tag's: no `@`."""
    return re.sub(r"[^\w.\-/ ]", "/", member)


def member_link(name: str, experiment: str, run: Any) -> str:
    """A member's name as a link to its run, where that is logged."""
    return run_link(name, experiment, run.info.run_id) if run else name


def _name_build(client: MlflowClient, member: Any, link: str) -> None:
    """Name a build in the description of a member's run, unless people wrote that."""
    tags = client.get_run(member.info.run_id).data.tags
    if is_our_note(tags):
        write_batch(client, member.info.run_id, tags=note_tags(with_build(tags.get(NOTE, ""), link)))


def _member_run(client: MlflowClient, experiment: str, member: str, fingerprint: str) -> Any:
    """A member's run, or None where it is not logged (yet)."""
    return find_run(client, experiment, fingerprint=fingerprint, member=member)


def _use_member(client: MlflowClient, run_id: str, member: Any, built_at: str) -> None:
    """Link a build to the checkpoint of one of its members, which becomes its entry's champion."""
    inputs = client.get_run(member.info.run_id).inputs  # a search leaves the models out
    for model in inputs.model_inputs if inputs else []:
        link_model(client, run_id, model.model_id)
        checkpoint = client.get_logged_model(model.model_id).tags.get("zoo.fingerprint", "")
        crown(client, member.data.tags["zoo.entry"], checkpoint, built_at)
