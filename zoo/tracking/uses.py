"""What a plan was used for, as MLflow runs under the run of its build.

Predictions, evaluations, recalibrations and submissions. Each is first a small file of the home: a prediction has no time for
MLflow. The next command that logs anything, and `zoo sync`, log it.
"""

from __future__ import annotations

import datetime
import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.errors import ZooError
from zoo.settings import home
from zoo.store import leave_out, locked, write_atomic
from zoo.tracking.builds import build_key
from zoo.tracking.client.connection import connect
from zoo.tracking.client.runs import find_run, finished
from zoo.tracking.client.traces import log_trace
from zoo.tracking.client.writing import describe, write_batch
from zoo.tracking.describe import LAYOUT, run_link, use_note
from zoo.tracking.experiments import UNNAMED, experiment_of
from zoo.tracking.facts import Data
from zoo.tracking.home import kept_uses, mark, mark_begun, public_data
from zoo.tracking.kept import KeptUse, read_kept
from zoo.tracking.naming import use_name

if TYPE_CHECKING:
    from zoo.tracking.client.connection import MlflowClient

Kind = Literal["prediction", "evaluation", "recalibration", "submission"]
_COMMANDS: dict[Kind, str] = {
    "prediction": "predict",
    "evaluation": "evaluate",
    "recalibration": "recalibrate",
    "submission": "submitted",
}
BOARD = "board/"  # metrics of a submission that its build's run has, too: they stand beside the promise


def keep_use(
    kind: Kind,
    plan: Mapping[str, Any],
    *,
    seconds: float,
    numbers: Mapping[str, float],
    params: Mapping[str, str],
    spans: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Keep what a use of a plan logs as a file of the home.

    `plan`: as JSON; `seconds`: how long it took; `spans`: and what of it, see `zoo.tracking.spans`. OSError where the file
    cannot be written.
    """
    now = datetime.datetime.now(datetime.UTC)
    key = build_key(plan)
    path = kept_uses() / f"{kind}-{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = str(plan.get("dataset_digest") or "unknown")
    record: dict[str, Any] = {"kind": kind, "build": key, "dataset_digest": digest, "at": now.isoformat(), "seconds": seconds}
    record |= {"numbers": dict(numbers), "params": public_data(dict(params)), "spans": public_data(list(spans))}
    write_atomic(path, json.dumps(record, indent=1))
    mark_begun(path.stem)
    return path


def mirror_use(path: Path) -> bool:
    """Log a kept use of a plan; whether it was missing. Raises what MLflow raises.

    A file that cannot be read is told and left. A submission that is there is logged again, since what the board says of it
    comes in parts.
    """
    record = _read(path)
    if record is None:
        return False
    with locked(home(), "tracking"):
        client = connect()
        experiment = experiment_of(client, Data(record["dataset_digest"], UNNAMED))
        key = f"use:{path.stem}"
        run = find_run(client, experiment, fingerprint=key)
        missing = not finished(run)
        if missing or record["kind"] == "submission" or not LAYOUT.items() <= run.data.tags.items():
            _log(client, experiment, key, record, run)
        mark(path.stem)
    return missing


def _log(client: MlflowClient, experiment: str, key: str, record: dict[str, Any], run: Any) -> None:
    end = round(1000 * datetime.datetime.fromisoformat(record["at"]).timestamp())
    kind, build = record["kind"], record["build"]
    tags = {"zoo.kind": kind, "zoo.stage": kind, "zoo.fingerprint": key, "zoo.dataset": record["dataset_digest"]}
    tags |= LAYOUT | {"zoo.build": build, "zoo.entry": "ensemble"}
    if run is None or run.info.run_name == f"{kind} of build {build[:6]}":  # else people called it something
        tags["mlflow.runName"] = use_name(kind, record)
    tags |= {"mlflow.source.name": f"ensemble {_COMMANDS[kind]}"}
    parent = find_run(client, experiment, fingerprint=f"build:{build}")
    if parent is not None:
        tags["mlflow.parentRunId"] = parent.info.run_id
    run = run or client.create_run(experiment, start_time=end - round(1000 * record["seconds"]), tags=tags)
    run_id = str(run.info.run_id)
    tags |= {"zoo.note": record["note"]} if record.get("note") else {}
    when = round(1000 * datetime.datetime.fromisoformat(record.get("changed") or record["at"]).timestamp())
    points = [(name, float(value), when, 0) for name, value in record["numbers"].items()]
    if parent is not None:
        write_batch(client, parent.info.run_id, points=[point for point in points if point[0].startswith(BOARD)])
    params = {name: str(value)[:6000] for name, value in record["params"].items()}
    write_batch(client, run_id, params=params, points=points, tags=tags)
    named = run_link(parent.info.run_name, experiment, parent.info.run_id) if parent is not None else f"build {build[:6]}"
    describe(client, run, use_note(kind, record, named))
    client.log_dict(run_id, public_data({name: value for name, value in record.items() if name != "spans"}), f"{kind}.json")
    asked, came = {"command": f"ensemble {_COMMANDS[kind]}", **params}, {"run": use_name(kind, record), **record["numbers"]}
    log_trace(client, run, key, record.get("spans", []), asked=asked, came=came)
    client.set_terminated(run_id, end_time=end)


def _read(path: Path) -> dict[str, Any] | None:
    record: dict[str, Any] | None = read_kept(path, KeptUse)
    if record is None:
        leave_out(ZooError(f"{path}: not a kept prediction, evaluation, recalibration or submission; remove it"))
    return record
