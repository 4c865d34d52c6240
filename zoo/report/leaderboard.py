"""The leaderboard: log loss, cost and memory of every scored member in the store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from zoo.contracts import Contract
from zoo.cost.price import price
from zoo.errors import ZooError
from zoo.report.text import Column, Page, Table, lowest
from zoo.scores.metric_names import (
    ACCURACY,
    CALIBRATION_ERROR,
    FAILED_ROWS,
    HOURS_25K,
    LOAD_SECONDS,
    LOG_LOSS,
    LOG_LOSS_SE,
    METRICS,
    PEAK_GIB,
    ROWS,
    SECONDS_PER_ROW,
    TOKENS_PER_ROW,
)
from zoo.scores.tables import CARD, SCORES, variant_metrics
from zoo.store import Artifact, leave_out, list_artifacts


class Row(Contract):
    """One member. Log loss and its standard error in nats.

    None where the battles have no labels or no row was scored.
    """

    member: str
    log_loss: float | None
    log_loss_se: float | None
    calibration_error: float | None
    accuracy: float | None
    rows: int
    failed_rows: int
    tokens_per_row: float | None
    load_seconds: float | None
    seconds_per_row: float | None
    hours_25k: float | None
    peak_gib: float | None
    target: str
    dataset: str
    created_at: datetime
    fingerprint: str


def leaderboard(store: Path, *, dataset: str | None = None) -> list[Row]:
    """Members of the store, data set by data set, the newest first.

    Losses on different rows do not compare. In each the best comes first, unlabelled ones last. `dataset`: only that one, by
    the beginning of its digest.
    """
    rows = []
    for artifact in list_artifacts(store):
        for path in sorted(artifact.path.glob(f"*/{CARD}")):
            try:
                rows.append(_row(artifact, path))
            except ZooError as error:  # one table that cannot be read hides no other
                leave_out(error)
    rows = [row for row in rows if row.dataset.startswith(dataset or "")]
    newest = {row.dataset: max(r.created_at for r in rows if r.dataset == row.dataset) for row in rows}
    rows.sort(key=lambda r: (r.log_loss is None, r.log_loss or 0.0, r.member))
    return sorted(rows, key=lambda r: (newest[r.dataset], r.dataset), reverse=True)


def _row(artifact: Artifact, path: Path) -> Row:
    """The member whose card lies at `path`; ZooError where the card or the table cannot be read."""
    from zoo.scores.tables import read_card

    manifest, card = artifact.manifest, read_card(path)
    metrics = variant_metrics(manifest, path.parent.name)
    cost = price(card.cost, path.parent / SCORES) if not card.emulates else {}  # its speed is no target's
    return Row(
        member=card.member,
        log_loss=metrics.get(LOG_LOSS),
        log_loss_se=metrics.get(LOG_LOSS_SE),
        calibration_error=metrics.get(CALIBRATION_ERROR),
        accuracy=metrics.get(ACCURACY),
        rows=card.rows,
        failed_rows=card.failed_rows,
        tokens_per_row=cost.get(TOKENS_PER_ROW),
        load_seconds=None if card.emulates else card.cost.load_seconds,
        seconds_per_row=cost.get(SECONDS_PER_ROW),
        hours_25k=cost.get(HOURS_25K),
        peak_gib=manifest.measurements.peak_bytes / 2**30 or None,
        target=f"{card.target} as {card.emulates}" if card.emulates else card.target,
        dataset=card.dataset_digest,
        created_at=manifest.created_at,
        fingerprint=manifest.fingerprint,
    )


COLUMNS = (
    Column("member"),
    Column(METRICS[LOG_LOSS].title, "log_loss", ".4f"),
    Column(METRICS[LOG_LOSS_SE].title, "log_loss_se", ".4f"),
    Column(METRICS[CALIBRATION_ERROR].title, "calibration_error", ".4f", drop=5),
    Column(METRICS[ACCURACY].title, "accuracy", ".3f", drop=4),
    Column(METRICS[ROWS].title, "rows", drop=1),
    Column(METRICS[FAILED_ROWS].title, "failed_rows", drop=7),
    Column(METRICS[TOKENS_PER_ROW].title, "tokens_per_row", ".0f", drop=9),
    Column(METRICS[LOAD_SECONDS].title, "load_seconds", ".1f", drop=10),
    Column(METRICS[SECONDS_PER_ROW].title, "seconds_per_row", ".2g", drop=8),
    Column(METRICS[HOURS_25K].title, "hours_25k", ".2g", drop=2),
    Column(METRICS[PEAK_GIB].title, "peak_gib", ".1f", drop=6),
    Column("target", drop=3),
    Column("data", "dataset", lambda digest: digest[:8], drop=11),
    Column("made", "created_at", lambda moment: moment[:10], drop=12),
)


def leaderboard_page(rows: Sequence[Row]) -> tuple[Page, list[dict[str, Any]]]:
    """Rows as a table with the best of each data set marked, and as plain data."""
    records = [row.model_dump(mode="json") for row in rows]
    if not rows:
        return ["no scored members yet; `zoo run ENTRY --data BATTLES.csv` makes one", Table(COLUMNS, [])], records
    best: frozenset[int] = frozenset()
    for dataset in {row.dataset for row in rows}:
        best |= lowest([row.log_loss if row.dataset == dataset else None for row in rows])
    table = Table(COLUMNS, [[record[column.key or column.title] for column in COLUMNS] for record in records], best)
    return [table], records
