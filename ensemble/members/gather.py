"""Gather the members: score tables of one data set, joined by id, out of fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.members.fold_rules import of_one_rule
from ensemble.members.prices import PriceList
from ensemble.members.rows import FEWEST_ROWS, shared_rows
from ensemble.members.table import Members, balanced_folds
from ensemble.members.texts import COLUMN, about_rows
from ensemble.members.vetting import duplicates, suspects
from zoo.contracts import Say
from zoo.data.battles import Battles, dataset_digest, labels_digest, read_battles, text_lengths
from zoo.data.splits import prompt_groups
from zoo.data.usable import MOST_BAD, usable_battles
from zoo.errors import ZooError
from zoo.pipeline.members import Table, check_names, standing
from zoo.pipeline.suspicion import labelled_rows_of, without_tie_column
from zoo.scores.tables import probabilities

FEWEST_PROMPTS = 15  # three for each fold


def with_alias(tables: Sequence[Table], checkpoints: dict[str, str], alias: str) -> list[Table]:
    """Tables of the members that carry an alias, and of their recipes' other folds.

    `checkpoints` by member name, as `zoo.tracking.promote.members_with_alias` gives them. ZooError where none is scored.
    """
    chosen = [table for table in tables if checkpoints.get(table.name) == table.card.checkpoint]
    if not chosen:
        raise ZooError(f"no score table is of a checkpoint with the alias {alias!r}; score it with `zoo run`, or build without")
    recipes = {(table.name, table.recipe) for table in chosen if table.recipe}
    folds = [table for table in tables if (table.name, table.recipe) in recipes and not any(table is c for c in chosen)]
    return [*folds, *chosen]  # of one name the last table is the one that serves


def align(
    tables: Sequence[Table],
    *,
    target: str | None = None,
    prices: PriceList | None = None,
    battles: Path | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    prefer: Sequence[str] = (),
    say: Say = lambda _: None,
    most_bad: float = MOST_BAD,
    column: str | None = None,
) -> Members:
    """Candidates for `target` (None: any) on the rows that all of them scored out of fold.

    `prices` instead of it prices members for its target that were scored elsewhere.
    Labels and prompts come from `battles`, or from the file the tables were made of; ids and winners alone will do. `exclude`:
    members or tables (fingerprints) to leave out; `prefer`: tables that stand for their members, by fingerprint; `say` and
    `most_bad` as `zoo.data.usable.usable_battles` takes them. Refused, with the members' names: no table, tables of different
    data or fold rules, too few common rows. Left out, with the reason in the result: other targets, tables that another one of
    the same name replaces (`zoo.pipeline.members.standing`), and, before rows are joined, tables that look in-sample or partly
    leaked, duplicates, and members that cost more rows than they are worth (`ensemble.members.rows`); `include` names members
    that stay nevertheless. A table whose name stays in by another one is listed as `NAME (FINGERPRINT)`. Where no battle of
    this kind can be a tie, p_tie is taken out of all tables before anything is judged. `column`: of the battles file, to keep
    in `Members.about`.
    """
    left_out: dict[str, str] = {}
    check_names(tables, {"--exclude": exclude, "--include": include, "--prefer": prefer})
    if both := sorted(set(include) & set(exclude)):
        raise ZooError(f"--include {both[0]} and --exclude {both[0]}: give one of them")
    tables = _not_excluded(tables, exclude, left_out)
    chosen = _for_target(tables, target, left_out) if prices is None else _priced(tables, prices, left_out)
    labelled = _labelled_battles(chosen, battles, say, most_bad, column)
    digest = dataset_digest(labelled)
    chosen = _of_data(chosen, _digests(labelled), battles is not None, left_out)
    chosen, rule = of_one_rule(chosen, left_out, prefer)
    chosen = _standing(chosen, prefer, left_out)
    if not labelled.can_tie:
        chosen = [replace(table, frame=without_tie_column(table.frame)) for table in chosen]
    grouped = labelled.frame.assign(group=prompt_groups(labelled.frame, rule, say))
    truth = grouped[grouped["label"] >= 0].set_index("id")
    rows, shared = _joined(chosen, truth, include, left_out)
    about = about_rows(rows) if labelled.has_texts else pd.DataFrame(index=rows.index)
    if column in labelled.kept.columns:
        about[COLUMN] = labelled.kept[column]
    members = replace(
        shared,
        lengths=text_lengths(rows) if labelled.has_texts else None,
        digest=digest,
        left_out=left_out,
        ties=labelled.can_tie,
        about=about,
        data=labelled.path.name,
    )
    return members if prices is None else prices.with_lengths(members)


def _joined(
    tables: Sequence[Table], truth: pd.DataFrame, include: Sequence[str], left_out: dict[str, str]
) -> tuple[pd.DataFrame, Members]:
    """The rows of `truth` that all members scored, and the members on them.

    Without tables that look in-sample, duplicates, and members that cost more rows than they are worth.
    """
    labels, groups = truth["label"], dict(zip(truth.index, truth["group"].tolist(), strict=True))
    chosen = _without(tables, lambda frames: suspects(tables, frames, labels, groups, include), labels, left_out)
    chosen = _without(chosen, lambda frames: duplicates(chosen, frames), labels, left_out)
    frames = [labelled_rows_of(table, labels) for table in chosen]
    shared = shared_rows([table.name for table in chosen], frames, labels, groups, include)
    if len(shared.ids) < FEWEST_ROWS:
        counts = ", ".join(f"{table.name} {len(frame)}" for table, frame in zip(chosen, frames, strict=True))
        raise ZooError(f"only {len(shared.ids)} rows are scored out of fold by every member ({counts}); need {FEWEST_ROWS}")
    left_out |= {chosen[j].name: reason for j, reason in shared.reasons.items()}
    kept = sorted(shared.kept, key=lambda j: chosen[j].name)
    rows = truth.loc[list(shared.ids)]
    return rows, _members([chosen[j] for j in kept], [frames[j] for j in kept], rows)


def _members(tables: Sequence[Table], frames: Sequence[pd.DataFrame], truth: pd.DataFrame) -> Members:
    """Tables on the rows of `truth` (label and group by id) as one array; what is not in these is left empty."""
    ids, groups = list(truth.index), truth["group"].to_numpy(dtype=np.int64)
    if truth["label"].nunique() < 2:
        raise ZooError(f"all {len(ids)} common rows have the same winner; there is nothing to learn from them")
    if len(np.unique(groups)) < FEWEST_PROMPTS:
        raise ZooError(
            f"the {len(ids)} common rows have {len(np.unique(groups))} different prompts (near-copies count as one where folds "
            f"do so); need {FEWEST_PROMPTS}"
        )
    p = np.stack([probabilities(frame.loc[ids]) for frame in frames])
    some = set().union(*(frame.index for frame in frames))
    return Members(
        names=tuple(table.name for table in tables),
        cards=tuple(table.card for table in tables),
        fingerprints=tuple(table.fingerprint for table in tables),
        ids=tuple(ids),
        p=p / p.sum(axis=2, keepdims=True),
        tokens=np.stack([frame.loc[ids, "n_tokens"].to_numpy() for frame in frames]),
        y=truth["label"].to_numpy(dtype=np.int64),
        groups=groups,
        folds=balanced_folds(groups),
        digest="",
        lost_rows=len(some) - len(ids),
        left_out={},
        lost_by={t.name: len(some) - len(f) for t, f in zip(tables, frames, strict=True) if len(f) < len(some)},
    )


def _not_excluded(tables: Sequence[Table], exclude: Sequence[str], left_out: dict[str, str]) -> list[Table]:
    kept = []
    for table in tables:
        asked = next((text for text in exclude if table.name == text or table.is_called(text)), None)
        if asked is None:
            kept.append(table)
        else:
            left_out[table.name if asked == table.name else f"{table.name} ({table.which})"] = f"--exclude {asked}"
    if tables and not kept:
        raise ZooError("--exclude leaves no member; exclude fewer")
    return kept


def _standing(tables: Sequence[Table], prefer: Sequence[str], left_out: dict[str, str]) -> list[Table]:
    """The table of each name, as the leaderboard ranks it; where no target was chosen, the newest of its targets."""
    found = standing(tables, prefer)
    left_out |= {f"{table.name} ({table.which})": reason for table, reason in found.superseded}
    by_name: dict[str, Table] = {}
    for member in found.members:
        if (other := by_name.pop(member.table.name, None)) is not None:
            left_out[f"{other.name} ({other.which})"] = (
                f"its cost is on {other.card.target}; the table {member.table.which} is taken"
            )
        by_name[member.table.name] = member.table
    return list(by_name.values())


def _without(
    tables: Sequence[Table],
    judge: Callable[[Sequence[pd.DataFrame]], Mapping[int, str]],
    labels: pd.Series,
    left_out: dict[str, str],
) -> list[Table]:
    """The tables that a judgement on their usable rows does not leave out."""
    reasons = judge([labelled_rows_of(table, labels) for table in tables])
    left_out |= {tables[j].name: reason for j, reason in reasons.items()}
    return [table for j, table in enumerate(tables) if j not in reasons]


def _priced(tables: Sequence[Table], prices: PriceList, left_out: dict[str, str]) -> list[Table]:
    """The tables that have a cost on the target of `prices`, measured there or not."""
    target, without = prices.target.name, dict[str, str]()
    priced = prices.priced(tables, without)
    if tables and not priced:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(without.items())[:3])
        raise ZooError(f"no member has a cost on target {target} ({reasons})")
    left_out |= without
    return _for_target(priced, target, left_out)


def _for_target(tables: Sequence[Table], target: str | None, left_out: dict[str, str]) -> list[Table]:
    if not tables:
        raise ZooError("no scored members; score some with `zoo run NAME`, or bring tables with `zoo import`")
    chosen = [table for table in tables if target is None or table.card.target == target]
    emulated = [table for table in chosen if table.card.emulates]
    chosen = [table for table in chosen if not table.card.emulates]
    names = {table.name for table in chosen}
    for table in emulated:
        left_out[f"{table.name} ({table.which})"] = f"scored as on {table.card.emulates}: its speed is no target's"
    for table in tables:
        if table.card.target != target and target is not None:
            name = f"{table.name} ({table.which})" if table.name in names else table.name
            left_out[name] = f"its cost was measured on {table.card.target}, not on {target}"
    if not chosen:
        known = ", ".join(sorted({table.card.target for table in tables}))
        raise ZooError(f"no member has a cost on target {target}; members were scored for {known}: use --target")
    return chosen


def _digests(battles: Battles) -> set[str]:
    """What tables of these battles may say that they are of: a member may have come with ids and winners alone."""
    return {dataset_digest(battles), labels_digest(battles)}


def _labelled_battles(tables: Sequence[Table], given: Path | None, say: Say, most_bad: float, column: str | None) -> Battles:
    keep = [column] if column else []
    if given is not None:
        battles = usable_battles(given, say=say, most_bad=most_bad, keep=keep, need_texts=False)
        if not battles.labelled:
            raise ZooError(f"{given}: has no winner columns; give the labelled battles that the members were scored on")
        return battles
    found: dict[str, tuple[Battles, list[str]]] = {}
    for table in tables:
        digest = table.card.dataset_digest
        if digest in found:
            found[digest][1].append(table.name)
        elif table.battles_path is not None and table.battles_path.exists():
            battles = read_battles(table.battles_path, need_texts=False)
            if battles.labelled and digest in _digests(battles):
                found[digest] = (battles, [table.name])
    if not found:
        raise ZooError("the labelled battles that the members were scored on are not where they were; name them with --data")
    whole = [battles for battles, _ in found.values() if battles.has_texts and set(found) <= _digests(battles)]
    if len(found) > 1 and not whole:
        named = "; ".join(f"{b.path.name}: {', '.join(sorted(set(names)))}" for b, names in found.values())
        raise ZooError(f"members were scored on different data ({named}); choose one with --data FILE")
    battles = (whole or [found for found, _ in found.values()])[0]
    return usable_battles(battles.path, say=say, most_bad=most_bad, keep=keep, need_texts=False)


def _of_data(tables: Sequence[Table], digests: set[str], chosen_by_user: bool, left_out: dict[str, str]) -> list[Table]:
    """Tables of the data with one of these digests.

    Others are refused, or left out where the user said which data to take.
    """
    same = [table for table in tables if table.card.dataset_digest in digests]
    names = {table.name for table in same}
    others = [table for table in tables if table.card.dataset_digest not in digests]
    if not same:
        raise ZooError(f"no member was scored on these battles (digest {min(digests)[:12]}); score them, or give other --data")
    different = sorted({table.name for table in others} - names)
    if different and not chosen_by_user:
        raise ZooError(f"{', '.join(different)}: scored on other data than {', '.join(sorted(names))}; choose with --data FILE")
    for table in others:  # of a member that stays: what it was scored on before
        name = f"{table.name} ({table.which})" if table.name in names else table.name
        data = f"other data (digest {table.card.dataset_digest[:12]}) than {'--data' if chosen_by_user else 'the others'}"
        left_out[name] = f"table {table.which} was scored on {data}"
    return same
