"""Runs in MLflow: found by tag, and how each of them stands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from typing import TYPE_CHECKING, Any

from zoo.tracking.client.connection import experiments_of_ours
from zoo.tracking.home import is_own_database

if TYPE_CHECKING:
    from zoo.tracking.client.connection import MlflowClient


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
