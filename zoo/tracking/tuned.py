"""Studies of `zoo tune` as MLflow runs: what the best gained and on which rows.

They are logged from the folder in which the study leaves them in the home, by the command itself, by the next one that logs
anything, and by `zoo sync`. A study that has gone on is logged again into its own run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from zoo.errors import ZooError
from zoo.scores.tuned import TuneReport
from zoo.settings import home
from zoo.store import leave_out, locked
from zoo.tracking.client.connection import connect
from zoo.tracking.client.runs import find_run, finished
from zoo.tracking.client.writing import describe, write_batch
from zoo.tracking.describe import LAYOUT, tune_note
from zoo.tracking.experiments import UNNAMED, experiment_of
from zoo.tracking.facts import Data
from zoo.tracking.home import mark, mark_begun, public_data

if TYPE_CHECKING:
    from zoo.tracking.client.connection import MlflowClient

REPORT = "tune.json"  # of a study's folder: a TuneReport; beside it its page and pictures


def tuned_folders() -> list[Path]:
    """Folders of the home's studies that have left a report."""
    return sorted(path.parent for path in (home() / "experiments").glob(f"tune-*/{REPORT}"))


def mirror_tuned(folder: Path) -> bool:
    """Log a study from its folder; whether it was missing. Raises what MLflow raises.

    One whose report cannot be read is told and left.
    """
    path = folder / REPORT
    try:
        report = TuneReport.model_validate_json(path.read_text())
    except (OSError, ValidationError):
        leave_out(ZooError(f"{path}: not a study's report; run its `zoo tune` again"))
        return False
    ended = round(1000 * path.stat().st_mtime)
    with locked(home(), "tracking"):
        client = connect()
        mark_begun(folder.name)
        experiment = experiment_of(client, Data(report.dataset_digest, UNNAMED))
        run = find_run(client, experiment, fingerprint=folder.name)
        missing = run is None
        is_logged = finished(run) and run.info.end_time == ended and LAYOUT.items() <= run.data.tags.items()
        tags = {"zoo.kind": "tune", "zoo.stage": "tune", "zoo.fingerprint": folder.name, "zoo.dataset": report.dataset_digest}
        tags |= LAYOUT | {"zoo.entry": report.entry, "zoo.study": report.study, "mlflow.source.name": "zoo tune"}
        if missing:
            name = f"tune {report.entry} fold {report.fold}"
            began = ended - round(1000 * report.spent_seconds)
            run = client.create_run(experiment, start_time=began, tags=tags | {"mlflow.runName": name})
        if not is_logged:
            _fill(client, run, tags, report, folder, ended)
        mark(folder.name)
    return missing


def _fill(client: MlflowClient, run: Any, tags: dict[str, str], report: TuneReport, folder: Path, ended: int) -> None:
    run_id = str(run.info.run_id)
    points = [(name, value, ended, len(report.trials)) for name, value in _numbers(report).items()]
    params = {"data": report.data, "fold": str(report.fold), "n_folds": str(report.n_folds)}  # what a study keeps
    write_batch(client, run_id, params=params, points=points, tags=tags)
    describe(client, run, tune_note(report))
    client.log_dict(run_id, public_data(report.model_dump(mode="json")), f"study/{REPORT}")
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".png", ".html", ".md")):
        client.log_artifact(run_id, str(path), "study")
    client.set_terminated(run_id, end_time=ended)


def _numbers(report: TuneReport) -> dict[str, float]:
    """A study's numbers by their names; of the rows to judge by where the best was judged."""
    states = [trial.state for trial in report.trials]
    found = {"tune/trials": float(len(states)), "tune/pruned": float(states.count("pruned"))}
    found["tune/seconds"] = report.spent_seconds
    if report.judging is not None and report.choosing is not None:
        found |= {
            "tune/log_loss_best": report.judging.best,
            "tune/log_loss_own": report.judging.own,
            "tune/difference": report.judging.difference,
            "tune/difference_se": report.judging.error,
            "tune/difference_chosen": report.choosing.difference,
        }
    return found
