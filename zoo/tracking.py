"""Finished stages and builds as MLflow runs. The only place for MLflow.

One experiment for a data set (`preference-DIGEST`), so that a table of runs never compares losses on different rows; in it a
parent run for an entry's version, and a child run for each of its stages and each scored variant, which is what people compare.
Logging is idempotent: a run is found by its fingerprint, and a second call adds nothing. A tracking server that is down never
costs a stage: the call returns False, and `sync` logs later what is missing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.contracts import Entry, Manifest
from zoo.errors import ZooError
from zoo.run_facts import CARD, CONTEXTS, SCORES, Data, Facts, data_of, entry_params, stage_facts, version_of
from zoo.settings import home
from zoo.store import Artifact, identity, list_artifacts, locked
from zoo.tracking_home import artifact_root, is_marked, is_server, mark, mask, one_line, tracking_uri, unlogged_builds

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

logger = logging.getLogger("zoo")
BATCH = 900  # MLflow takes at most 1,000 entities a request, of which 100 parameters
WEIGHTS = Data("weights", "weights")  # the experiment of stages that no battles went into


# --- the store -------------------------------------------------------------------------------------------------------


def connect() -> MlflowClient:
    """A client of the tracking store. The first call on a fresh database makes its tables: hold the lock."""
    # A dead server must cost seconds, not the minutes of MLflow's defaults; nothing is reported to anyone, and the server's
    # URI, which can hold a password, is not printed.
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    }.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    for noisy in ("mlflow.store.db.utils", "mlflow.tracking", "alembic", "urllib3.connectionpool"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    home().mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=tracking_uri())


def ensure_store() -> None:
    """Make the database's tables now, so that a server started next does not race with a stage that logs."""
    with locked(home(), "tracking"):
        connect().search_experiments(max_results=1)


def latest_experiment() -> str | None:
    """Id of the experiment of ours that battles were logged to last, or None."""
    client = connect()
    weights = f"preference-{WEIGHTS.digest}"
    found = client.search_experiments(filter_string="name LIKE 'preference-%'")
    ids = [e.experiment_id for e in found if e.name != weights]
    runs = client.search_runs(ids, max_results=1, order_by=["attributes.end_time DESC"]) if ids else []
    return str(runs[0].info.experiment_id) if runs else None


# --- stages -----------------------------------------------------------------------------------------------------------


def log_stage(
    manifest: Manifest, artifact_dir: Path, entry: Entry | None = None, *, labels: Mapping[str, int] | None = None
) -> bool:
    """Log a finished stage. False, with a one-line warning, where the tracking store cannot be reached or used.

    `labels`: id -> 0, 1, 2 for the figures of a score stage; without them they are read from the battles file where it still
    lies, and still is, what was scored.
    """
    if is_marked(manifest):
        return True
    try:
        _log_stage(Artifact(artifact_dir, manifest), entry, labels)
    except Exception as error:
        logger.debug("tracking failed", exc_info=True)
        logger.warning("%s: %s; the stage is kept: run `zoo sync` when it is back", mask(tracking_uri()), one_line(error))
        return False
    return True


def sync(store: Path) -> int:
    """Log every artifact of the store and every build that the tracking store lacks; how many that were."""
    added = 0
    try:
        for artifact in list_artifacts(store):
            added += _log_stage(artifact, _entry_of(artifact.manifest), None)
        for folder in sorted((unlogged_builds()).glob("*/")):
            arguments = json.loads((folder / "build.json").read_text())
            added += _log_build(**arguments, files=sorted(p for p in folder.iterdir() if p.name != "build.json"))
            shutil.rmtree(folder)
    except ZooError:
        raise
    except Exception as error:
        logger.debug("sync failed", exc_info=True)
        message = f"{mask(tracking_uri())}: {one_line(error)}; start the server or mend the URI, then run `zoo sync` again"
        raise ZooError(message, exit_code=1) from error
    return added


def _entry_of(manifest: Manifest) -> Entry | None:
    """The entry of that name today, or None: removing or renaming an entry never breaks old runs."""
    from zoo.entries_io import load_entry

    try:
        return load_entry(str(manifest.request.get("entry", "")))
    except ZooError:
        return None


def _log_stage(artifact: Artifact, entry: Entry | None, labels: Mapping[str, int] | None) -> bool:
    """Log a stage's runs; whether any was missing. One process at a time does it, so that no run is made twice."""
    manifest, folder = artifact.manifest, artifact.path
    facts, data = stage_facts(manifest, folder, entry), data_of(manifest, folder)
    with locked(home(), "tracking"):
        client = connect()
        experiment = _experiment(client, data or WEIGHTS)
        parent = _parent(client, experiment, manifest, entry, data) if data and manifest.stage != "import" else None
        missing = [f for f in facts if not _finished(_find(client, experiment, *f.key))]
        for fact in missing:
            run = _find(client, experiment, *fact.key) or _create(client, experiment, fact, manifest, parent)
            _fill(client, run.info.run_id, fact, manifest, data)
            if fact.card:
                _log_scores(client, run.info.run_id, folder / fact.tags["zoo.variant"], fact, _labels(manifest, labels))
            client.set_terminated(run.info.run_id, end_time=_milliseconds(manifest))
        mark(manifest)
    return bool(missing)


def _experiment(client: MlflowClient, data: Data) -> str:
    name = f"preference-{data.digest[:12]}"
    found = client.get_experiment_by_name(name)
    if found:
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)
    # Absolute where files are ours to keep: MLflow's default follows the current folder.
    location = None if is_server(tracking_uri()) else (artifact_root() / name).as_uri()
    note = f"A / B / tie on battles `{data.name}`, digest {data.digest}. Log loss in nats; uniform guessing scores 1.0986."
    return str(client.create_experiment(name, artifact_location=location, tags={"mlflow.note.content": note}))


def _find(client: MlflowClient, experiment: str, fingerprint: str, variant: str = "") -> Any:
    quoted = f"tags.`zoo.fingerprint` = '{fingerprint}'" + (f" and tags.`zoo.variant` = '{variant}'" if variant else "")
    found = client.search_runs([experiment], filter_string=quoted, max_results=1)
    return found[0] if found else None


def _finished(run: Any) -> bool:
    """Whether a run was logged to its end: one whose logger was killed is filled again, which repeats nothing."""
    return run is not None and run.info.status == "FINISHED"


def _parent(client: MlflowClient, experiment: str, manifest: Manifest, entry: Entry | None, data: Data) -> str:
    """The run that stands for an entry's version on these data, made where it is missing."""
    name, version = str(manifest.request.get("entry", "")), version_of(entry)
    key = f"entry:{name}:{version}:{data.digest[:16]}"
    found = _find(client, experiment, key)
    if _finished(found):
        return str(found.info.run_id)
    tags = {"zoo.kind": "entry", "zoo.entry": name, "zoo.entry_version": version, "zoo.fingerprint": key}
    tags |= {
        "zoo.dataset": data.digest,
        "mlflow.runName": f"{name} v{version}" if entry else name,
        "mlflow.source.name": "zoo run",
    }
    run = found or client.create_run(experiment, start_time=_milliseconds(manifest), tags=tags)
    run_id = str(run.info.run_id)
    if entry:
        _batch(client, run_id, params=entry_params(entry))
        client.log_dict(run_id, entry.model_dump(mode="json", exclude_none=True), "entry.json")
    _log_input(client, run_id, data, "evaluation")
    client.set_terminated(run_id, end_time=_milliseconds(manifest))
    return run_id


def _create(client: MlflowClient, experiment: str, fact: Facts, manifest: Manifest, parent: str | None) -> Any:
    tags = {**fact.tags, "zoo.kind": "stage", "mlflow.runName": f"{fact.tags['zoo.entry']} {fact.name}"}
    if manifest.stage == "import":
        tags["mlflow.runName"] = fact.name
    if parent:
        tags["mlflow.parentRunId"] = parent
    took = manifest.measurements.load_seconds + manifest.measurements.run_seconds
    return client.create_run(experiment, start_time=_milliseconds(manifest) - round(1000 * took), tags=tags)


def _fill(client: MlflowClient, run_id: str, fact: Facts, manifest: Manifest, data: Data | None) -> None:
    """Parameters, metrics, curves, data set and manifest. Points carry the stage's own time: logged again they are the same."""
    when = _milliseconds(manifest)
    points = [(name, value, when, 0) for name, value in fact.metrics.items()]
    points += [(name, value, when, step) for name, curve in fact.curves.items() for step, value in curve]
    tags = {"zoo.dataset": data.digest} if data else {}
    _batch(client, run_id, params=fact.params, points=points, tags=tags)
    if data:
        _log_input(client, run_id, data, CONTEXTS.get(manifest.stage, "evaluation"))
    client.log_dict(run_id, clean_manifest(manifest), "manifest.json")


def clean_manifest(manifest: Manifest) -> dict[str, Any]:
    """A manifest without paths of the user's machine."""
    cleaned = manifest.model_dump(mode="json", exclude={"argv"})
    return {**cleaned, "request": identity(manifest.request)}


def _milliseconds(manifest: Manifest) -> int:
    return round(1000 * manifest.created_at.timestamp())


def _batch(
    client: MlflowClient,
    run_id: str,
    *,
    params: Mapping[str, str] = {},
    points: Sequence[tuple[str, float, int, int]] = (),
    tags: Mapping[str, str] = {},
) -> None:
    """Log in as few requests as MLflow's limits allow. `points`: (name, value, milliseconds, step)."""
    from mlflow.entities import Metric, Param, RunTag

    parameters = [Param(name, value) for name, value in params.items()]
    for start in range(0, len(parameters), 100):
        client.log_batch(run_id, params=parameters[start : start + 100])
    metrics = [Metric(name, value, when, step) for name, value, when, step in points]
    for start in range(0, max(len(metrics), 1), BATCH):
        labels = [RunTag(key, value[:5000]) for key, value in tags.items()] if start == 0 else []
        client.log_batch(run_id, metrics=metrics[start : start + BATCH], tags=labels)


def _log_input(client: MlflowClient, run_id: str, data: Data, context: str) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": data.name})  # the file's name only: no user paths
    dataset = Dataset(name=data.name, digest=data.digest[:36], source_type="local", source=source)
    client.log_inputs(run_id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])


def _log_scores(client: MlflowClient, run_id: str, folder: Path, fact: Facts, labels: Mapping[str, int] | None) -> None:
    """The score table, its card, and where labels are known the figures."""
    from zoo.scores import probabilities, read_scores

    if fact.card is None:
        return
    client.log_artifact(run_id, str(folder / SCORES), "scores")
    card = fact.card.model_dump(mode="json")
    client.log_dict(run_id, {**card, "request": identity(card["request"] or {})}, f"scores/{CARD}")
    if not labels:
        return
    import numpy as np

    from zoo.figures import score_figures

    table = read_scores(folder / SCORES)
    table = table[(table["status"] == "ok") & table["id"].isin(labels)]
    if not len(table):
        return
    truth = np.array([labels[row_id] for row_id in table["id"]])
    with tempfile.TemporaryDirectory() as temporary:
        for name, content in score_figures(probabilities(table), truth).items():
            (Path(temporary) / name).write_bytes(content)
        client.log_artifacts(run_id, temporary, "figures")


def _labels(manifest: Manifest, labels: Mapping[str, int] | None) -> Mapping[str, int] | None:
    """Labels as given, or of the battles file that the stage read, if it is still the same."""
    battles = manifest.request.get("battles")
    if labels is not None or not isinstance(battles, dict):
        return labels
    from zoo.battles import dataset_digest, read_battles

    try:
        found = read_battles(Path(str(battles["path"])))
    except ZooError:
        return None
    if not found.labelled or dataset_digest(found) != battles["fingerprint"]:
        return None
    return dict(zip(found.frame["id"], found.frame["label"].astype(int), strict=True))


# --- builds -----------------------------------------------------------------------------------------------------------


def log_build(
    plan: Mapping[str, Any], numbers: Mapping[str, float], members: Mapping[str, str], files: Sequence[Path] = ()
) -> bool:
    """Log an ensemble build: its plan, its numbers, and the runs of its members.

    `members`: member name -> fingerprint of the score artifact it came from. `files`: figures and tables; the plan itself is
    taken from `plan`, without the paths in it. False, with a warning, where the store is down: `sync` logs it then.
    """
    arguments = {"plan": identity(dict(plan)), "numbers": dict(numbers), "members": dict(members)}
    files = [path for path in files if path.name != "plan.json"]
    try:
        _log_build(**arguments, files=files)
    except Exception as error:
        logger.debug("tracking failed", exc_info=True)
        folder = unlogged_builds() / _plan_key(arguments["plan"])
        folder.mkdir(parents=True, exist_ok=True)
        for path in files:
            shutil.copy2(path, folder)
        (folder / "build.json").write_text(json.dumps(arguments))
        logger.warning("%s: %s; the plan is kept: run `zoo sync` when it is back", mask(tracking_uri()), one_line(error))
        return False
    return True


def _plan_key(plan: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plan, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _log_build(
    *, plan: Mapping[str, Any], numbers: Mapping[str, float], members: Mapping[str, str], files: Sequence[Path]
) -> bool:
    digest = str(plan.get("dataset_digest") or "unknown")
    key = f"build:{_plan_key(plan)}"
    with locked(home(), "tracking"):
        client = connect()
        experiment = _experiment(client, Data(digest, "battles"))
        run = _find(client, experiment, key)
        if _finished(run):
            return False
        tags = {"zoo.kind": "build", "zoo.stage": "build", "zoo.fingerprint": key, "zoo.dataset": digest}
        tags |= {"mlflow.runName": f"build {_plan_key(plan)[:6]}", "mlflow.source.name": "ensemble build"}
        tags |= {f"member.{_tag_name(n)}": _member_run(client, experiment, n, f) for n, f in members.items()}
        run_id = str((run or client.create_run(experiment, tags=tags)).info.run_id)
        params = {k: str(v) for k, v in plan.items() if isinstance(v, str | int | float) and k != "dataset_digest"}
        params["members"] = ", ".join(members)[:6000]
        when = run.info.start_time if run else client.get_run(run_id).info.start_time
        _batch(client, run_id, params=params, points=[(name, value, when, 0) for name, value in numbers.items()])
        _log_input(client, run_id, Data(digest, "battles"), "evaluation")
        client.log_dict(run_id, dict(plan), "plan.json")
        for path in files:
            client.log_artifact(run_id, str(path))
        client.set_terminated(run_id)
    return True


def _tag_name(member: str) -> str:
    """A member's name as MLflow allows it in a tag's: no `@`."""
    return re.sub(r"[^\w.\-/ ]", "/", member)


def _member_run(client: MlflowClient, experiment: str, member: str, fingerprint: str) -> str:
    """Id of a member's run; where it is not logged (yet), its fingerprint."""
    query = f"tags.`zoo.fingerprint` = '{fingerprint}' and tags.`zoo.member` = '{member}'"
    found = client.search_runs([experiment], filter_string=query, max_results=1)
    return str(found[0].info.run_id) if found else f"fingerprint {fingerprint}"
