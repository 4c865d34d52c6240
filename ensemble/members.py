"""Score tables as candidates for the ensemble: one aligned array, joined by id, of one data set, on rows scored out of fold."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from zoo.battles import Battles, count_characters, dataset_digest, fold_of, read_battles
from zoo.contracts import Cost, ScoreCard
from zoo.errors import ZooError
from zoo.scores import OK, log_loss_rows, probabilities, read_card, read_scores
from zoo.store import list_artifacts

FOLDS = 5  # of the blend's own cross-validation
FEWEST_ROWS = 20
FEWEST_PROMPTS = 15  # three for each fold
SAME_TABLE = 1e-9
# A member is flagged as in-sample where its log loss is below this share of what its best peer reaches, and by at least this
# much: a fine-tuned 8B model is at 0.90 where bags of words are at 1.06 (0.85), a model scored on its training rows far lower.
IN_SAMPLE_RATIO, IN_SAMPLE_NATS, IN_SAMPLE_ERRORS = 0.8, 0.1, 5.0
_STAGES = ("score", "lexical-score", "import")


@dataclass(frozen=True)
class Table:
    """A score table on disk with its card, where its labelled battles were, and its artifact's fingerprint."""

    path: Path
    card: ScoreCard
    frame: pd.DataFrame
    battles_path: Path | None
    fingerprint: str = ""

    @property
    def name(self) -> str:
        return self.card.member

    @property
    def which(self) -> str:
        """What tells it from others of its name: the artifact's fingerprint, or its folder where it is of no artifact."""
        return self.fingerprint or self.path.name


@dataclass(frozen=True)
class Members:
    """Candidates on common rows.

    `p` (members, rows, 3); `tokens` (members, rows), as each member reads the rows; `y` labels (rows,); `groups` (rows,), the
    same number for the same prompt; `folds` (rows,), 0 to FOLDS - 1, by group; `characters` (rows,) of prompt and responses.
    """

    names: tuple[str, ...]
    cards: tuple[ScoreCard, ...]
    fingerprints: tuple[str, ...]
    ids: tuple[str, ...]
    p: np.ndarray
    tokens: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    folds: np.ndarray
    characters: np.ndarray
    digest: str
    lost_rows: int
    left_out: dict[str, str]

    @property
    def true(self) -> np.ndarray:
        """Probabilities of the true label (members, rows), C order."""
        return np.ascontiguousarray(self.p[:, np.arange(len(self.y)), self.y])

    @property
    def costs(self) -> tuple[Cost, ...]:
        return tuple(card.cost for card in self.cards)

    def subset(self, index: Sequence[int]) -> Members:
        """The members at `index`, in that order, on the same rows."""
        chosen = list(index)
        return replace(
            self,
            names=tuple(self.names[j] for j in chosen),
            cards=tuple(self.cards[j] for j in chosen),
            fingerprints=tuple(self.fingerprints[j] for j in chosen),
            p=self.p[chosen],
            tokens=self.tokens[chosen],
        )

    def rows(self, keep: np.ndarray) -> Members:
        """The same members on the rows of `keep` (bool, rows), with folds of their own."""
        index = np.flatnonzero(keep)
        return replace(
            self,
            ids=tuple(self.ids[i] for i in index),
            p=self.p[:, index],
            tokens=self.tokens[:, index],
            y=self.y[index],
            groups=self.groups[index],
            folds=balanced_folds(self.groups[index]),
            characters=self.characters[index],
        )


def gather(store: Path) -> list[Table]:
    """Score tables of all finished artifacts of a store, oldest first. Those that predictions left behind do not count."""
    tables = []
    for artifact in list_artifacts(store, *_STAGES):
        selection: dict[str, Any] = artifact.manifest.request.get("selection") or {}
        if selection.get("rows") == "listed":
            continue
        folders = [path.parent for path in sorted(artifact.path.glob("*/scores.json"))]
        folders += [artifact.path] if (artifact.path / "scores.json").exists() else []
        tables += [load_table(folder, artifact.manifest.request, artifact.fingerprint) for folder in folders]
    return tables


def load_table(folder: Path, request: dict[str, Any] | None = None, fingerprint: str = "") -> Table:
    """One folder with scores.parquet and scores.json."""
    card = read_card(folder / "scores.json")
    source = request or card.request or {}
    found = next((source[key]["path"] for key in ("battles", "labels") if isinstance(source.get(key), dict)), None)
    return Table(folder, card, read_scores(folder / "scores.parquet"), Path(found) if found else None, fingerprint)


def align(
    tables: Sequence[Table], *, target: str | None = None, battles: Path | None = None, include: Sequence[str] = ()
) -> Members:
    """Candidates for `target` (None: any) on the rows that all of them scored out of fold.

    Labels and prompts come from `battles`, or from the file the tables were made of. Refused, with the members' names: no
    table, tables of different data, too few common rows. Left out, with the reason in the result: other targets, tables that
    a newer one of the same name replaces, duplicates, tables that look in-sample and are not in `include`. A table whose name
    stays in by another one is listed as `NAME (FINGERPRINT)`.
    """
    left_out: dict[str, str] = {}
    chosen = _for_target(tables, target, left_out)
    labelled = _labelled_battles(chosen, battles)
    digest = dataset_digest(labelled)
    chosen = _of_data(chosen, digest, battles is not None, left_out)
    chosen = _newest(chosen, left_out)
    frames = [_usable(table, labelled) for table in chosen]
    ids = _common_ids(chosen, frames, labelled)
    truth = labelled.frame.set_index("id").loc[list(ids)]
    groups = np.fromiter((fold_of(turns, 2**61 - 1) for turns in truth["prompt"]), dtype=np.int64, count=len(truth))
    if len(np.unique(groups)) < FEWEST_PROMPTS:
        raise ZooError(f"the {len(ids)} common rows have {len(np.unique(groups))} different prompts; need {FEWEST_PROMPTS}")
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
        characters=count_characters(truth),
        digest=digest,
        lost_rows=len(set().union(*(frame.index for frame in frames))) - len(ids),
        left_out=left_out,
    )
    members = replace(members, p=members.p / members.p.sum(axis=2, keepdims=True))
    return _drop_duplicates(_drop_in_sample(members, frames, labelled, include))


def balanced_folds(groups: np.ndarray, n_folds: int = FOLDS) -> np.ndarray:
    """Folds (rows,) of about equally many groups, by a hash of the group that is not the one stages held rows out by."""
    unique, inverse = np.unique(groups, return_inverse=True)
    digests = [hashlib.blake2b(int(g).to_bytes(8, "little", signed=True), digest_size=8).digest() for g in unique]
    rank = np.empty(len(unique), dtype=np.int64)
    rank[np.array(sorted(range(len(unique)), key=lambda i: digests[i]), dtype=np.int64)] = np.arange(len(unique))
    folds: np.ndarray = (rank % n_folds)[inverse]
    return folds


def _for_target(tables: Sequence[Table], target: str | None, left_out: dict[str, str]) -> list[Table]:
    if not tables:
        raise ZooError("no scored members; score some with `zoo run NAME`, or bring tables with `zoo import`")
    chosen = [table for table in tables if target is None or table.card.target == target]
    names = {table.name for table in chosen}
    for table in tables:
        if table.card.target != target and target is not None:
            name = f"{table.name} ({table.which})" if table.name in names else table.name
            left_out[name] = f"its cost was measured on {table.card.target}, not on {target}"
    if not chosen:
        known = ", ".join(sorted({table.card.target for table in tables}))
        raise ZooError(f"no member has a cost on target {target}; members were scored for {known}: use --target")
    return chosen


def _labelled_battles(tables: Sequence[Table], given: Path | None) -> Battles:
    if given is not None:
        battles = read_battles(given)
        if not battles.labelled:
            raise ZooError(f"{given}: has no winner columns; give the labelled battles that the members were scored on")
        return battles
    found: dict[str, tuple[Battles, list[str]]] = {}
    for table in tables:
        digest = table.card.dataset_digest
        if digest in found:
            found[digest][1].append(table.name)
        elif table.battles_path is not None and table.battles_path.exists():
            battles = read_battles(table.battles_path)
            if battles.labelled and dataset_digest(battles) == digest:
                found[digest] = (battles, [table.name])
    if not found:
        raise ZooError("the labelled battles that the members were scored on are not where they were; name them with --data")
    if len(found) > 1:
        named = "; ".join(f"{b.path.name}: {', '.join(sorted(set(names)))}" for b, names in found.values())
        raise ZooError(f"members were scored on different data ({named}); choose one with --data FILE")
    return next(iter(found.values()))[0]


def _of_data(tables: Sequence[Table], digest: str, chosen_by_user: bool, left_out: dict[str, str]) -> list[Table]:
    """Tables of the data with this digest. Others are refused, or left out where the user said which data to take."""
    same = [table for table in tables if table.card.dataset_digest == digest]
    names = {table.name for table in same}
    others = [table for table in tables if table.card.dataset_digest != digest]
    if not same:
        raise ZooError(f"no member was scored on these battles (digest {digest[:12]}); score them, or give other --data")
    different = sorted({table.name for table in others} - names)
    if different and not chosen_by_user:
        raise ZooError(f"{', '.join(different)}: scored on other data than {', '.join(sorted(names))}; choose with --data FILE")
    for table in others:  # of a member that stays: what it was scored on before
        name = f"{table.name} ({table.which})" if table.name in names else table.name
        data = f"other data (digest {table.card.dataset_digest[:12]}) than {'--data' if chosen_by_user else 'the others'}"
        left_out[name] = f"table {table.which} was scored on {data}"
    return same


def _newest(tables: Sequence[Table], left_out: dict[str, str]) -> list[Table]:
    """One table a name: the last one (`gather` lists the oldest first), those that know their folds before others.

    Tables of an entry's other folds are no rivals: their rows are joined to the last one's.
    """
    kept: dict[str, Table] = {}
    for table in sorted(tables, key=_knows_folds):
        before = kept.get(table.name)
        if before is not None and _is_other_fold(before, table):
            table = replace(table, frame=pd.concat([before.frame, table.frame], ignore_index=True))
        elif before is not None:
            better = "newer" if _knows_folds(before) == _knows_folds(table) else "out-of-fold"
            left_out[f"{before.name} ({before.which})"] = f"the {better} table {table.which} of the same name is taken"
        kept[table.name] = table
    return list(kept.values())


def _is_other_fold(one: Table, other: Table) -> bool:
    """Whether two tables are of different folds of one recipe: the same requests but for weights and fold."""
    first, second = one.card.request, other.card.request
    if first is None or second is None or not (_knows_folds(one) and _knows_folds(other)):
        return False
    alike = all(first.get(key) == second.get(key) for key in ("stage", "entry", "selection", "prompt", "spec"))
    folds = [(request.get("held") or {}).get("n_folds") for request in (first, second)]
    return alike and folds[0] == folds[1] is not None and set(one.frame["id"]).isdisjoint(other.frame["id"])


def _knows_folds(table: Table) -> bool:
    return bool((table.frame["fold"] >= 0).any())


def _usable(table: Table, battles: Battles) -> pd.DataFrame:
    """Rows scored without a fault, out of fold where the table knows folds, that the battles label; indexed by id."""
    frame = table.frame[table.frame["status"] == OK]
    if (frame["fold"] >= 0).any():
        frame = frame[frame["fold"] >= 0]
    labelled = battles.frame.loc[battles.frame["label"] >= 0, "id"]
    return frame[frame["id"].isin(set(labelled))].set_index("id")


def _common_ids(tables: Sequence[Table], frames: Sequence[pd.DataFrame], battles: Battles) -> tuple[str, ...]:
    common = set.intersection(*(set(frame.index) for frame in frames))
    if len(common) < FEWEST_ROWS:
        counts = ", ".join(f"{table.name} {len(frame)}" for table, frame in zip(tables, frames, strict=True))
        raise ZooError(f"only {len(common)} rows are scored out of fold by every member ({counts}); need {FEWEST_ROWS}")
    return tuple(sorted(common))


def _drop_in_sample(members: Members, frames: Sequence[pd.DataFrame], battles: Battles, include: Sequence[str]) -> Members:
    """Leave out tables from elsewhere whose log loss is too good: against their peers, or their own on rows that others lack.

    The zoo's own stages score rows that the model never saw, by construction; what a file claims has to be believed. Peers
    worse than the label shares say nothing: a good model beside them is no wonder.
    """
    losses = np.stack([log_loss_rows(table, members.y) for table in members.p])
    errors = losses.std(axis=1) / np.sqrt(losses.shape[1])
    means, reasons = losses.mean(axis=1), {}
    label = battles.frame.set_index("id")["label"]
    shares = np.bincount(members.y, minlength=3) / len(members.y)
    prior = float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
    for j, card in enumerate(members.cards):
        if card.request is not None:
            continue
        peers = [k for k, other in enumerate(members.cards) if other.checkpoint != card.checkpoint]
        best = min((means[k] for k in peers), default=np.inf)
        best = min(best, prior) if peers else best
        low = np.isfinite(best) and means[j] < IN_SAMPLE_RATIO * best and best - means[j] > IN_SAMPLE_NATS
        if low and best - means[j] > IN_SAMPLE_ERRORS * errors[j]:
            reasons[j] = f"looks in-sample: log loss {means[j]:.3f} where its best peer has {best:.3f}"
            continue
        rest = frames[j].drop(index=list(members.ids))
        if len(rest) >= 100:
            outside = log_loss_rows(probabilities(rest), label.loc[rest.index].to_numpy(dtype=np.int64))
            gap, error = abs(outside.mean() - means[j]), np.hypot(errors[j], outside.std() / np.sqrt(len(rest)))
            if gap > IN_SAMPLE_NATS and gap > IN_SAMPLE_ERRORS * error:
                reasons[j] = f"looks in-sample: log loss {means[j]:.3f} on shared rows, {outside.mean():.3f} on its others"
    reasons = {j: reason for j, reason in reasons.items() if members.names[j] not in include}
    if len(reasons) == len(members.names):
        raise ZooError("; ".join(f"{members.names[j]} {r}" for j, r in reasons.items()) + "; ask for one with --include NAME")
    kept = members.subset([j for j in range(len(members.names)) if j not in reasons])
    hint = "; --include asks for it"
    return replace(kept, left_out=members.left_out | {members.names[j]: reason + hint for j, reason in reasons.items()})


def _drop_duplicates(members: Members) -> Members:
    """Of members with the same table, keep the one that costs least: the others add nothing."""
    work = [card.cost.load_seconds + _mean_work(card.cost, members.tokens[j]) for j, card in enumerate(members.cards)]
    kept: list[int] = []
    reasons: dict[str, str] = {}
    for j in sorted(range(len(members.names)), key=lambda j: (work[j], members.names[j])):
        twin = next((k for k in kept if np.abs(members.p[k] - members.p[j]).max() <= SAME_TABLE), None)
        if twin is None:
            kept.append(j)
        else:
            reasons[members.names[j]] = f"same table as {members.names[twin]}, which costs no more"
    ordered = sorted(kept, key=lambda j: members.names[j])
    return replace(members.subset(ordered), left_out=members.left_out | reasons)


def _mean_work(cost: Cost, tokens: np.ndarray) -> float:
    from zoo.cost import row_seconds

    return float(row_seconds(cost, tokens).sum()) * max(1, cost.gpus)
