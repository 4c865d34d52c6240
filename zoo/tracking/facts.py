"""The facts of a finished stage that are logged: parameters, metrics, curves, tags.

Pure functions without MLflow. What reaches a run is listed here and nowhere else: no environment, no user paths, no arguments.
"""

from __future__ import annotations

import datetime
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from zoo.contracts import (
    CapsRequest,
    Entry,
    Manifest,
    Measurements,
    Request,
    ScoreCard,
    ScoreRequest,
    ScoringRequest,
    StageResult,
    entry_of_form,
    first_fault,
    forms_of,
    variants_of,
)
from zoo.cost.price import price
from zoo.errors import ZooError
from zoo.scores.metric_names import DELTA_LOG_LOSS, DELTA_LOG_LOSS_SE, FITS_T4X2, HEADLINES, PEAK_GIB
from zoo.scores.tables import CARD, SCORES, variant_metrics
from zoo.store import RESULT, artifact_name, fingerprint, leave_out, list_artifacts, source_of, sources
from zoo.tracking.naming import stage_name
from zoo.tracking.recipe import chain_params, changes_of

if TYPE_CHECKING:
    from zoo.data.battles import Battles


@dataclass(frozen=True)
class Data:
    """Data that a run reads: digest, file's name, who wrote it, and rows where known.

    `profile`: further facts for people, by name; `columns`: type by name (`string`, `long`, `double`). Empty where the file is
    not at hand.
    """

    digest: str
    name: str
    made_by: tuple[str, ...] = ()
    rows: int | None = None
    profile: Mapping[str, float] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """One MLflow run: a stage, or one variant of a score stage.

    `name`: what people see it called. `params` has the settings of the stages before it, too; `changes` those that are not the
    entry's own, dotted name -> (here, in the entry).
    """

    name: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]
    curves: dict[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)
    card: ScoreCard | None = None
    changes: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """What makes the run the same one when it is logged again: fingerprint and variant."""
        return self.tags["zoo.fingerprint"], self.tags.get("zoo.variant", "")


def stage_facts(manifest: Manifest, folder: Path, entry: Entry | None, battles: Battles | None = None) -> list[Facts]:
    """The runs of a finished stage.

    One, or for a score stage one a variant, so that each member has a run of its own. `battles`: the labelled battles that were
    scored, where they are at hand, for the log loss of parts of them.
    """
    tags, params, changes = stage_tags(manifest, entry), chain_params(manifest, folder), changes_of(manifest, folder)
    times = {"time/load_seconds": manifest.measurements.load_seconds, "time/run_seconds": manifest.measurements.run_seconds}
    if manifest.measurements.peak_bytes:
        times[PEAK_GIB] = manifest.measurements.peak_bytes / 2**30
    slugs = sorted(path.parent.name for path in folder.glob(f"*/{CARD}"))
    if not slugs:
        metrics = {**manifest.metrics, **times}
        name = stage_name(manifest, folder, "", changes)
        return [Facts(name, tags, params, metrics, curves_of(folder, metrics), changes=changes)]
    fits = fits_t4x2(manifest, folder, entry)
    return [variant_facts(manifest, folder, slug, tags, params, changes, times | fits, battles) for slug in slugs]


def planned_facts(request: Request, entry: Entry | None, store: Path) -> list[Facts]:
    """The runs of a stage that is running: what is known of them before it ends.

    They are found again by the same keys as `stage_facts`.
    """
    manifest, folder = _unfinished(request), store / artifact_name(request)
    tags, params, changes = stage_tags(manifest, entry), chain_params(manifest, folder), changes_of(manifest, folder)
    slugs = [variant.slug for variant in variants_of(request)]
    if not slugs:
        return [Facts(stage_name(manifest, folder, "", changes), tags, params, {}, changes=changes)]
    names = {slug: stage_name(manifest, folder, f"{request.entry}@{slug}", changes) for slug in slugs}
    return [Facts(names[slug], tags | {"zoo.variant": slug}, params, {}, changes=changes) for slug in slugs]


def planned_data(request: Request, store: Path) -> Data | None:
    """The battles of a stage that is running, as `data_of` has them."""
    return data_of(_unfinished(request), store / artifact_name(request))


def _unfinished(request: Request) -> Manifest:
    return Manifest(
        stage=request.stage,
        fingerprint=fingerprint(request),
        request=request,
        files={},
        metrics={},
        measurements=Measurements(),
        hardware={},
        packages={},
        git_commit=None,
        argv=(),
        created_at=datetime.datetime.now(datetime.UTC),
    )


def variant_facts(
    manifest: Manifest,
    folder: Path,
    slug: str,
    tags: dict[str, str],
    params: dict[str, str],
    changes: dict[str, tuple[str, str]],
    shared: dict[str, float],
    battles: Battles | None,
) -> Facts:
    """The run of one variant.

    Its own metrics under the names that every scored run has, and its price.
    """
    from zoo.scores.slices import labelled_rows, slice_metrics
    from zoo.scores.tables import read_card, read_scores

    card = read_card(folder / slug / CARD)
    own = {"zoo.variant": slug, "zoo.member": card.member, "zoo.target": card.target, "zoo.engine": card.engine}
    own |= {"zoo.scored": "yes"} | ({"zoo.emulates": card.emulates} if card.emulates else {})
    variant = {f"variant.{k}": str(v) for k, v in card.variant.model_dump(exclude={"template"}).items() if v is not None}
    cost = {} if card.emulates else price(card.cost, folder / slug / SCORES)
    metrics = {**variant_metrics(manifest, slug), **cost, **shared}
    if battles is not None:
        table = read_scores(folder / slug / SCORES)
        parts = slice_metrics(labelled_rows(table, battles.frame, ties=battles.can_tie))
        metrics = parts | quantization_delta(manifest, folder, slug, battles) | metrics
    ordered = {name: metrics[name] for name in (*HEADLINES, *sorted(metrics)) if name in metrics}
    name = stage_name(manifest, folder, card.member, changes)
    return Facts(name, tags | own, params | variant, ordered, card=card, changes=changes)


def fits_t4x2(manifest: Manifest, folder: Path, entry: Entry | None) -> dict[str, float]:
    """`t4x2/fits`: 1 if the entry passes every check for two T4s, 0 if not.

    Nothing where there is no entry to check.
    """
    from zoo.checks import check_entry
    from zoo.targets import load_target

    if entry is None:
        return {}
    if isinstance(manifest.request, ScoreRequest) and entry.quantize is not None:  # one form of it was scored
        form = manifest.request.spec.variants[0].form or entry.quantize.scheme
        entry = entry_of_form(entry, form) if form in forms_of(entry) else entry
    weights = source_of(manifest, folder, "fetch")
    model = weights.path / "model" if weights else None
    findings = check_entry(entry, load_target("t4x2"), model_folder=model if model and model.is_dir() else None)
    return {FITS_T4X2: float(all(finding.verdict != "fail" for finding in findings))}


def stage_tags(manifest: Manifest, entry: Entry | None) -> dict[str, str]:
    """Who made the run and with what: allow-listed, so that nothing private gets in."""
    tags = {
        "zoo.stage": manifest.stage,
        "zoo.entry": manifest.request.entry,
        "zoo.entry_version": version_of(entry),
        "zoo.fingerprint": manifest.fingerprint,
        "zoo.machine": manifest.hardware.get("machine", ""),
        "zoo.target": manifest.request.target if isinstance(manifest.request, ScoringRequest | CapsRequest) else "",
        "zoo.git_commit": manifest.git_commit or "",
        "mlflow.source.git.commit": (manifest.git_commit or "").rstrip("+"),
        "mlflow.source.name": f"zoo {manifest.stage}",
        "mlflow.source.type": "LOCAL",
    }
    tags |= {f"package.{name}": version for name, version in manifest.packages.items()}
    return {key: value for key, value in tags.items() if value}


def version_of(entry: Entry | None) -> str:
    return str(entry.version) if entry else "unknown"


def curves_of(folder: Path, metrics: Mapping[str, float]) -> dict[str, tuple[tuple[int, float], ...]]:
    """Curves that the stage left in result.json.

    One named like a final metric becomes `curve/NAME`: a run table shows the last point of a name, which must be the final
    value. ZooError where it cannot be read.
    """
    path = folder / RESULT
    if not path.exists():
        return {}
    try:
        curves = StageResult.model_validate_json(path.read_bytes()).curves
    except (OSError, ValueError) as error:
        what = first_fault(error) if isinstance(error, ValidationError) else str(error)
        mend = f"`zoo rm {folder.name}` removes its artifact, then run the stage again"
        raise ZooError(f"{path}: not what a stage leaves ({what}); {mend}") from error
    return {curve_name(name, metrics): points for name, points in curves.items()}


def curve_name(name: str, finals: Container[str]) -> str:
    """What a curve is logged as; `finals`: the names of final values."""
    return f"curve/{name}" if name in finals else name


def data_of(manifest: Manifest, folder: Path) -> Data | None:
    """The battles of a stage, or the prompts that it answers.

    Its own, or those of the stages it was made from (a merge reads none). None for base weights.
    """
    inputs = manifest.request.inputs
    battles = inputs.get("battles") or inputs.get("prompts")
    if battles is None:
        found = source_of(manifest, folder, "train", "quantize", "lexical-train")
        battles = found.manifest.request.inputs.get("battles") if found else None
    if battles is None:
        return None
    name = battles.place.name if battles.place else "battles"
    return Data(battles.fingerprint, name.removesuffix(".gz").removesuffix(".csv"))


def quantization_delta(manifest: Manifest, folder: Path, slug: str, battles: Battles) -> dict[str, float]:
    """`quant/delta_log_loss`: what quantization cost.

    The quantized checkpoint's log loss minus that of the merged one it was made from. Both by the same engine stage, variant
    and rows: known where the store also has a score stage of the merged weights. Its standard error is that of the paired
    differences, by prompts.
    """
    from zoo.data.splits import groups_of
    from zoo.scores.metrics import log_loss_rows, mean_and_error
    from zoo.scores.slices import labelled_rows
    from zoo.scores.tables import OK, read_scores

    quantized = next((a for a in sources(manifest, folder) if a.manifest.stage == "quantize"), None)
    merged = next(sources(quantized.manifest, quantized.path), None) if quantized else None
    if merged is None:
        return {}
    table = read_scores(folder / slug / SCORES)
    for other in reversed(list_artifacts(folder.parent, "score")):
        path = other.path / slug / SCORES
        asked = other.manifest.request
        if not isinstance(asked, ScoreRequest) or asked.model.fingerprint != merged.fingerprint or not path.exists():
            continue
        try:
            before = read_scores(path)
        except ZooError as unreadable:
            leave_out(unreadable)
            continue
        shared = sorted(set(table["id"][table["status"] == OK]) & set(before["id"][before["status"] == OK]))
        both = [t.set_index("id", drop=False).loc[shared] for t in (table, before)]
        pair = [labelled_rows(t, battles.frame, ties=battles.can_tie) for t in both]
        if len(pair[0].y) > 1 and len(pair[0].y) == len(pair[1].y):
            difference = log_loss_rows(pair[0].p, pair[0].y) - log_loss_rows(pair[1].p, pair[1].y)
            mean, error = mean_and_error(difference, groups_of(battles, pair[0].ids))
            return {DELTA_LOG_LOSS: mean, DELTA_LOG_LOSS_SE: error}
    return {}
