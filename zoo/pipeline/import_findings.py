"""What a table from elsewhere is as a member, and what is odd about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.pipeline.import_checks import told_of_hard
from zoo.pipeline.import_table import Imported, Labelled, labelled_rows
from zoo.pipeline.members import Table, score_tables, standing
from zoo.scores.leaks import in_sample, partly_leaked
from zoo.scores.metrics import even_share, label_share_loss, log_loss_rows, mean_and_error, uniform_loss
from zoo.scores.tables import probabilities, without_ties


@dataclass(frozen=True)
class Findings:
    """A member from elsewhere, measured over the rows that are scored and labelled.

    Log losses are in nats, `error` is by prompt. `labelled`: rows of the battles that could have been scored. `ties`: whether
    the battles can be ties; where not, losses are of A and B alone. `replaces`: what became of tables of the same name.
    `notes`: what was read and mended; `warnings`: why it should not be trusted as it is.
    """

    rows: int
    labelled: int
    log_loss: float
    error: float
    label_shares: float
    uniform: float
    ties: bool
    replaces: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def findings(imported: Imported, store: Path) -> Findings:
    """What an imported member is, beside the tables that the store has of the same battles."""
    rows = labelled_rows(imported.given.table, imported.battles)
    p, y, groups = rows.p, rows.y, rows.groups
    loss, error = mean_and_error(log_loss_rows(p, y), groups)
    tables = score_tables(store)
    own = next((t for t in tables if imported.path in (t.path, t.path.parent)), None)
    peers = _peers(tables, own, rows, ties=imported.battles.can_tie)
    ties = imported.battles.can_tie
    uniform, even = uniform_loss(ties=ties), even_share(ties=ties)
    warnings = [
        in_sample(p, y, groups, peers),
        partly_leaked(p, y),
        f"worse than {even} for each label: log loss {loss:.4f}, where that has {uniform:.4f}" if loss > uniform else "",
        _hard(p, y),
    ]
    return Findings(
        rows=len(y),
        labelled=int((imported.battles.frame["label"] >= 0).sum()),
        log_loss=loss,
        error=error,
        label_shares=label_share_loss(y),
        uniform=uniform,
        ties=ties,
        replaces=_replaces(tables, own),
        notes=imported.given.notes,
        warnings=tuple(filter(None, warnings)),
    )


def _peers(tables: Sequence[Table], own: Table | None, rows: Labelled, *, ties: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Other checkpoints' members on the same battles: the places of the rows that each shares, and its losses there."""
    if own is None:
        return []
    place = {row_id: i for i, row_id in enumerate(rows.ids)}
    found = []
    for member in standing(tables).members:
        other = member.table
        if other.card.dataset_digest != own.card.dataset_digest or other.card.checkpoint == own.card.checkpoint:
            continue
        if other.name == own.name:
            continue
        frame = other.usable
        frame = frame[frame["id"].isin(place)]
        places = np.array([place[i] for i in frame["id"]], dtype=np.int64)
        p = probabilities(frame) if ties else without_ties(probabilities(frame))
        found.append((places, log_loss_rows(p, rows.y[places])))
    return found


def _replaces(tables: Sequence[Table], own: Table | None) -> str:
    """Which tables of its name it stands before, or which one stands before it; empty where there is none."""
    if own is None:
        return ""
    card = own.card
    found = standing([t for t in tables if t.name == own.name and t.card.dataset_digest == card.dataset_digest])
    taken = [part for member in found.members for part in member.parts]
    if not any(part is own for part in taken):
        return next(f"nothing: {reason}" for table, reason in found.superseded if table is own)
    replaced = [f"{t.which} ({t.rows:,} rows)" for t, _ in found.superseded if t.card.target == own.card.target]
    return ", ".join(replaced)


def _hard(p: np.ndarray, y: np.ndarray) -> str:
    """How many rows leave a label no chance at all, and how many of those had it."""
    told = told_of_hard(p)
    lost = int((p[np.arange(len(y)), y] == 0).sum())
    return f"{told}; {lost:,} rows leave their own label no chance (34.5 nats each)" if told else ""
