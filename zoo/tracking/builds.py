"""Ensemble builds as MLflow runs, linked to their members' runs, models and data."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cost.price import COMPETITION_ROWS
from zoo.scores.metric_names import HOURS_25K, SECONDS_PER_ROW
from zoo.settings import home
from zoo.store import identity, locked
from zoo.tracking.client import connect, experiment_of, find_run, finished, link_model, write_batch, write_files, write_input
from zoo.tracking.facts import Data
from zoo.tracking.home import mask, one_line, public_data, tracking_uri, unlogged_builds
from zoo.tracking.models import crown

if TYPE_CHECKING:
    from zoo.tracking.client import MlflowClient

BUILD = "build.json"  # of a build that waits for its tracking store: what `mirror_build` takes
logger = logging.getLogger("zoo")


def log_build(
    plan: Mapping[str, Any], numbers: Mapping[str, float], members: Mapping[str, str], files: Sequence[Path] = ()
) -> bool:
    """Log an ensemble build.

    Its plan, its numbers, and the runs of its members, which become their entries' champions.

    `members`: member name -> fingerprint of the score artifact it came from. `files`: figures and tables; the plan itself is
    taken from `plan`, without the paths in it. False, with a warning, where the store is down: `sync` logs it then.
    """
    arguments = {"plan": public_data(identity(dict(plan))), "numbers": dict(numbers), "members": dict(members)}
    files = [path for path in files if path.name != "plan.json"]
    try:
        mirror_build(**arguments, files=files)
    except Exception as error:
        logger.debug("tracking failed", exc_info=True)
        folder = unlogged_builds() / plan_key(arguments["plan"])
        folder.mkdir(parents=True, exist_ok=True)
        for path in files:
            shutil.copy2(path, folder)
        (folder / BUILD).write_text(json.dumps(arguments))
        logger.warning("%s: %s; the plan is kept: run `zoo sync` when it is back", mask(tracking_uri()), one_line(error))
        return False
    return True


def plan_key(plan: Mapping[str, Any]) -> str:
    """What makes a build the same one when it is logged again."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True, default=str).encode()).hexdigest()[:16]


def mirror_build(
    *, plan: Mapping[str, Any], numbers: Mapping[str, float], members: Mapping[str, str], files: Sequence[Path]
) -> bool:
    """Log a build; whether it was missing. Raises what MLflow raises."""
    digest = str(plan.get("dataset_digest") or "unknown")
    key = f"build:{plan_key(plan)}"
    with locked(home(), "tracking"):
        client = connect()
        experiment = experiment_of(client, Data(digest, "battles"))
        run = find_run(client, experiment, fingerprint=key)
        if finished(run):
            return False
        runs = {name: _member_run(client, experiment, name, fingerprint) for name, fingerprint in members.items()}
        tags = {"zoo.kind": "build", "zoo.stage": "build", "zoo.fingerprint": key, "zoo.dataset": digest, "zoo.scored": "yes"}
        tags |= {"mlflow.runName": f"build {plan_key(plan)[:6]}", "mlflow.source.name": "ensemble build"}
        tags |= {"zoo.target": str(plan["target"]["name"])} if isinstance(plan.get("target"), dict) else {}
        tags |= {
            f"member.{_tag_name(name)}": str(found.info.run_id) if found else f"fingerprint {members[name]}"
            for name, found in runs.items()
        }
        run_id = str((run or client.create_run(experiment, tags=tags)).info.run_id)
        when = run.info.start_time if run else client.get_run(run_id).info.start_time
        points = [(name, value, when, 0) for name, value in (dict(numbers) | _cost(plan)).items()]
        write_batch(client, run_id, params=_params(plan, members), points=points)
        write_input(client, run_id, Data(digest, "battles"), "evaluation")
        client.log_dict(run_id, dict(plan), "plan.json")
        for path in files:
            client.log_artifact(run_id, str(path))
        write_files(client, run_id, _figures(plan), "figures")
        for found in filter(None, runs.values()):
            _use_member(client, run_id, found)
        client.set_terminated(run_id)
    return True


def _params(plan: Mapping[str, Any], members: Mapping[str, str]) -> dict[str, str]:
    params = {k: str(v) for k, v in plan.items() if isinstance(v, str | int | float) and k != "dataset_digest"}
    params = {name: value[:6000] for name, value in params.items() if value}
    return params | {"members": ", ".join(members)[:6000]}


def _cost(plan: Mapping[str, Any]) -> dict[str, float]:
    """A plan's price under the names that a member's has: seconds a row, and the hours of a file of 25,000 rows."""
    seconds, rows = plan.get("predicted_seconds"), plan.get("rows")
    if not seconds or not rows:
        return {}
    return {SECONDS_PER_ROW: seconds / rows} | ({HOURS_25K: seconds / 3600} if rows == COMPETITION_ROWS else {})


def _figures(plan: Mapping[str, Any]) -> dict[str, bytes]:
    """Cost against log loss of every member on the same data and target, the plan among them."""
    from zoo.report.figures import cost_figure, png
    from zoo.report.leaderboard import leaderboard

    target = plan["target"]["name"] if isinstance(plan.get("target"), dict) else None
    rows = leaderboard(home() / "store", dataset=str(plan.get("dataset_digest") or "unknown"))
    points = {
        row.member: (row.hours_25k, row.log_loss, row.log_loss_se or 0.0)
        for row in rows
        if row.target == target and row.hours_25k and row.log_loss is not None
    }
    if not points:
        return {}
    hours = _cost(plan).get(SECONDS_PER_ROW, 0.0) * COMPETITION_ROWS / 3600
    loss, error = plan.get("oof_log_loss"), plan.get("oof_log_loss_se")
    own = (hours, float(loss), float(error or 0.0)) if hours and loss else None
    return {"cost_log_loss.png": png(cost_figure(points, own, target=str(target)))}


def _tag_name(member: str) -> str:
    """A member's name as MLflow allows it in a tag's: no `@`."""
    return re.sub(r"[^\w.\-/ ]", "/", member)


def _member_run(client: MlflowClient, experiment: str, member: str, fingerprint: str) -> Any:
    """A member's run, or None where it is not logged (yet)."""
    return find_run(client, experiment, fingerprint=fingerprint, member=member)


def _use_member(client: MlflowClient, run_id: str, member: Any) -> None:
    """Link a build to the checkpoint of one of its members, which becomes its entry's champion."""
    inputs = client.get_run(member.info.run_id).inputs  # a search leaves the models out
    for model in inputs.model_inputs if inputs else []:
        link_model(client, run_id, model.model_id)
        checkpoint = client.get_logged_model(model.model_id).tags.get("zoo.fingerprint", "")
        crown(client, member.data.tags["zoo.entry"], checkpoint)
