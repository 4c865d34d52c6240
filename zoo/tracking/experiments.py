"""Experiments: one for each data set, named after its file, found by its digest."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.tracking.client.connection import DATASET, EXPERIMENTS, connect, experiments_of_ours, experiments_with
from zoo.tracking.describe import NOTE, experiment_note, is_our_note, note_tags
from zoo.tracking.facts import Data
from zoo.tracking.home import artifact_root, is_server, tracking_uri, unreachable
from zoo.tracking.naming import experiment_name
from zoo.tracking.view import FILTER, SETTINGS, experiment_page, settings_that_differ, view_tag, view_tags

if TYPE_CHECKING:
    from zoo.tracking.client.connection import MlflowClient

NAMED = "zoo.name"  # tag of an experiment: what this project called it
UNNAMED = "battles"  # data of which only the digest is known
WEIGHTS = Data("weights", "weights")  # the experiment of stages that no battles went into
WEIGHTS_NAME = f"{EXPERIMENTS}weights"
OLD_NOTE = "A / B / tie on battles"  # what the descriptions of earlier versions begin with


@dataclass(frozen=True)
class Board:
    """One data set's runs in the UI: its experiment, how many were scored, and the place."""

    experiment: str
    name: str
    scored: int
    place: str

    def __str__(self) -> str:
        return f"{self.name}, {self.scored} scored"


def boards() -> list[Board]:
    """Every data set's board, newest first; charts of settings are brought up to date."""
    client = connect()
    found: list[tuple[int, Board]] = []
    for experiment in client.search_experiments():
        number = str(experiment.experiment_id)
        if experiment.name == WEIGHTS_NAME or number not in experiments_of_ours(client):
            continue
        last = client.search_runs([number], max_results=1, order_by=["attributes.end_time DESC"])
        scored = client.search_runs([number], FILTER, max_results=1000)
        if last:
            params = [run.data.params for run in scored if run.data.tags.get("zoo.kind") == "stage"]
            _tag(client, experiment, view_tags(settings_that_differ(params)))
            board = Board(number, experiment.name, len(scored), experiment_page(number))
            found.append((last[0].info.end_time or last[0].info.start_time, board))
    return [board for _, board in sorted(found, key=lambda item: -item[0])]


def _tag(client: MlflowClient, experiment: Any, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        if experiment.tags.get(key) != value:
            client.set_experiment_tag(experiment.experiment_id, key, value)


def experiment_of(client: MlflowClient, data: Data) -> str:
    """Id of the experiment of these battles: made, restored or renamed where it has to be.

    Earlier versions called it by the digest alone; what people called it stays.
    """
    found = _experiment_with(client, data) or _make_experiment(client, data)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    _name_experiment(client, found, data)
    return str(found.experiment_id)


def _experiment_with(client: MlflowClient, data: Data) -> Any:
    """The experiment of a digest: the first that was made, should two processes have made one; else that of its old name."""
    found = experiments_with(client, f"tags.`{DATASET}` = '{data.digest}'")
    return found[0] if found else client.get_experiment_by_name(_folder_name(data))


def _make_experiment(client: MlflowClient, data: Data) -> Any:
    # Absolute where files are ours to keep: MLflow's default follows the current folder.
    location = None if is_server(tracking_uri()) else (artifact_root() / _folder_name(data)).as_uri()
    tags = {DATASET: data.digest, "mlflow.experimentKind": "custom_model_development"}
    for name in (_experiment_name(data), _folder_name(data)):  # the first may be somebody else's
        try:
            return client.get_experiment(client.create_experiment(name, artifact_location=location, tags=tags))
        except Exception as error:  # or a process with another home folder made it on the same server meanwhile
            if unreachable(error):
                raise
            if found := _experiment_with(client, data):
                return found
            refused = error
    raise refused


def _name_experiment(client: MlflowClient, experiment: Any, data: Data) -> None:
    """Give an experiment its name, its description and its views, unless people have changed those."""
    number, wanted = experiment.experiment_id, _experiment_name(data)
    spare = (_folder_name(data), experiment_name(UNNAMED, data.digest))  # names that say less than the file's
    is_named_by_people = experiment.tags.get(NAMED, experiment.name) != experiment.name
    if experiment.name in spare and experiment.name != wanted and not is_named_by_people:
        with suppress(Exception):  # the name is somebody else's: it keeps the one that it has
            client.rename_experiment(number, wanted)
            experiment = client.get_experiment(number)
    tags = {DATASET: data.digest, **view_tags()}
    if view_tag(SETTINGS) in experiment.tags:  # which settings differ is found out when somebody looks
        del tags[view_tag(SETTINGS)]
    tags |= {} if is_named_by_people else {NAMED: experiment.name}
    if is_our_note(experiment.tags) or experiment.tags[NOTE].startswith(OLD_NOTE):
        tags |= note_tags(experiment_note(number, data.digest))
    _tag(client, experiment, tags)


def _experiment_name(data: Data) -> str:
    return WEIGHTS_NAME if data.digest == WEIGHTS.digest else experiment_name(data.name, data.digest)


def _folder_name(data: Data) -> str:
    """What an experiment was called by earlier versions, and its folder of files by all."""
    return f"{EXPERIMENTS}{data.digest[:12]}"
