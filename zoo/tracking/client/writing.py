"""What is written to a run: parameters, metrics, data, files and a description."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.tracking.describe import NOTE, builds_in, is_our_note, note_tags, with_build
from zoo.tracking.facts import Data
from zoo.tracking.home import public

if TYPE_CHECKING:
    from zoo.tracking.client.connection import MlflowClient

BATCH = 900  # MLflow takes at most 1,000 entities a request, of which 100 parameters


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

    Large numbers have one digit behind the point; counts stay as they are.
    """
    return float(f"{value:.6g}") if abs(value) < 1000 else round(value, 1)


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
