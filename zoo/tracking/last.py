"""What came out of a scored run, against the version of the same entry before it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.contracts import Held, Manifest
from zoo.errors import ZooError
from zoo.pipeline.members import load_table
from zoo.pipeline.truth import rule_of, truth_of
from zoo.report.paired import difference, losses_by_id
from zoo.scores.metric_names import LOG_LOSS
from zoo.scores.tables import CARD, variant_metrics
from zoo.store import Artifact, leave_out, list_artifacts
from zoo.tracking.describe import loss_text
from zoo.tracking.facts import Facts

if TYPE_CHECKING:
    from zoo.data.battles import Battles


def result_text(manifest: Manifest, folder: Path, fact: Facts, battles: Battles | None) -> str:
    """Log loss, and the paired difference from the entry's last version on the same rows.

    Plain numbers where the battles are not at hand. Empty where nothing was judged.
    """
    told = loss_text(fact.metrics)
    slug = fact.tags.get("zoo.variant", "")
    if not told or not slug:
        return f"{told}." if told else ""
    before = last_version(manifest, folder, slug)
    if before is None:
        return f"{told}. It is the first version of this entry on these battles."
    earlier = variant_metrics(before.manifest, slug).get(LOG_LOSS)
    when = f"{before.manifest.created_at:%Y-%m-%d}, {before.fingerprint[:8]}"
    if earlier is None:
        return f"{told}."
    return f"{told}. The version before ({when}) had {earlier:.4f}{_paired(manifest, folder, before, slug, battles)}."


def last_version(manifest: Manifest, folder: Path, slug: str) -> Artifact | None:
    """The newest earlier artifact of the same entry, variant and rows, or None."""
    asked = _what(manifest)
    earlier = [
        artifact
        for artifact in list_artifacts(folder.parent, manifest.stage)
        if artifact.manifest.created_at < manifest.created_at and artifact.fingerprint != manifest.fingerprint
        if _what(artifact.manifest) == asked and (artifact.path / slug / CARD).exists()
    ]
    return earlier[-1] if earlier else None


def _what(manifest: Manifest) -> tuple[object, ...]:
    """What two artifacts share whose log losses compare."""
    request = manifest.request
    held = getattr(request, "held", None)
    battles = request.inputs.get("battles")
    folds = held if isinstance(held, Held) else (getattr(request, "fold", None), getattr(request, "rule", None))
    return (request.entry, battles.fingerprint if battles else "", folds, getattr(request, "selection", None))


def _paired(manifest: Manifest, folder: Path, before: Artifact, slug: str, battles: Battles | None) -> str:
    if battles is None:
        return ""
    try:
        both = ((folder, manifest.request), (before.path, before.manifest.request))
        tables = [load_table(path / slug, request) for path, request in both]
    except ZooError as error:
        leave_out(error)
        return ""
    truth = truth_of(battles, rule_of(tables))
    ours, theirs = (losses_by_id(table, truth) for table in tables)
    found = difference(ours, theirs, truth)
    return f": {found} on the {found.rows:,} rows that both have" if found else ""
