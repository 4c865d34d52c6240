"""Verdicts of judges on pairs, from score tables, labels, or preferences in a log."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.battles import Battles
from zoo.data.columns import WINNER_COLUMNS, cell_text
from zoo.data.formats import read_records
from zoo.data.keys import battle_digests
from zoo.data.preferences import NEEDED, is_preferences, read_preferences
from zoo.data.tally import Tally
from zoo.errors import ZooError
from zoo.scores.certificate import verdict_labels
from zoo.scores.tables import OK, PROBABILITIES, swap_sides

LOG_IDS = ("log_id_a", "log_id_b")
# Columns of a table of `zoo data judge` beside those of scores: the share of probability that the response orders agree on,
# whose models judged a row, none of which had seen its prompt, and what tells the row's texts from others'.
CONSISTENCY, JUDGED_BY, BATTLE = "consistency", "judged_by", "battle"
VERDICTS = "verdicts"
NO_SHARES, NOT_SCORED, OF_NO_ROW = (
    "no probabilities that can be read",
    "not scored by the judge",
    "of no pair and no human battle",
)
UNREADABLE, DOUBLED = "a row that cannot be read", "of an id that occurs more than once"
OTHER_BATTLE = "of another battle that had the id"
OF_ITSELF = "of an answer against itself"
BY_SOME, BY_ANOTHER = "by some of the tables only", "of a pair that another judge has judged"
TABLE_COLUMNS = ("id", *PROBABILITIES, *WINNER_COLUMNS, "status", CONSISTENCY, JUDGED_BY, BATTLE)
SUM_TOLERANCE = 0.01  # of probabilities that people round to two places
TINY = 1e-6  # below any verdict that is meant as impossible


@dataclass(frozen=True)
class Verdicts:
    """What judges say of the rows of one file of battles.

    `p` (rows, 3): in the row's own A and B, NaN where no judge says anything; `judge` (rows,): whose it is, empty where it is
    nobody's; `consistency` (rows,): share of probability that a row's tables agree on, NaN where there is one table.
    """

    p: np.ndarray
    judge: np.ndarray
    consistency: np.ndarray

    @classmethod
    def none(cls, rows: int) -> Verdicts:
        return cls(np.full((rows, 3), np.nan), np.full(rows, "", dtype=object), np.full(rows, np.nan))


def own_verdicts(pairs: Battles, sources: np.ndarray) -> Verdicts:
    """The pairs' own winners as verdicts of their source's judge; `sources` (rows,) as text."""
    labels = pairs.frame["label"].to_numpy(dtype=np.int64)
    found = Verdicts.none(len(labels))
    labelled = labels >= 0
    found.p[labelled] = np.eye(3)[labels[labelled]]
    found.judge[labelled] = sources[labelled]
    return found


@dataclass
class JudgeTable:
    """What one table says of rows by their ids.

    `rows`: `p` (3,) and consistency, NaN where it has none; `battles`: what tells the row's texts from others'.
    `cross_fitted`: it has the columns of `zoo data judge`, by which no model judged a row whose prompt it had seen.
    """

    rows: dict[str, tuple[np.ndarray, float]] = field(default_factory=dict)
    battles: dict[str, str] = field(default_factory=dict)
    cross_fitted: bool = False


def read_verdicts(
    paths: Sequence[Path], names: Sequence[str], pairs: Battles, human: Battles, tally: Tally
) -> tuple[Verdicts, Verdicts, dict[str, JudgeTable]]:
    """The verdicts of some tables on pairs and on human battles.

    And the score tables among them by name. Score tables (`id, p_a, p_b, p_tie`, or winners) are pooled as one judge by the
    mean of their logarithms; preferences are of the judges that they name, and are found by `log_id_a` and `log_id_b` of the
    pairs. What no row has is counted.
    """
    tables: dict[str, JudgeTable] = {}
    found = Verdicts.none(len(pairs.frame)), Verdicts.none(len(human.frame))
    for path, name in zip(paths, names, strict=True):
        records = (record for _, record in read_records(path, (*NEEDED, *TABLE_COLUMNS)))
        if is_preferences(list(next((record for record in records if isinstance(record, dict)), {}))):
            _add_preferences(path, name, pairs, found[0], tally)
        else:
            tables[name] = read_table(path, tally)
    if tables:
        refuse_shared_ids(pairs, human, {row_id for table in tables.values() for row_id in table.rows})
        for table in tables.values():
            _leave_out_others(table, (pairs, human), tally)
        for battles, verdicts in zip((pairs, human), found, strict=True):
            _add_tables(tables, battles, verdicts, tally)
        known = {*pairs.frame["id"], *human.frame["id"]}
        for name, table in tables.items():
            tally.add(VERDICTS, OF_NO_ROW, name, len(table.rows.keys() - known))
    return *found, tables


def read_table(path: Path, tally: Tally) -> JudgeTable:
    """A judge's probabilities by id.

    Rows that cannot be read, or of an id that others have too, are counted. The file is a score table, a submission or a
    labelled file of battles. ZooError where no row of it is one.
    """
    found, again, header = JudgeTable(), Counter[str](), ""
    for number, record in read_records(path, TABLE_COLUMNS):
        names = next((names for names in (PROBABILITIES, WINNER_COLUMNS) if set(names) <= set(record)), ())
        if isinstance(record, str) or "id" not in record or not names:
            what = record if isinstance(record, str) else f"has {', '.join(record) or 'none of them'}"
            header = header or f"row {number}: {what}"
            tally.add(VERDICTS, UNREADABLE, f"{path.name} row {number}: {what}")
            continue
        row_id, p = cell_text(record["id"]).strip(), _distribution([record[name] for name in names])
        status = cell_text(record.get("status", OK))
        again[row_id] += 1
        if status not in (OK, ""):
            tally.add(VERDICTS, f"{NOT_SCORED}: {status.partition(':')[0]}", f"{path.name} {row_id}")
        elif p is None:
            tally.add(VERDICTS, NO_SHARES, f"{path.name} {row_id}")
        else:
            found.rows[row_id] = p, _share(record.get(CONSISTENCY))
            found.battles[row_id] = cell_text(record.get(BATTLE, ""))
            found.cross_fitted |= JUDGED_BY in record and BATTLE in record
    if not again:
        columns = f"id with {', '.join(PROBABILITIES)} or {', '.join(WINNER_COLUMNS)}, or {', '.join(NEEDED)}"
        raise ZooError(f"{path}: {header or 'has no rows'}; a judge's table has {columns}")
    for row_id in [row_id for row_id, count in again.items() if count > 1]:
        tally.add(VERDICTS, DOUBLED, f"{path.name} {row_id}", again[row_id])
        found.rows.pop(row_id, None)
    return found


def _leave_out_others(table: JudgeTable, files: Sequence[Battles], tally: Tally) -> None:
    """Take out the rows of a table that are of another battle than the one that has their id here."""
    for battles in files:
        frame = battles.frame[battles.frame["id"].isin(table.rows.keys() & {i for i, b in table.battles.items() if b})]
        for row_id, name in zip(frame["id"], battle_names(frame), strict=True):
            if table.battles[row_id] != name:
                tally.add(VERDICTS, OTHER_BATTLE, row_id)
                table.rows.pop(row_id, None)


def _share(cell: Any) -> float:
    """A share as a table's cell has it; NaN where there is none."""
    try:
        share = float(cell_text(cell))
    except ValueError:
        return float("nan")
    return share if 0 <= share <= 1 else float("nan")


def _distribution(cells: Sequence[Any]) -> np.ndarray | None:
    try:
        p = np.array([float(cell_text(cell)) for cell in cells])
    except ValueError:
        return None
    good = np.isfinite(p).all() and (p >= 0).all() and abs(p.sum() - 1) <= SUM_TOLERANCE
    return p / p.sum() if good else None


def battle_names(frame: Any) -> list[str]:
    """What tells each battle's texts from others', but for white space and case: 16 hex digits."""
    return [hashlib.sha256(b"".join(key)).hexdigest()[:16] for key in battle_digests(frame)]


def refuse_shared_ids(pairs: Battles, human: Battles, asked: Collection[str] | None = None) -> None:
    """ZooError where an id, of those asked for, is that of two different battles.

    Then nobody knows which is meant.
    """
    shared = set(pairs.frame["id"]) & set(human.frame["id"])
    shared &= shared if asked is None else set(asked)
    if not shared:
        return
    keys = [
        dict(zip(part["id"], battle_digests(part), strict=True))
        for part in (battles.frame[battles.frame["id"].isin(shared)] for battles in (pairs, human))
    ]
    for row_id in sorted(shared):
        if keys[0][row_id] != keys[1][row_id]:
            raise ZooError(
                f"id {row_id} is of one battle in {pairs.path} and of another in {human.path}; give one of them other ids"
            )


def _add_tables(tables: Mapping[str, JudgeTable], battles: Battles, verdicts: Verdicts, tally: Tally) -> None:
    judge = " + ".join(tables)
    for place, row_id in enumerate(battles.frame["id"]):
        own = [table.rows[row_id] for table in tables.values() if row_id in table.rows]
        if len(own) == len(tables):
            verdicts.p[place], agreed = pooled(np.array([p for p, _ in own]))
            verdicts.consistency[place] = own[0][1] if len(own) == 1 else agreed
            verdicts.judge[place] = judge
        elif own:
            tally.add(VERDICTS, BY_SOME, row_id)


def pooled(p: np.ndarray) -> tuple[np.ndarray, float]:
    """The mean of the logarithms of some distributions (tables, 3).

    And the share of probability that all of them have, NaN of one alone.
    """
    logs = np.log(np.maximum(p, TINY)).mean(axis=0)
    pooled = np.exp(logs - logs.max())
    return pooled / pooled.sum(), float(p.min(axis=0).sum()) if len(p) > 1 else float("nan")


def _add_preferences(path: Path, name: str, pairs: Battles, verdicts: Verdicts, tally: Tally) -> None:
    table = read_preferences(path)
    unreadable = table["share_b"].isna()
    tally.add(VERDICTS, NO_SHARES, path.name, int(unreadable.sum()))
    shares: dict[frozenset[str], list[tuple[str, str, float]]] = defaultdict(list)
    itself = ~unreadable & (table["id_a"] == table["id_b"])
    tally.add(VERDICTS, OF_ITSELF, path.name, int(itself.sum()))
    rows = table[~unreadable & ~itself]
    for id_a, id_b, share, judge in zip(
        *(rows[column].tolist() for column in ("id_a", "id_b", "share_b", "judge")), strict=True
    ):
        shares[frozenset((id_a, id_b))].append((judge or name, id_a, share))
    for place, (id_a, id_b) in enumerate(_log_ids(pairs)):
        said = shares.pop(frozenset((id_a, id_b)), [])
        if said:
            judge = said[0][0]
            tally.add(VERDICTS, BY_ANOTHER, f"{id_a}, {id_b}", sum(other != judge for other, *_ in said))
            share_b = np.mean([share if first == id_a else 1 - share for other, first, share in said if other == judge])
            verdicts.p[place], verdicts.judge[place] = [1 - share_b, share_b, 0.0], judge
    tally.add(VERDICTS, OF_NO_ROW, path.name, sum(map(len, shares.values())))


def _log_ids(pairs: Battles) -> Iterator[tuple[str, str]]:
    if missing := [name for name in LOG_IDS if name not in pairs.kept]:
        raise ZooError(f"{pairs.path}: has no column {', '.join(missing)}; preferences are of pairs that `zoo data mine` made")
    kept = pairs.kept.loc[pairs.frame["id"], list(LOG_IDS)]
    return zip(kept[LOG_IDS[0]], kept[LOG_IDS[1]], strict=True)


@dataclass(frozen=True)
class Judged:
    """A file of battles and what judges say of its rows.

    `keys`: what tells its rows' texts apart, as `battle_digests` has it.
    """

    battles: Battles
    verdicts: Verdicts
    keys: list[tuple[bytes, bytes, bytes]]

    @classmethod
    def of(cls, battles: Battles, verdicts: Verdicts) -> Judged:
        return cls(battles, verdicts, battle_digests(battles.frame))


@dataclass(frozen=True)
class Shared:
    """Verdicts of one judge on human battles.

    `places` (rows,) in the human file, and `p` (rows, 3) in its A and B.
    """

    places: np.ndarray
    p: np.ndarray


def shared_with_humans(judge: str, pairs: Judged, human: Judged, rows: np.ndarray) -> Shared:
    """What a judge says of human battles: by their own ids, or of pairs that are the same.

    `rows`: which battles, bool. The same but for white space and case, in either order; the mean where there are several. Where
    both answers are the same a verdict counts for either side.
    """
    said: dict[tuple[bytes, frozenset[bytes]], list[tuple[bytes, np.ndarray]]] = defaultdict(list)
    for place in np.flatnonzero(pairs.verdicts.judge == judge).tolist():
        prompt, a, b = pairs.keys[place]
        said[prompt, frozenset((a, b))].append((a, pairs.verdicts.p[place]))
    places, found = [], []
    for place in np.flatnonzero(rows).tolist():
        prompt, a, b = human.keys[place]
        matching = said.get((prompt, frozenset((a, b))), [])
        seen = [p if first == a else swap_sides(p) for first, p in matching]
        if a == b:
            seen += [swap_sides(p) for _, p in matching]
        if human.verdicts.judge[place] == judge:
            seen = [human.verdicts.p[place]]
        if seen:
            places.append(place)
            found.append(np.mean(seen, axis=0))
    return Shared(np.array(places, dtype=np.int64), np.array(found).reshape(-1, 3))


def both_orders(pairs: Judged, judge: str) -> tuple[int, float | None]:
    """How many battles a judge was given in both orders, and how often it then says the same.

    Each order is a row of its own.
    """
    said: dict[tuple[bytes, frozenset[bytes]], dict[bytes, np.ndarray]] = defaultdict(dict)
    for place in np.flatnonzero(pairs.verdicts.judge == judge).tolist():
        prompt, a, b = pairs.keys[place]
        if a != b:
            said[prompt, frozenset((a, b))][a] = pairs.verdicts.p[place]
    orders = [tuple(by_first.values()) for by_first in said.values() if len(by_first) == 2]
    if not orders:
        return 0, None
    one, other = (np.array([order[side] for order in orders]) for side in (0, 1))
    return len(orders), float((verdict_labels(one) == verdict_labels(swap_sides(other))).mean())
