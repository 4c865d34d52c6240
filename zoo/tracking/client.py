"""The MLflow client: the only module that imports MLflow.

Runs are found by tag, and writes repeat nothing.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.settings import home
from zoo.store import locked
from zoo.tracking.bounded import SECONDS, Patient, answered_within
from zoo.tracking.database import Schema, ensure_database, follow_home
from zoo.tracking.describe import NOTE, builds_in, is_our_note, note_tags, with_build
from zoo.tracking.facts import Data
from zoo.tracking.home import (
    artifact_root,
    database,
    forget_marks,
    is_own_database,
    is_server,
    public,
    tracking_uri,
    unreachable,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient as MlflowClient

BATCH = 900  # MLflow takes at most 1,000 entities a request, of which 100 parameters
EXPERIMENTS = "preference-"  # what our experiments' folders begin with, and their names of earlier versions
DATASET = "zoo.dataset"  # tag of an experiment: its data's digest
MAKING_SECONDS = 120.0  # for the tables of a new database


def connect(seconds: float = SECONDS) -> MlflowClient:
    """A client of a tracking store that answers: our database is whole, any other was asked.

    Raises what the store raises within `seconds`, and TimeoutError where it says nothing.
    """
    uri, path = tracking_uri(), database()
    # A dead server costs seconds, not the minutes of MLflow's defaults; nothing is reported to anyone, and the server's URI,
    # which can hold a password, is not printed.
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": f"{SECONDS:.0f}",
        "PGCONNECT_TIMEOUT": "3",
        # A file is opened anew for each question: one that another process replaced is never written to.
        **({"MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool"} if path else {}),
    }.items():
        os.environ.setdefault(name, value)
    if uri.startswith("file:") or ("://" not in uri and not is_server(uri)):  # MLflow makes a folder of that name
        raise ZooError(
            "MLFLOW_TRACKING_URI: neither a server nor a database: http://HOST:PORT, postgresql://..., sqlite:///FILE"
        )
    from mlflow.tracking import MlflowClient

    for noisy in ("mlflow.store.db.utils", "mlflow.tracking", "alembic", "urllib3.connectionpool"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    home().mkdir(parents=True, exist_ok=True)
    # First of all: a client of a database opens it, and makes its tables where it finds none.
    if path:
        ensure_database(path, _schema(), make=_make_tables, made=forget_marks)
        if is_own_database():
            follow_home(path, artifact_root().as_uri())
    is_made = uri.startswith("sqlite") or answered_within(min(seconds, SECONDS), lambda: _ask(uri))
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    if not path and not is_made:  # the first question makes the tables, which takes seconds
        answered_within(MAKING_SECONDS, lambda: client.search_experiments(max_results=1))
    patient: Any = Patient(client, None if path else SECONDS)  # a server answered, and can fall silent at any call
    return patient


def _schema() -> Schema:
    from mlflow.store.db import utils

    return Schema(frozenset(utils.Base.metadata.tables), utils._get_latest_schema_revision())


def _make_tables(path: Path) -> None:
    """Make a database of this MLflow, or bring one of an older MLflow up to it."""
    from mlflow.store.db import utils
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    uri = f"sqlite:///{path}"
    if path.exists():
        utils._upgrade_db(utils.create_sqlalchemy_engine(uri))
    SqlAlchemyStore(uri, artifact_root().as_uri())


def _ask(uri: str) -> bool:
    """Ask a server or a database the least there is to ask: whether MLflow's tables are there.

    MLflow itself asks a dead database for two minutes.
    """
    if is_server(uri):
        from mlflow.tracking import MlflowClient

        MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments(max_results=1)
        return True
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:
        return bool(sqlalchemy.inspect(connection).has_table("alembic_version"))


def ensure_store() -> None:
    """Make the database's tables now, so that a server started next does not race for them."""
    with locked(home(), "tracking"):
        connect().search_experiments(max_results=1)


def experiments_with(client: MlflowClient, query: str) -> list[Any]:
    """The experiments that a filter finds, oldest first, the deleted ones too."""
    from mlflow.entities import ViewType

    return list(client.search_experiments(filter_string=query, view_type=ViewType.ALL, order_by=["creation_time ASC"]))


def experiments_of_ours(client: MlflowClient) -> list[str]:
    """Ids of the experiments that this or an earlier version of this project logs to."""
    return [str(e.experiment_id) for e in client.search_experiments() if DATASET in e.tags or e.name.startswith(EXPERIMENTS)]


# --- runs ---------------------------------------------------------------------------------------------------------------


def find_run(client: MlflowClient, experiment: str, **tags: str) -> Any:
    """The run of an experiment with these `zoo.` tags, or None.

    Tags as `fingerprint="..."`; empty ones do not count.
    """
    query = " and ".join(f"tags.`zoo.{key}` = '{value}'" for key, value in tags.items() if value)
    found = client.search_runs([experiment], filter_string=query, max_results=1, order_by=["attributes.start_time ASC"])
    return found[0] if found else None


def runs_of(client: MlflowClient, fingerprints: Iterable[str]) -> dict[str, str]:
    """Ids of the runs of some artifacts by fingerprint, whatever experiment they are in.

    Of those that are logged.
    """
    found: dict[str, str] = {}
    ids = experiments_of_ours(client)
    for fingerprint in fingerprints:
        runs = client.search_runs(ids, f"tags.`zoo.fingerprint` = '{fingerprint}'", max_results=1) if ids else []
        if runs:
            found[fingerprint] = str(runs[0].info.run_id)
    return found


def finished(run: Any) -> bool:
    """Whether a run was logged to its end.

    One whose logger was killed is filled again, which repeats nothing.
    """
    return run is not None and run.info.status == "FINISHED"


def end_dead_runs(client: MlflowClient, dead: Set[str], living: Set[str]) -> None:
    """End the running runs that a killed process left and nothing can fill.

    `dead`, `living`: fingerprints of the stages of this home that were shown while they ran, by whether their process lives. In
    the home's own database every other running run is a dead one's too: hold the lock, as all do who log there.
    """
    ids = experiments_of_ours(client) if dead or is_own_database() else []
    for run in client.search_runs(ids, "attributes.status = 'RUNNING'", max_results=1000) if ids else []:
        fingerprint = run.data.tags.get("zoo.fingerprint", "")
        if fingerprint in dead or (is_own_database() and "zoo.kind" in run.data.tags and fingerprint not in living):
            client.set_terminated(run.info.run_id, "KILLED")


def points_of(client: MlflowClient, run_id: str, name: str) -> set[tuple[int, float]]:
    """Step and value of the points of a metric that a run has."""
    return {(point.step, point.value) for point in client.get_metric_history(run_id, name)}


def deleted_runs(client: MlflowClient, milliseconds: int) -> list[str]:
    """Ids of the runs of a SQLite database that were deleted so long ago or longer."""
    return [str(run_id) for run_id in _database_store(client)._get_deleted_runs(milliseconds)]


def purge(client: MlflowClient, run_id: str) -> None:
    """Remove a deleted run from a SQLite database for good, as `mlflow gc` does."""
    _database_store(client)._hard_delete_run(run_id)


def purge_deleted_models(client: MlflowClient, milliseconds: int) -> None:
    """Remove the logged models that were deleted so long ago or longer, as `mlflow gc` does."""
    for model_id in _database_store(client)._get_deleted_logged_models(milliseconds):
        _database_store(client)._hard_delete_logged_model(model_id)


def _database_store(client: MlflowClient) -> Any:
    return client._tracking_client.store  # MLflow hands out no other way to what its own `gc` calls


def run_ids(client: MlflowClient) -> set[str]:
    """Ids of all runs, the deleted ones too."""
    from mlflow.entities import ViewType

    ids = [str(e.experiment_id) for e in client.search_experiments(view_type=ViewType.ALL)]
    return {str(run.info.run_id) for run in _every_run(client, ids, ViewType.ALL)}


def all_runs_of_ours(client: MlflowClient) -> list[Any]:
    """All runs of ours that are not deleted."""
    from mlflow.entities import ViewType

    return list(_every_run(client, experiments_of_ours(client), ViewType.ACTIVE_ONLY))


def _every_run(client: MlflowClient, experiments: Sequence[str], view: int) -> Iterator[Any]:
    """Runs page by page: MLflow hands out a thousand at a time."""
    token: str | None = None
    while experiments and token != "":
        page = client.search_runs(list(experiments), run_view_type=view, max_results=1000, page_token=token)
        yield from page
        token = page.token or ""


def write_batch(
    client: MlflowClient,
    run_id: str,
    *,
    params: Mapping[str, str] = {},
    points: Sequence[tuple[str, float, int, int]] = (),
    tags: Mapping[str, str] = {},
) -> None:
    """Log in as few requests as MLflow's limits allow.

    `points`: (name, value, milliseconds, step).
    """
    from mlflow.entities import Metric, Param, RunTag

    parameters = [Param(name, public(value)) for name, value in params.items()]
    for start in range(0, len(parameters), 100):
        client.log_batch(run_id, params=parameters[start : start + 100])
    metrics = [Metric(name, shown(value), when, step) for name, value, when, step in points]
    for start in range(0, max(len(metrics), 1), BATCH):
        labels = [RunTag(key, public(value)[:5000]) for key, value in tags.items()] if start == 0 else []
        client.log_batch(run_id, metrics=metrics[start : start + BATCH], tags=labels)


def shown(value: float) -> float:
    """A metric in six digits: MLflow's table shows all digits that there are.

    Large numbers are counts and stay as they are.
    """
    return float(f"{value:.6g}") if abs(value) < 1000 else value


def write_input(client: MlflowClient, run_id: str, data: Data, context: str) -> None:
    """Note data that a run read: name, digest, and who made them.

    The file's name only, no user paths.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": data.name, **({"made_by": data.made_by} if data.made_by else {})})
    facts = {**({"num_rows": data.rows} if data.rows is not None else {}), **data.profile}
    columns = [{"name": name, "type": kind, "required": True} for name, kind in data.columns.items()]
    dataset = Dataset(
        name=data.name,
        digest=data.digest[:36],
        source_type="local",
        source=source,
        schema=json.dumps({"mlflow_colspec": columns}) if columns else None,
        profile=json.dumps(facts) if facts else None,
    )
    inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])]
    client.log_inputs(run_id, datasets=inputs)


def write_files(client: MlflowClient, run_id: str, files: Mapping[str, bytes], folder: str) -> None:
    """Files by name, as artifacts of a run in `folder`."""
    if not files:
        return
    with tempfile.TemporaryDirectory() as temporary:
        for name, content in files.items():
            (Path(temporary) / name).write_bytes(content)
        client.log_artifacts(run_id, temporary, folder)


def describe(client: MlflowClient, run: Any, note: str) -> None:
    """Give a run a description, unless people wrote one; the builds that it is in stay named."""
    tags = run.data.tags
    if is_our_note(tags):
        for link in builds_in(tags.get(NOTE, "")):
            note = with_build(note, link)
        write_batch(client, run.info.run_id, tags=note_tags(note))


# --- models -------------------------------------------------------------------------------------------------------------


def external_model(
    client: MlflowClient, experiment: str, fingerprint: str, *, name: str, kind: str, run_id: str, tags: Mapping[str, str]
) -> Any:
    """The logged model that stands for a checkpoint whose files stay in the store.

    Made where it is missing.
    """
    query = f"tags.`zoo.fingerprint` = '{fingerprint}'"
    found = client.search_logged_models([experiment], filter_string=query, max_results=1)
    if found:
        return found[0]
    marks = {"mlflow.model.isExternal": "true", "zoo.fingerprint": fingerprint, **tags}
    model = client.create_logged_model(experiment, name=name, source_run_id=run_id, tags=marks, model_type=kind)
    return client.finalize_logged_model(model.model_id, "READY")


def link_model(client: MlflowClient, run_id: str, model_id: str, *, output: bool = False) -> None:
    """Note on a run that it made a logged model (`output`) or used it; once."""
    from mlflow.entities import LoggedModelInput, LoggedModelOutput

    run = client.get_run(run_id)
    sides = (run.inputs.model_inputs if run.inputs else [], run.outputs.model_outputs if run.outputs else [])
    if model_id in {model.model_id for model in sides[output]}:
        return
    if output:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])
    else:
        client.log_inputs(run_id, models=[LoggedModelInput(model_id)])


def describe_model(
    client: MlflowClient, model: Any, run_id: str, params: Mapping[str, str], metrics: Mapping[str, float], data: Data | None
) -> None:
    """Log settings and metrics of a logged model; settings that it has stay as they are."""
    from mlflow.entities import Metric

    now = client.get_logged_model(model.model_id)
    lacking = {name: public(value)[:500] for name, value in params.items() if name not in now.params}
    if lacking:
        client.log_model_params(model.model_id, lacking)
    when = round(1000 * time.time())
    of = {"dataset_name": data.name, "dataset_digest": data.digest[:36]} if data else {}
    there = {(point.key, point.value, point.dataset_digest) for point in now.metrics or ()}
    points = [
        Metric(name, shown(value), when, 0, model_id=model.model_id, run_id=run_id, **of) for name, value in metrics.items()
    ]
    points = [point for point in points if (point.key, point.value, point.dataset_digest) not in there]
    for start in range(0, len(points), BATCH):
        client.log_batch(run_id, metrics=points[start : start + BATCH])


def registered_version(client: MlflowClient, name: str, checkpoint: str) -> Any:
    """The registered version of a checkpoint, or None."""
    found = client.search_model_versions(f"name = '{name}' and tags.`zoo.checkpoint` = '{checkpoint}'", max_results=1)
    return found[0] if found else None


def ensure_registered(client: MlflowClient, name: str, description: str) -> None:
    """Make a registered model where it is missing."""
    if client.search_registered_models(f"name = '{name}'", max_results=1):
        return
    try:
        client.create_registered_model(name, description=description)
    except Exception as error:
        if unreachable(error) or not client.search_registered_models(f"name = '{name}'", max_results=1):
            raise  # else another process was first


def add_version(client: MlflowClient, name: str, model: Any, run_id: str, tags: Mapping[str, str]) -> Any:
    """A new version of a registered model from a logged model."""
    # A database resolves `models:/ID` by the process's global tracking URI, which this project leaves alone.
    source = f"models:/{model.model_id}" if is_server(tracking_uri()) else model.artifact_location
    return client.create_model_version(
        name, source, run_id=run_id, model_id=model.model_id, tags=dict(tags), await_creation_for=0
    )
