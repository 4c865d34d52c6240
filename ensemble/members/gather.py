"""Gather the members: score tables of one data set, joined by id, out of fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.members.fold_rules import of_one_rule
from ensemble.members.table import Members, Table, balanced_folds
from ensemble.members.vetting import drop_duplicates, drop_in_sample
from zoo.contracts import FoldRule, Request, Say, ScoringRequest
from zoo.data.battles import Battles, count_characters, dataset_digest, labels_digest, read_battles
from zoo.data.splits import folds_of
from zoo.data.usable import MOST_BAD, usable_battles
from zoo.errors import ZooError
from zoo.pipeline.stage_table import SCORING
from zoo.scores.tables import CARD, OK, SCORES, probabilities, read_card, read_scores
from zoo.store import leave_out, list_artifacts, recipe_of

FEWEST_ROWS = 20
FEWEST_PROMPTS = 15  # three for each fold


def gather(store: Path) -> list[Table]:
    """Score tables of all finished artifacts of a store, oldest first.

    Those that predictions left behind do not count.
    """
    tables = []
    for artifact in list_artifacts(store, *SCORING):
        request = artifact.manifest.request
        if isinstance(request, ScoringRequest) and request.selection.rows == "listed":
            continue
        folders = [path.parent for path in sorted(artifact.path.glob(f"*/{CARD}"))]
        folders += [artifact.path] if (artifact.path / CARD).exists() else []
        recipe = recipe_of(artifact.manifest, artifact.path)
        for folder in folders:
            try:
                tables.append(replace(load_table(folder, request, artifact.fingerprint), recipe=recipe))
            except ZooError as error:  # one table that cannot be read keeps no other member out
                leave_out(error)
    return tables


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


def load_table(folder: Path, request: Request | None = None, fingerprint: str = "") -> Table:
    """One folder with a table and its card.

    `request` and `fingerprint` of the artifact it is of, if it is of one.
    """
    card = read_card(folder / CARD)
    source = request or card.request
    battles = source.inputs.get("battles") if source else None
    return Table(folder, card, read_scores(folder / SCORES), battles.place if battles else None, fingerprint)


def align(
    tables: Sequence[Table],
    *,
    target: str | None = None,
    battles: Path | None = None,
    include: Sequence[str] = (),
    say: Say = lambda _: None,
    most_bad: float = MOST_BAD,
) -> Members:
    """Candidates for `target` (None: any) on the rows that all of them scored out of fold.

    Labels and prompts come from `battles`, or from the file the tables were made of. Refused, with the members' names: no
    table, tables of different data or fold rules, too few common rows. Left out, with the reason in the result: other targets,
    tables that a newer one of the same name replaces, duplicates, tables that look in-sample and are not in `include`. A table
    whose name stays in by another one is listed as `NAME (FINGERPRINT)`. The battles may be ids and winners alone; `say` and
    `most_bad` as `zoo.data.usable.usable_battles` takes them.
    """
    left_out: dict[str, str] = {}
    chosen = _for_target(tables, target, left_out)
    labelled = _labelled_battles(chosen, battles, say, most_bad)
    digest = dataset_digest(labelled)
    chosen = _of_data(chosen, _digests(labelled), battles is not None, left_out)
    chosen, rule = of_one_rule(chosen, left_out)
    chosen = _newest(chosen, left_out)
    frames = [_usable(table, labelled) for table in chosen]
    ids = _common_ids(chosen, frames)
    truth = labelled.frame.set_index("id").loc[list(ids)]
    groups = _groups(labelled, ids, rule)
    if truth["label"].nunique() < 2:
        raise ZooError(f"all {len(ids)} common rows have the same winner; there is nothing to learn from them")
    if len(np.unique(groups)) < FEWEST_PROMPTS:
        kind = "groups of near-copied prompts" if rule else "different prompts"
        raise ZooError(f"the {len(ids)} common rows have {len(np.unique(groups))} {kind}; need {FEWEST_PROMPTS}")
    members = Members(
        names=tuple(table.name for table in chosen),
        cards=tuple(table.card for table in chosen),
        fingerprints=tuple(table.fingerprint for table in chosen),
        ids=ids,
        p=np.stack([probabilities(frame.loc[list(ids)]) for frame in frames]),
        tokens=np.stack([frame.loc[list(ids), "n_tokens"].to_numpy() for frame in frames]),
        y=truth["label"].to_numpy(dtype=np.int64),
        groups=groups,
        folds=balanced_folds(groups),
        characters=count_characters(truth) if labelled.has_texts else np.zeros(len(truth)),
        digest=digest,
        lost_rows=len(set().union(*(frame.index for frame in frames))) - len(ids),
        left_out=left_out,
    )
    members = replace(members, p=members.p / members.p.sum(axis=2, keepdims=True))
    return drop_duplicates(drop_in_sample(members, frames, labelled, include))


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


def _labelled_battles(tables: Sequence[Table], given: Path | None, say: Say, most_bad: float) -> Battles:
    if given is not None:
        battles = usable_battles(given, say=say, most_bad=most_bad, need_texts=False)
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
    return usable_battles(battles.path, say=say, most_bad=most_bad, need_texts=False)


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


def _newest(tables: Sequence[Table], left_out: dict[str, str]) -> list[Table]:
    """The newest table of each name, those that know their folds before others.

    `gather` lists the oldest first. The newest tables of its recipe's other folds are joined to it; all others are left out by
    their fingerprints.
    """
    by_name: dict[str, list[Table]] = {}
    for table in sorted(tables, key=_knows_folds):
        by_name.setdefault(table.name, []).append(table)
    kept = []
    for rivals in by_name.values():
        last = rivals[-1]
        parts = {table.held_fold: table for table in rivals if _is_kin(table, last)} or {None: last}
        kept.append(replace(last, frame=pd.concat([part.frame for part in parts.values()], ignore_index=True)))
        for table in rivals:
            if not any(table is part for part in parts.values()):
                better = "newer" if _knows_folds(table) == _knows_folds(last) else "out-of-fold"
                left_out[f"{table.name} ({table.which})"] = f"the {better} table {last.which} of the same name is taken"
    return kept


def _is_kin(table: Table, last: Table) -> bool:
    """Whether two tables are of one recipe, each of a fold that its checkpoint did not see."""
    known = table.recipe and table.held_fold is not None and _knows_folds(table)
    return bool(known) and table.recipe == last.recipe and last.held_fold is not None and _knows_folds(last)


def _knows_folds(table: Table) -> bool:
    return bool((table.frame["fold"] >= 0).any())


def _usable(table: Table, battles: Battles) -> pd.DataFrame:
    """Labelled rows scored without a fault, by id; out of fold where the table knows folds."""
    frame = table.frame[table.frame["status"] == OK]
    if (frame["fold"] >= 0).any():
        frame = frame[frame["fold"] >= 0]
    labelled = battles.frame.loc[battles.frame["label"] >= 0, "id"]
    return frame[frame["id"].isin(set(labelled))].set_index("id")


def _groups(battles: Battles, ids: Sequence[str], rule: FoldRule | None) -> np.ndarray:
    """The same number for battles that must share a fold: int64 (ids,). A battle without a prompt goes by its id."""
    frame = battles.frame
    prompts = [turns or [row_id] for row_id, turns in zip(frame["id"], frame["prompt"], strict=True)]
    return folds_of(
        replace(battles, frame=frame.assign(prompt=pd.Series(prompts, index=frame.index))), pd.Series(ids), 2**61 - 1, rule
    )


def _common_ids(tables: Sequence[Table], frames: Sequence[pd.DataFrame]) -> tuple[str, ...]:
    common = set.intersection(*(set(frame.index) for frame in frames))
    if len(common) < FEWEST_ROWS:
        counts = ", ".join(f"{table.name} {len(frame)}" for table, frame in zip(tables, frames, strict=True))
        raise ZooError(f"only {len(common)} rows are scored out of fold by every member ({counts}); need {FEWEST_ROWS}")
    return tuple(sorted(common))
