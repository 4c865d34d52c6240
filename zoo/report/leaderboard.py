"""The leaderboard: log loss, cost and memory of every scored member in the store."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from zoo.contracts import Contract
from zoo.cost.price import price
from zoo.scores.tables import CARD, SCORES, variant_metrics
from zoo.store import list_artifacts


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
    from zoo.scores.tables import read_card

    rows = []
    for artifact in list_artifacts(store):
        for path in sorted(artifact.path.glob(f"*/{CARD}")):
            manifest, card = artifact.manifest, read_card(path)
            metrics = variant_metrics(manifest, path.parent.name)
            cost = price(card.cost, path.parent / SCORES) if not card.emulates else {}  # its speed is no target's
            rows.append(
                Row(
                    member=card.member,
                    log_loss=metrics.get("val/log_loss"),
                    log_loss_se=metrics.get("val/log_loss_se"),
                    calibration_error=metrics.get("val/calibration_error"),
                    accuracy=metrics.get("val/acc"),
                    rows=card.rows,
                    failed_rows=card.failed_rows,
                    tokens_per_row=cost.get("cost/tokens_per_row"),
                    load_seconds=None if card.emulates else card.cost.load_seconds,
                    seconds_per_row=cost.get("cost/seconds_per_row"),
                    hours_25k=cost.get("cost/hours_25k"),
                    peak_gib=manifest.measurements.peak_bytes / 2**30 or None,
                    target=f"{card.target} as {card.emulates}" if card.emulates else card.target,
                    dataset=card.dataset_digest,
                    created_at=manifest.created_at,
                    fingerprint=manifest.fingerprint,
                )
            )
    rows = [row for row in rows if row.dataset.startswith(dataset or "")]
    newest = {row.dataset: max(r.created_at for r in rows if r.dataset == row.dataset) for row in rows}
    rows.sort(key=lambda r: (r.log_loss is None, r.log_loss or 0.0, r.member))
    return sorted(rows, key=lambda r: (newest[r.dataset], r.dataset), reverse=True)


HEADERS = (
    *("member", "log loss", "se", "calib.", "acc", "rows", "tokens/row", "load s", "s/row", "25k rows h"),
    *("GiB", "target", "data", "made"),
)


def render(rows: list[Row], style: str = "table") -> str:
    """Rows as `table` (for a terminal), `markdown` or `json`."""
    if style == "json":
        return json.dumps([row.model_dump(mode="json") for row in rows], indent=1)
    if not rows:
        return "no scored members yet; `zoo run ENTRY --data BATTLES.csv` makes one"
    from zoo.report.text import text_table

    return text_table(HEADERS, [_cells(row) for row in rows], style=style)


def _cells(row: Row) -> list[str]:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    failed = f" ({row.failed_rows} failed)" if row.failed_rows else ""
    return [
        row.member,
        number(row.log_loss, ".4f"),
        number(row.log_loss_se, ".4f"),
        number(row.calibration_error, ".4f"),
        number(row.accuracy, ".3f"),
        f"{row.rows}{failed}",
        number(row.tokens_per_row, ".0f"),
        number(row.load_seconds, ".1f"),
        number(row.seconds_per_row, ".2g"),
        number(row.hours_25k, ".2g"),
        number(row.peak_gib, ".1f"),
        row.target,
        row.dataset[:8],
        row.created_at.strftime("%Y-%m-%d"),
    ]
