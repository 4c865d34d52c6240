"""Files in, one pooled table out: what `ensemble pool` does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ensemble.members.files import labelled_file
from ensemble.members.rows import FEWEST_ROWS
from ensemble.pools.tables import Pooled, pool_tables
from zoo.contracts import Say
from zoo.data.battles import Battles
from zoo.data.splits import prompt_groups
from zoo.data.usable import MOST_BAD
from zoo.errors import ZooError
from zoo.pipeline.import_checks import read_table
from zoo.scores.tables import OK, probabilities, score_table, without_ties, write_scores
from zoo.store import write_atomic

UNSCORED = "no table has scored it"
WRITTEN = ["id", "p_a", "p_b", "p_tie", "fold", "status"]  # of a CSV; token counts are nobody's


def pool_files(
    files: Mapping[str, Path],
    output: Path,
    labels: Path | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    most_bad: float = MOST_BAD,
    say: Say = lambda _: None,
) -> Pooled:
    """Pool the tables of `files` and write the result, a row for each id that some table has.

    ZooError, with row ids, where a table cannot be right, where no labelled row is in any, and where all have one winner.
    """
    battles = None if labels is None else labelled_file(labels, most_bad=most_bad, say=say)
    ties = battles is None or battles.can_tie
    frames = {}
    for name, path in files.items():
        given = read_table(path, set(battles.ids) if battles else (), ties=ties, given=columns)
        if given.notes:
            say(f"{path}: {'; '.join(given.notes)}")
        frames[name] = given.table.set_index("id")
    ids = list(dict.fromkeys(row_id for frame in frames.values() for row_id in frame.index))
    p = np.stack([probabilities(frame.reindex(ids)) for frame in frames.values()])
    p = p if ties else without_ties(p)
    y, groups = _labels_of(ids, battles)
    if labels is not None and not (y >= 0).any():
        raise ZooError(
            f"{labels}: none of its labelled rows is in {', '.join(map(str, files.values()))}; give labels of these rows"
        )
    known = y[y >= 0]
    if len(known) >= FEWEST_ROWS and len(np.unique(known)) == 1:
        raise ZooError(f"{labels}: all {len(known)} labelled rows have the same winner; there is nothing to learn from them")
    pooled = pool_tables(list(files), p, y, groups, ties=ties)
    scored = ~np.isnan(pooled.p[:, 0])
    status = np.where(scored, OK, UNSCORED).tolist()
    table = score_table(ids, pooled.p, fold=pooled.fold, status=status)
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".parquet":
        write_scores(table, output)
    else:
        write_atomic(output, table[WRITTEN].to_csv(index=False, lineterminator="\n"))
    return pooled


def _labels_of(ids: list[str], battles: Battles | None) -> tuple[np.ndarray, np.ndarray]:
    """Labels (rows,), -1 where there is none, and prompt groups (rows,), each row its own where its prompt is not known."""
    alone = range(-1, -1 - len(ids), -1)
    if battles is None:
        return np.full(len(ids), -1), np.array(alone)
    frame = battles.frame
    label = dict(zip(frame["id"], frame["label"].astype(int), strict=True))
    group = dict(zip(frame["id"], prompt_groups(frame).tolist(), strict=True))
    return (
        np.array([label.get(row_id, -1) for row_id in ids]),
        np.array([group.get(row_id, own) for row_id, own in zip(ids, alone, strict=True)]),
    )
