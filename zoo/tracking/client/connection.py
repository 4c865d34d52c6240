"""A client of the tracking store that answers, and the experiments that are ours."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.settings import home
from zoo.store import locked
from zoo.tracking.bounded import SECONDS, Patient, answered_within
from zoo.tracking.database import Schema, ensure_database, follow_home
from zoo.tracking.home import (
    artifact_root,
    database,
    forget_marks,
    is_own_database,
    is_server,
    tracking_uri,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient as MlflowClient

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
