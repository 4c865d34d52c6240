"""Insight into a prediction: its weak slices, its calibration, its worst and best rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from zoo.data.battles import Battles, dataset_digest, labels_digest
from zoo.data.splits import prompt_groups
from zoo.errors import ZooError
from zoo.pipeline.members import Member, Table, standing
from zoo.pipeline.suspicion import labelled_rows_of, without_tie_column
from zoo.report.figures import outcomes
from zoo.report.insight_rows import InsightRows, extremes
from zoo.report.text import Cell, Column, Page
from zoo.report.text import Table as TextTable
from zoo.scores.metric_names import ACCURACY, LOG_LOSS, LOG_LOSS_SE
from zoo.scores.metrics import score_metrics
from zoo.scores.parts import Agreement, ClassCalibration, PartGain, PartLoss, class_calibration, is_told, part_losses
from zoo.scores.tables import probabilities

SHOWN_IN_TERMINAL = 5  # of the worst rows
BY_CHANCE = 0.05  # of slices that do not differ, the share whose 95 % interval leaves out zero


@dataclass(frozen=True)
class Insight:
    """What is known of a prediction on labelled rows.

    `members`: probabilities (rows, 3) of those that a plan blends, for their bars beside each row; `agreements` between them,
    and `helpers`: the slices in which other scored members beat the plan beyond its error, of so many `looked_at` (members
    times slices). `note`: what a reader has to know of the rows.
    """

    name: str
    data: str
    digest: str
    rows: InsightRows
    slices: list[PartLoss]
    calibration: list[ClassCalibration]
    metrics: dict[str, float]
    note: str = ""
    members: Mapping[str, np.ndarray] = field(default_factory=dict)
    agreements: list[Agreement] = field(default_factory=list)
    helpers: list[PartGain] = field(default_factory=list)
    others: tuple[str, ...] = ()
    looked_at: int = 0

    @property
    def told(self) -> list[PartLoss]:
        """Slices that differ from the rest beyond their error, the worst first."""
        return sorted((part for part in self.slices if part.differs), key=lambda part: -(part.against_rest or 0.0))


def insight_of(name: str, data: str, digest: str, rows: InsightRows, *, note: str = "", **more: Any) -> Insight:
    """The insight into predictions of some rows. `more`: what a plan knows besides."""
    metrics = score_metrics(rows.p, rows.y, ties=rows.ties, groups=rows.groups)
    calibration = class_calibration(rows.p, rows.y, rows.groups, outcomes(ties=rows.ties))
    slices = part_losses(rows.losses, rows.groups, rows.parts)
    return Insight(name, data, digest, rows, slices, calibration, metrics, note, **more)


def member_insight(tables: Sequence[Table], name: str, battles: Battles) -> Insight:
    """The insight into a member on the labelled battles that it was scored on.

    `tables`: those of a store; `name`: a member's, or a table's fingerprint. ZooError where there is no such member, or it was
    scored on other battles.
    """
    member = _member_of(tables, name, battles)
    labelled = battles.frame[battles.frame["label"] >= 0].set_index("id")
    frame = labelled_rows_of(member.table, labelled["label"])
    if not battles.can_tie:
        frame = without_tie_column(frame)
    if frame.empty:
        raise ZooError(f"{name}: none of its rows is labelled in {battles.path}; give battles with winners")
    card = member.table.card
    groups = dict(zip(battles.frame["id"], prompt_groups(battles.frame, card.fold_rule).tolist(), strict=True))
    rows = InsightRows(
        frame=labelled.loc[frame.index].reset_index(),
        p=probabilities(frame),
        groups=np.array([groups[row_id] for row_id in frame.index]),
        cut=(frame["n_truncated_tokens"] > 0).to_numpy(),
        ties=battles.can_tie,
    )
    held_out = "out of fold" if member.table.knows_folds else "all its rows; whether it had seen them is not known"
    return insight_of(card.member, battles.path.name, dataset_digest(battles), rows, note=f"{held_out}; {card.engine}")


def _member_of(tables: Sequence[Table], name: str, battles: Battles) -> Member:
    """The newest standing member of that name on these battles."""
    named = [table for table in tables if table.name == name or table.is_called(name)]
    if not named:
        known = ", ".join(sorted({table.name for table in tables})[:20])
        raise ZooError(f"{name}: no scored member is called that; " + (f"there are {known}" if known else "score one first"))
    digests = {dataset_digest(battles), labels_digest(battles)}
    of_data = [table for table in named if table.card.dataset_digest in digests]
    if not of_data:
        files = sorted({f"{t.battles_path.name if t.battles_path else '?'} ({t.card.dataset_digest[:8]})" for t in named})
        raise ZooError(
            f"{name}: was scored on {', '.join(files)}, not on {battles.path} ({dataset_digest(battles)[:8]}); "
            "give those battles, or score it on these: zoo run ENTRY --data FILE"
        )
    return standing(of_data, [name]).members[-1]


def insight_data(insight: Insight, worst: int) -> dict[str, Any]:
    """All that is told, as plain data: the worst and best rows by id, never their texts."""
    high, low = extremes(insight.rows.losses, worst)
    found: dict[str, Any] = {
        "name": insight.name,
        "data": insight.data,
        "digest": insight.digest,
        "note": insight.note,
        "metrics": insight.metrics,
        "slices": [asdict(part) | {"differs": part.differs} for part in insight.slices],
        "calibration": [asdict(each) for each in insight.calibration],
        "worst": [_row(insight, place) for place in high],
        "best": [_row(insight, place) for place in low],
    }
    if insight.members:
        found["agreement"] = [asdict(each) for each in insight.agreements]
        found["would_help"] = [asdict(each) for each in insight.helpers]
        found["others"] = list(insight.others)
        found["looked_at"] = insight.looked_at
    return found


def _row(insight: Insight, place: int) -> dict[str, Any]:
    rows = insight.rows
    names = outcomes(ties=rows.ties)
    return {
        "id": str(rows.frame["id"].iloc[place]),
        "label": names[rows.y[place]],
        "log_loss": float(rows.losses[place]),
        **dict(zip(("p_a", "p_b", "p_tie"), rows.p[place].tolist(), strict=True)),
        "language": rows.languages[place],
        "turns": int(rows.turns[place]),
        "members": {name: p[place].tolist() for name, p in insight.members.items()},
    }


def insight_page(insight: Insight, worst: int, page: str) -> Page:
    """The short form for a terminal: slices that differ, calibration, and the worst rows."""
    metrics, rows = insight.metrics, insight.rows
    lines: list[str | TextTable] = [
        f"{insight.name} on {insight.data}: log loss {metrics[LOG_LOSS]:.4f} +- {metrics[LOG_LOSS_SE]:.4f} by prompts, "
        f"accuracy {metrics[ACCURACY]:.3f}, {len(rows.y):,} rows",
        insight.note,
        "",
        told_text(insight),
        *([slices_table(insight.told)] if insight.told else []),
        "",
        calibration_table(insight.calibration),
    ]
    if insight.agreements:
        lines += ["", agreement_table(insight.agreements)]
    if insight.members:
        lines += ["", help_text(insight), *([help_table(insight.helpers)] if insight.helpers else [])]
    return [*lines, "", worst_table(insight, min(worst, SHOWN_IN_TERMINAL)), "", f"{page}: the page, with the texts"]


def told_text(insight: Insight) -> str:
    """How many slices differ from the rest, and how many would by chance."""
    known = [p for p in insight.slices if p.against_rest_error is not None and np.isfinite(p.against_rest_error)]
    count, told = len(known), len(insight.told)
    if not count:
        return "no slice can be told from the other rows: on one side of each are too few rows, or those of one prompt alone"
    return (
        f"{told} of {count} slices differ from the other rows beyond the 95 % interval; of {count} that do not differ, about "
        f"{max(1, round(BY_CHANCE * count))} would look so by chance"
    )


def help_text(insight: Insight) -> str:
    """Whether another scored member is better somewhere."""
    if not insight.others:
        return "no other member is scored on these rows"
    who = f"one of {len(insight.others)} other scored members" if len(insight.others) > 1 else insight.others[0]
    if not insight.helpers:
        return f"where {who} beats the plan beyond its error: nowhere in {insight.looked_at} comparisons"
    chance = max(1, round(BY_CHANCE / 2 * insight.looked_at))
    return (
        f"where {who} beats the plan beyond its error: {len(insight.helpers)} of {insight.looked_at} comparisons, of "
        f"which about {chance} would by chance"
    )


def slices_table(slices: Sequence[PartLoss]) -> TextTable:
    """Slices with their loss beside the other rows'."""
    columns = [
        Column("slice of", "kind", drop=2),
        Column("slice", "name"),
        Column("rows", form=","),
        Column("log loss", "log_loss", ".4f"),
        Column("se", "log_loss_se", ".4f", drop=3),
        Column("against the rest", "against_rest", "+.4f"),
        Column("se", "against_rest_se", ".4f", drop=1),
    ]
    cells: list[list[Cell]] = [
        [part.kind, part.name, part.rows, part.loss, part.error, part.against_rest, part.against_rest_error] for part in slices
    ]
    return TextTable(columns, cells)


def calibration_table(found: Sequence[ClassCalibration]) -> TextTable:
    """Each label's mean probability beside how often it happened."""
    columns = [
        Column("label"),
        Column("predicted", form=".1%"),
        Column("happened", form=".1%"),
        Column("gap", form="+.1%"),
        Column("se", "gap_se", ".1%"),
    ]
    cells: list[list[Cell]] = [[each.label, each.predicted, each.happened, each.gap, each.error] for each in found]
    return TextTable(columns, cells)


def agreement_table(found: Sequence[Agreement]) -> TextTable:
    """Pairs of members: how often they agree, and who is right where they do not."""
    columns = [
        Column("one", prose=True),
        Column("other", prose=True),
        Column("same label", "same", ".0%"),
        Column("one right", "first_right", ".0%"),
        Column("other right", "second_right", ".0%"),
        Column("log loss apart", "difference", "+.4f"),
        Column("se", "difference_se", ".4f", drop=1),
        Column("errors alike", "correlation", ".2f", drop=2),
    ]
    cells: list[list[Cell]] = [
        [a.first, a.second, a.same, *map(_number, (a.first_right, a.second_right, a.difference, a.error, a.correlation))]
        for a in found
    ]
    return TextTable(columns, cells)


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def help_table(found: Sequence[PartGain]) -> TextTable:
    """Slices in which another member beats the plan."""
    columns = [
        Column("member", prose=True),
        Column("slice of", "kind", drop=2),
        Column("slice", "name"),
        Column("rows", form=","),
        Column("plan", "own", ".4f", drop=3),
        Column("member's", "theirs", ".4f", drop=3),
        Column("better by", "difference", "+.4f"),
        Column("se", "difference_se", ".4f", drop=1),
    ]
    cells: list[list[Cell]] = [
        [each.other, each.kind, each.name, each.rows, each.own, each.theirs, each.difference, each.error] for each in found
    ]
    return TextTable(columns, cells)


def worst_table(insight: Insight, count: int) -> TextTable:
    """The rows with the highest loss."""
    columns = [
        Column("worst rows", "id"),
        Column("label"),
        Column("its probability", "p", ".1%"),
        Column("log loss", form=".3f"),
    ]
    columns += [Column("language", drop=2), Column("turns", drop=1)]
    cells: list[list[Cell]] = []
    for place in extremes(insight.rows.losses, count)[0]:
        row = _row(insight, place)
        p = float(insight.rows.p[place, insight.rows.y[place]])
        cells.append([row["id"], row["label"], p, row["log_loss"], row["language"], row["turns"]])
    return TextTable(columns, cells)


def better(found: Sequence[PartGain]) -> list[PartGain]:
    """Those in which the other prediction is better beyond the 95 % interval, the surest first."""
    told = [each for each in found if each.difference < 0 and is_told(each.difference, each.error)]
    return sorted(told, key=lambda each: each.difference / each.error)
