"""What was deleted in a SQLite database: found, and removed for good as `mlflow gc` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.tracking.client.traces import delete_traces

if TYPE_CHECKING:
    from zoo.tracking.client.connection import MlflowClient


def deleted_runs(client: MlflowClient, milliseconds: int) -> list[str]:
    """Ids of the runs of a SQLite database that were deleted so long ago or longer."""
    return [str(run_id) for run_id in _database_store(client)._get_deleted_runs(milliseconds)]


def purge(client: MlflowClient, run_id: str) -> None:
    """Remove a deleted run from a SQLite database for good, as `mlflow gc` does.

    And its traces, which that leaves.
    """
    delete_traces(client, client.get_run(run_id))
    _database_store(client)._hard_delete_run(run_id)


def purge_deleted_models(client: MlflowClient, milliseconds: int) -> None:
    """Remove the logged models that were deleted so long ago or longer, as `mlflow gc` does."""
    for model_id in _database_store(client)._get_deleted_logged_models(milliseconds):
        _database_store(client)._hard_delete_logged_model(model_id)


def _database_store(client: MlflowClient) -> Any:
    return client._tracking_client.store  # MLflow hands out no other way to what its own `gc` calls
