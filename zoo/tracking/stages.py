"""Finished stages as MLflow runs: their names, tags, parameters and metrics.

One experiment for a data set, so that a table of runs never compares losses on different rows; in it a parent run for an
entry's version, and a child run for each of its stages and each scored variant, which is what people compare. Logging is
idempotent: a run is found by its fingerprint, and a second call adds nothing. A run that an earlier version of this project
logged is given what it lacks (LAYOUT).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.contracts import Entry, Manifest
from zoo.pipeline.stage_table import stage_of
from zoo.report.lineage import lineage_record
from zoo.scores.tables import CARD, SCORES
from zoo.settings import home
from zoo.store import MANIFEST, Artifact, Made, identity, locked, made_files
from zoo.tracking.bounded import SECONDS
from zoo.tracking.client.connection import connect
from zoo.tracking.client.runs import find_run, finished, points_of, runs_of
from zoo.tracking.client.writing import describe, shown, write_batch, write_files, write_input
from zoo.tracking.describe import LAYOUT, note_tags, stage_note
from zoo.tracking.experiments import WEIGHTS, experiment_of
from zoo.tracking.facts import (
    Data,
    Facts,
    data_of,
    stage_facts,
    version_of,
)
from zoo.tracking.home import mark, mark_begun, public_data
from zoo.tracking.last import result_text
from zoo.tracking.lineage import lineage_of_made, made_inputs
from zoo.tracking.models import log_checkpoint, register_scored
from zoo.tracking.profile import with_profile
from zoo.tracking.recipe import entry_params

PROGRESS = "zoo.progress"  # tag of a running stage: how far it is

if TYPE_CHECKING:
    from zoo.data.battles import Battles
    from zoo.tracking.client.connection import MlflowClient


def mirror_stage(artifact: Artifact, entry: Entry | None, *, seconds: float = SECONDS) -> bool:
    """Log a stage's runs; whether any was missing. Raises what MLflow raises.

    One process of a home folder at a time does it, so that no run is made twice. `seconds`: until the store answers.
    """
    manifest, folder = artifact.manifest, artifact.path
    name = f"{manifest.stage}-{manifest.fingerprint}"
    battles = read_scored_battles(manifest)
    data = with_profile(data_of(manifest, folder), manifest, battles)
    facts = stage_facts(manifest, folder, entry, battles)
    with locked(home(), "tracking"):
        client = connect(seconds)
        mark_begun(name)
        experiment = experiment_of(client, data or WEIGHTS)
        parent = _parent(client, experiment, manifest, entry, data) if data and manifest.stage != "import" else None
        missing = 0
        for fact in facts:
            found = _find(client, experiment, fact)
            is_done = finished(found)
            if is_done and LAYOUT.items() <= found.data.tags.items():
                continue
            note = stage_note(manifest, fact, data, result_text(manifest, folder, fact, battles))
            if is_done:
                _bring_up(client, found, fact, note)
                if fact.card:
                    register_scored(client, experiment, fact, data, found.info.run_id, manifest.created_at.isoformat())
                continue
            missing += 1
            run = found or _create(client, experiment, fact, manifest, parent)
            _fill(client, run.info.run_id, fact, manifest, data)
            _write_lineage(client, run.info.run_id, lineage_of_made(manifest, folder))
            if found:  # by a killed logger, or while the stage ran
                _complete(client, found, fact, parent)
            if fact.card:
                _write_scores(client, run.info.run_id, folder / fact.tags["zoo.variant"], fact, battles)
                register_scored(client, experiment, fact, data, run.info.run_id, manifest.created_at.isoformat())
            else:
                figures = {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}  # of ladders and comparisons
                write_files(client, run.info.run_id, figures, "figures")
                log_checkpoint(client, experiment, fact, run.info.run_id)
            describe(client, found or run, note)
            client.set_terminated(run.info.run_id, end_time=_milliseconds(manifest))
        mark(name)
    return bool(missing)


def _bring_up(client: MlflowClient, run: Any, fact: Facts, note: str) -> None:
    """Give a run of an earlier version its name, its description and the settings that it lacks; people's names stay."""
    params = {name: value for name, value in fact.params.items() if name not in run.data.params}
    old = fact.card.member if fact.card else f"{fact.tags['zoo.entry']} {fact.tags['zoo.stage']}"
    tags = LAYOUT | ({"mlflow.runName": fact.name} if run.info.run_name == old else {})
    write_batch(client, run.info.run_id, params=params, tags=tags)
    describe(client, run, note)


def read_scored_battles(manifest: Manifest) -> Battles | None:
    """The labelled battles that a stage read, if their file is still there and unchanged."""
    battles = manifest.request.inputs.get("battles")
    if battles is None or battles.place is None or stage_of(manifest.stage).data != "evaluation":
        return None
    from zoo.data.battles import dataset_digest, read_battles
    from zoo.errors import ZooError

    try:
        found = read_battles(battles.place)
    except ZooError:
        return None
    if not found.labelled or dataset_digest(found) != battles.fingerprint:
        return None
    return found


def clean_manifest(manifest: Manifest) -> dict[str, Any]:
    """A manifest without arguments, credentials and paths of the user's machine."""
    cleaned = manifest.model_dump(mode="json", exclude={"argv"})
    return dict(public_data({**cleaned, "request": identity(manifest.request)}))


def _find(client: MlflowClient, experiment: str, fact: Facts) -> Any:
    fingerprint, variant = fact.key
    return find_run(client, experiment, fingerprint=fingerprint, variant=variant)


def _parent(client: MlflowClient, experiment: str, manifest: Manifest, entry: Entry | None, data: Data) -> str:
    """The run that stands for an entry's version on these data, made where it is missing.

    It has no scores: it groups its stages and variants.
    """
    name, version = manifest.request.entry, version_of(entry)
    key = f"entry:{name}:{version}:{data.digest[:16]}"
    found = find_run(client, experiment, fingerprint=key)
    if finished(found):
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
        write_batch(client, run_id, params=entry_params(entry))
        client.log_dict(run_id, public_data(entry.model_dump(mode="json", exclude_none=True)), "entry.json")
        write_batch(client, run_id, tags=note_tags(f"{entry.description}\n\nIts stages and variants are the runs below it."))
    write_input(client, run_id, data, "evaluation")
    client.set_terminated(run_id, end_time=_milliseconds(manifest))
    return run_id


def _create(client: MlflowClient, experiment: str, fact: Facts, manifest: Manifest, parent: str | None) -> Any:
    took = manifest.measurements.load_seconds + manifest.measurements.run_seconds
    start = _milliseconds(manifest) - round(1000 * took)
    return client.create_run(experiment, start_time=start, tags=run_tags(fact, parent))


def run_tags(fact: Facts, parent: str | None = None) -> dict[str, str]:
    """All tags of a stage's run."""
    tags = {**fact.tags, **LAYOUT, "zoo.kind": "stage", "mlflow.runName": fact.name}
    return tags | ({"mlflow.parentRunId": parent} if parent else {})


def _complete(client: MlflowClient, run: Any, fact: Facts, parent: str | None) -> None:
    """Give a run that was begun before the stage's end what only its end tells."""
    write_batch(client, run.info.run_id, tags=run_tags(fact, parent))
    if PROGRESS in run.data.tags:
        client.delete_tag(run.info.run_id, PROGRESS)


def _fill(client: MlflowClient, run_id: str, fact: Facts, manifest: Manifest, data: Data | None) -> None:
    """Log parameters, metrics, curves, data set and manifest to a run.

    Points carry the stage's own time: logged again they are the same.
    """
    when = _milliseconds(manifest)
    points = [(name, value, when, 0) for name, value in fact.metrics.items()]
    for name, curve in fact.curves.items():
        there = points_of(client, run_id, name)  # logged while it ran, at the times of then
        points += [(name, value, when, step) for step, value in curve if (step, shown(value)) not in there]
    tags = {"zoo.dataset": data.digest} if data else {}
    write_batch(client, run_id, params=fact.params, points=points, tags=tags)
    if data:
        write_input(client, run_id, data, stage_of(manifest.stage).data)
    client.log_dict(run_id, clean_manifest(manifest), MANIFEST)
    if fact.curves:
        from zoo.report.figures import curve_figures

        of = f"{manifest.request.entry}, {data.name if data else 'no data'}"
        write_files(client, run_id, curve_figures(fact.curves, of=of), "figures")


def _write_lineage(client: MlflowClient, run_id: str, made: Made | None) -> None:
    """Made data among what a stage was made from: the files as inputs, and the whole chain with the runs of its stages."""
    if made is None:
        return
    for what, data in made_inputs(made):
        write_input(client, run_id, data, what)
    earlier = [each for each in made_files(made) if each.name != made.name]
    write_batch(client, run_id, tags={"zoo.lineage": " <- ".join(each.name for each in earlier)} if earlier else {})
    runs = runs_of(client, [each.name.rpartition("-")[2] for each in earlier])
    client.log_dict(run_id, {"runs": runs, "lineage": lineage_record(made)}, "lineage.json")


def _milliseconds(manifest: Manifest) -> int:
    return round(1000 * manifest.created_at.timestamp())


def _write_scores(client: MlflowClient, run_id: str, folder: Path, fact: Facts, battles: Battles | None) -> None:
    """The score table, its card, and where labels are known the figures."""
    from zoo.scores.slices import labelled_rows
    from zoo.scores.tables import read_scores

    if fact.card is None:
        return
    client.log_artifact(run_id, str(folder / SCORES), "scores")
    asked = identity(fact.card.request) if fact.card.request else {}
    client.log_dict(run_id, public_data({**fact.card.model_dump(mode="json"), "request": asked}), f"scores/{CARD}")
    if battles is None:
        return
    rows = labelled_rows(read_scores(folder / SCORES), battles.frame, ties=battles.can_tie)
    if len(rows.y):
        from zoo.data.splits import groups_of
        from zoo.report.figures import score_figures

        of = f"{fact.card.member}, {battles.path.name}"
        figures = score_figures(rows.p, rows.y, rows.characters, groups_of(battles, rows.ids), ties=battles.can_tie, of=of)
        write_files(client, run_id, figures, "figures")
