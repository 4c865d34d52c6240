"""Logged models of checkpoints in the store, and the registered versions made of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo.tracking.client.writing import BATCH, shown
from zoo.tracking.facts import Data
from zoo.tracking.home import is_server, public, tracking_uri, unreachable

if TYPE_CHECKING:
    from zoo.tracking.client.connection import MlflowClient


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
