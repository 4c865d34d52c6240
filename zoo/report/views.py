"""What `zoo list`, `show` and `check` print, and a stage's closing lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.entries.load import entry_names, load_entry
from zoo.errors import ZooError
from zoo.pipeline.stage_table import STAGES
from zoo.report.folds import folds_table
from zoo.report.ladder import ladder_records
from zoo.report.text import Cell, Column, Page, Table, digits
from zoo.scores.metric_names import find_metric
from zoo.settings import store_folder
from zoo.store import Artifact, list_artifacts

if TYPE_CHECKING:
    from zoo.checks import Finding
    from zoo.scores.ladder import Step
    from zoo.scores.out_of_fold import OutOfFold


def entries_page() -> tuple[Page, list[dict[str, Any]]]:
    """Every entry with its base and how many artifacts of each stage the store has.

    As a table, and as plain data. A file that is broken has its `error` in place of the entry's keys.
    """
    made: dict[tuple[str, str], int] = {}
    for artifact in list_artifacts(store_folder()):
        key = (artifact.manifest.request.entry, artifact.manifest.stage.removeprefix("lexical-"))
        made[key] = made.get(key, 0) + 1
    rows: list[list[Cell]] = []
    broken: list[list[Cell]] = []
    records: list[dict[str, Any]] = []
    for name in entry_names():  # a broken file must not hide the others
        try:
            entry = load_entry(name)
        except ZooError as error:
            broken.append([name, None, None, None, f"cannot be used: {error}"])
            records.append({"name": name, "error": str(error)})
            continue
        stages = {stage: made[name, stage] for stage in STAGES if (name, stage) in made}
        records.append({**entry.model_dump(mode="json", exclude_none=True), "stages": stages})
        base, parameters = (entry.base.hub_id, entry.base.parameters) if entry.base else (entry.kind, None)
        done = ", ".join(f"{stage} x{n}" if n > 1 else stage for stage, n in stages.items()) or "nothing yet"
        rows.append([name, base, parameters, done, entry.description])
    columns = [
        Column("entry"),
        Column("base", drop=3),
        Column("size", "parameters", lambda parameters: f"{parameters / 1e9:.2f}B", drop=1),
        Column("in the store", "stages", prose=True),
        Column("what", prose=True, drop=2),
    ]
    return [Table(columns, [*rows, *broken])], records


def findings_table(findings: Sequence[Finding]) -> Table:
    """What was checked: a line a finding, with what to do about it."""
    columns = [Column("check"), Column("verdict"), Column("what", prose=True), Column("mend", prose=True)]
    return Table(columns, [[f.check, f.verdict, f.what, f.mend] for f in findings])


def artifact_page(artifact: Artifact, path: Path) -> Page:
    """A finished stage's metrics, and the path that people go on with."""
    metrics = sorted(artifact.manifest.metrics.items())
    units = {name: metric.unit for name, _ in metrics if (metric := find_metric(name))}
    columns = [Column("metric"), Column("value", form=digits(6)), Column("unit", drop=1)]
    table = Table(columns, [[name, value, units.get(name, "")] for name, value in metrics])
    return [table, str(path)]


def artifact_record(artifact: Artifact) -> dict[str, Any]:
    """A finished stage as plain data."""
    manifest = artifact.manifest
    found = {"stage": manifest.stage, "entry": manifest.request.entry, "fingerprint": manifest.fingerprint}
    return {**found, "path": str(artifact.path), "metrics": manifest.metrics}


def run_page(artifacts: Sequence[Artifact], folds: Sequence[OutOfFold], averaged: Sequence[Artifact]) -> Page:
    """What a run of an entry left: one stage's metrics, or log loss by fold; then the folders."""
    forms = {getattr(artifact.manifest.request, "held", None) for artifact in artifacts}  # of one fold: its forms
    if not folds and not averaged and (len(artifacts) == 1 or (len(forms) == 1 and None not in forms)):
        pages = [artifact_page(artifact, artifact.path) for artifact in artifacts]
        return [block for i, page in enumerate(pages) for block in (["", *page] if i else page)]
    paths = [str(artifact.path) for artifact in (*artifacts, *averaged)]
    return [*([folds_table(folds)] if folds else []), *paths]


def run_record(
    artifacts: Sequence[Artifact], folds: Sequence[OutOfFold], averaged: Sequence[Artifact], ladders: Sequence[Sequence[Step]]
) -> dict[str, Any]:
    """What a run of an entry left, as plain data."""
    found: dict[str, Any] = {"artifacts": [artifact_record(artifact) for artifact in artifacts]}
    if folds:
        found["folds"] = folds_table(folds).records()
    if averaged:
        found["averaged"] = [artifact_record(artifact) for artifact in averaged]
    if ladders:
        found["ladders"] = [ladder_records(steps) for steps in ladders]
    return found
