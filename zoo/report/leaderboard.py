"""The leaderboard: log loss, cost and memory of every scored member, by data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from zoo.contracts import Contract, rule_name
from zoo.cost.elsewhere import Forecaster
from zoo.cost.price import COMPETITION_ROWS, price_of
from zoo.errors import ZooError
from zoo.pipeline.members import Member, Table, score_tables, standing
from zoo.pipeline.suspicion import suspects_of_data
from zoo.pipeline.truth import Truth, truth_at_hand
from zoo.report.member_cost import Price, is_measured_on, price_on
from zoo.report.paired import common_ids, losses_by_id
from zoo.scores.metric_names import (
    ACCURACY,
    CALIBRATION_ERROR,
    HOURS_25K,
    LOG_LOSS,
    LOG_LOSS_SE,
    ROWS,
    SECONDS_PER_ROW,
    TOKENS_PER_ROW,
)
from zoo.scores.metrics import mean_and_error, standard_error

if TYPE_CHECKING:
    from zoo.targets import Target

SAME_ROWS = 0.95  # losses are ranked together where the rows that all have are at least this share of the most that one has


class SortBy(StrEnum):
    """What members of one group are sorted by: the best, cheapest, first or newest at the top."""

    loss = "loss"
    acc = "acc"
    cost = "cost"
    name = "name"
    made = "made"


class Row(Contract):
    """One member, or a table of it that another one replaces (`superseded` says which).

    `data` is the name of the battles' file without its endings, `dataset` their digest. Members whose losses compare share a
    `group`: on one data set, `common_rows` that all of them have, which are nearly all that any of them has. Log loss and its
    error (by prompts, where the battles' file is at hand) are in nats, of the member's own `rows`: those that were labelled, or
    all where there is no loss. `common_log_loss` is
    of the common rows, and `difference` that less the best member's, with the standard error of the paired difference by
    prompts; None where the battles' file is gone, and for superseded ones. `is_best`: lowest there of those that nothing speaks
    against.

    `suspect`: why it looks as if it had seen the labels beside the others of its data, as a build judges it; it is never the
    best, and no build takes it unless asked. That of a superseded table is what its import found. `is_champion`: its entry's
    champion (`zoo promote`, or a build). `fold_rule`: by which prompts were dealt into folds; empty where nobody knows, or
    nothing was held out.

    Cost is of 25,000 such rows on the whole `cost_target`. `cost_basis`: measured or declared there, or the forecast's kind
    (scaled, published, rates); empty with `cost_note`, the reason, where there is none. Tables of all folds of one recipe are
    one member, under the fingerprint of the last.
    """

    member: str
    data: str
    dataset: str
    group: int = 0
    log_loss: float | None
    log_loss_se: float | None
    common_rows: int | None = None
    common_log_loss: float | None = None
    difference: float | None = None
    difference_se: float | None = None
    calibration_error: float | None
    accuracy: float | None
    rows: int
    failed_rows: int
    tokens_per_row: float | None
    load_seconds: float | None
    seconds_per_row: float | None
    hours_25k: float | None
    cost_target: str
    cost_basis: str = ""
    cost_note: str = ""
    peak_gib: float | None
    target: str
    created_at: datetime
    fingerprint: str
    fold_rule: str = ""
    superseded: str = ""
    suspect: str = ""
    is_best: bool = False
    is_champion: bool = False


@dataclass(frozen=True)
class _Scored:
    """A member with what its rows say: their ids, and their losses where the labels are at hand."""

    member: Member
    row: Row
    ids: pd.Index
    losses: pd.Series | None


def leaderboard(
    store: Path,
    *,
    data: str | None = None,
    target: Target | None = None,
    sort: SortBy = SortBy.loss,
    top: int | None = None,
    superseded: bool = False,
    champions: Mapping[str, str] = {},
) -> list[Row]:
    """Members of the store, data set by data set, the newest first.

    Of each the table that a build would take. Losses on different rows do not compare: in each data set come first the members
    with the most rows, then groups with fewer or others; unlabelled ones last. `data`: only that one, by its file's name or the
    beginning of its digest; ZooError where no member is of it. `target`: what each costs on that machine, measured or
    forecast; a member that was scored there is not shown as scored elsewhere, too. `top`: at most so many of each group.
    `superseded`: below all of a data set's members, also the tables that others of their name replace. `champions`: entry ->
    fingerprint of its champion's checkpoint.
    """
    found = standing(score_tables(store))
    members = [member for member in found.members if _is_of(member.table, data)]
    replaced = [(table, reason) for table, reason in found.superseded if superseded and _is_of(table, data)]
    if data is not None and not members:
        known = sorted({f"{data_name(member.table)} ({member.table.card.dataset_digest[:8]})" for member in found.members})
        raise ZooError(f"--data {data}: no scored member is of such data; there are {', '.join(known) or 'none yet'}")
    price = partial(price_on, target=target, forecaster=Forecaster(target, COMPETITION_ROWS, (store,)) if target else None)
    rows: list[Row] = []
    for group in _by_data(members).values():
        rows += _rows_of_data(_without_doubles(group, target), price, champions, sort, top, store)
        digest = group[0].table.card.dataset_digest
        own = [(table, why) for table, why in replaced if table.card.dataset_digest == digest]
        truth = truth_at_hand(store, [table for table, _ in own]) if own else None
        older = [_row(Member((table,)), price, truth, why, table.card.suspect) for table, why in own]
        rows += sorted(older, key=_order(SortBy.loss))
    return rows


def data_name(table: Table) -> str:
    """The name of a table's battles without its endings; `battles` where nobody knows it."""
    return table.battles_path.name.partition(".")[0] if table.battles_path else "battles"


def _is_of(table: Table, data: str | None) -> bool:
    return data is None or table.card.dataset_digest.startswith(data) or Path(data).name.partition(".")[0] == data_name(table)


def _by_data(members: Sequence[Member]) -> dict[str, list[Member]]:
    """Members by data set, that with the newest table first."""
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(member.table.card.dataset_digest, []).append(member)
    return dict(sorted(found.items(), key=lambda item: (max(map(_made, item[1])), item[0]), reverse=True))


def _made(member: Member) -> datetime:
    return max(part.manifest.created_at for part in member.parts if part.manifest)


def _without_doubles(members: Sequence[Member], target: Target | None) -> list[Member]:
    """Members without those that were scored on the target, too."""
    own = {m.table.name for m in members if target and is_measured_on(m.table.card, target)}
    return [m for m in members if m.table.name not in own or (target and is_measured_on(m.table.card, target))]


def _rows_of_data(
    members: Sequence[Member], price: Price, champions: Mapping[str, str], sort: SortBy, top: int | None, store: Path
) -> list[Row]:
    """One data set's members, group by group."""
    truth = truth_at_hand(store, [member.table for member in members])
    suspects = suspects_of_data(members, truth)
    scored = [
        _scored(member, _row(member, price, truth, "", suspects.get(place, ""), champions), truth)
        for place, member in enumerate(members)
    ]
    rows: list[Row] = []
    for number, group in enumerate(_groups(scored)):
        rows += sorted(_compared(group, number, truth), key=_order(sort))[:top]
    return rows


def _scored(member: Member, row: Row, truth: Truth | None) -> _Scored:
    table = member.table
    losses = losses_by_id(table, truth) if truth is not None and row.log_loss is not None else None
    ids = pd.Index(table.usable["id"]) if losses is None else losses.index
    if losses is not None and truth is not None and len(losses):  # a stage of an earlier version counted each row as a prompt
        error = standard_error(losses.to_numpy(), truth.groups.loc[ids].to_numpy())
        row = row.model_copy(update={"log_loss_se": error if np.isfinite(error) else None})
    return _Scored(member, row, ids, losses)


def _groups(scored: Sequence[_Scored]) -> list[list[_Scored]]:
    """Members in groups whose losses compare: nearly all rows of each are in all of the group.

    The group with the most rows comes first; members without a loss are the last.
    """
    groups: list[tuple[list[_Scored], pd.Index]] = []
    for one in sorted(scored, key=lambda s: (s.row.log_loss is None, -s.row.rows, s.row.member)):
        for place, (group, common) in enumerate(groups):
            shared = common[common.isin(one.ids)]
            alike = (group[0].row.log_loss is None) == (one.row.log_loss is None)
            if alike and len(shared) >= SAME_ROWS * max(len(group[0].ids), len(one.ids)):
                groups[place] = ([*group, one], shared)
                break
        else:
            groups.append(([one], one.ids))
    return [group for group, _ in groups]


def _compared(group: Sequence[_Scored], number: int, truth: Truth | None) -> list[Row]:
    """A group's rows with their differences from the best on the rows that all have."""
    losses = [one.losses for one in group if one.losses is not None]
    ids = common_ids(losses) if losses else None
    means = [one.row.log_loss if ids is None or one.losses is None else float(one.losses.loc[ids].mean()) for one in group]
    honest = [(mean, place) for place, mean in enumerate(means) if mean is not None and not group[place].row.suspect]
    best = min(honest)[1] if len(honest) > 1 else None
    found = []
    for place, one in enumerate(group):
        changes: dict[str, object] = {"group": number, "is_best": place == best}
        if ids is not None and one.losses is not None and truth is not None:
            changes |= {"common_rows": len(ids), "common_log_loss": means[place]}
            first = group[best].losses if best is not None else None
            if first is not None:
                rows = one.losses.loc[ids].to_numpy() - first.loc[ids].to_numpy()
                mean, error = mean_and_error(rows, truth.groups.loc[ids].to_numpy())
                changes |= {"difference": mean, "difference_se": error if np.isfinite(error) else None}
        found.append(one.row.model_copy(update=changes))
    return found


def _order(sort: SortBy) -> Callable[[Row], tuple[bool, float, float, str]]:
    """The place of a row in its group: those without a value last, equal ones by log loss and name."""

    def key(row: Row) -> tuple[bool, float, float, str]:
        loss = row.common_log_loss if row.common_log_loss is not None else row.log_loss
        values: dict[SortBy, float | None] = {
            SortBy.loss: loss,
            SortBy.acc: None if row.accuracy is None else -row.accuracy,
            SortBy.cost: row.hours_25k,
            SortBy.name: 0.0,
            SortBy.made: -row.created_at.timestamp(),
        }
        value = values[sort]
        second = 0.0 if sort is SortBy.name or loss is None else loss
        return value is None, value or 0.0, second, row.member

    return key


def _row(
    member: Member,
    price: Price,
    truth: Truth | None,
    superseded: str = "",
    suspect: str = "",
    champions: Mapping[str, str] = {},
) -> Row:
    table, parts = member.table, member.parts
    card, frame = table.card, table.frame
    priced = price(table, truth)
    cost = price_of(priced.cost, priced.lengths) if priced.cost else {}
    metrics = _pooled([part.metrics for part in parts])
    peak = max((part.manifest.measurements.peak_bytes for part in parts if part.manifest), default=0)
    return Row(
        member=card.member,
        data=data_name(table),
        dataset=card.dataset_digest,
        log_loss=metrics.get(LOG_LOSS),
        log_loss_se=metrics.get(LOG_LOSS_SE),
        calibration_error=metrics.get(CALIBRATION_ERROR),
        accuracy=metrics.get(ACCURACY),
        rows=int(metrics.get(ROWS, len(frame))) if LOG_LOSS in metrics else len(frame),
        failed_rows=sum(part.card.failed_rows for part in parts),
        tokens_per_row=cost.get(TOKENS_PER_ROW) if frame["n_tokens"].any() else None,
        load_seconds=priced.cost.load_seconds if priced.cost else None,
        seconds_per_row=cost.get(SECONDS_PER_ROW),
        hours_25k=cost.get(HOURS_25K),
        cost_target=priced.target,
        cost_basis=priced.basis if cost else "",
        cost_note=priced.note,
        peak_gib=peak / 2**30 or None,
        target=f"{card.target} as {card.emulates}" if card.emulates else card.target,
        created_at=_made(member),
        fingerprint=table.fingerprint,
        fold_rule=rule_name(card.fold_rule) if table.says_its_rule else "",
        superseded=superseded,
        suspect=suspect,
        is_champion=not superseded and champions.get(card.entry) == card.checkpoint,
    )


def _pooled(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Metrics of one table, or of the tables of a recipe's folds taken together.

    Means are weighted by rows. What the best recalibration of all would gain is not in the parts, so it is left out.
    """
    if len(parts) == 1:
        return parts[0]
    parts = [part for part in parts if LOG_LOSS in part and ROWS in part]
    if not parts:
        return {}
    rows = np.array([part[ROWS] for part in parts])
    pooled = {ROWS: float(rows.sum())}
    for name in (LOG_LOSS, ACCURACY):
        if all(name in part for part in parts):
            pooled[name] = float(rows @ [part[name] for part in parts] / rows.sum())
    if all(LOG_LOSS_SE in part for part in parts):
        pooled[LOG_LOSS_SE] = float(np.sqrt(((rows * [part[LOG_LOSS_SE] for part in parts]) ** 2).sum()) / rows.sum())
    return pooled
