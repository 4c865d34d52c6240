"""What weights from elsewhere learned from, and which battles they have seen by that.

It lies as `learned.parquet` beside the weights and beside all that is made of them: battles that were learned from, and
near-copies of their prompts, are scored, but nothing is fitted or judged on them. Weights that were trained here have no such
file: their requests say what they learned from.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from zoo.contracts import FoldRule, Held, Say, Selection
from zoo.data.battles import Battles
from zoo.data.keys import near_copies, prompt_texts
from zoo.data.splits import assign_folds, group_hashes, sample_rows, select_rows, silent
from zoo.errors import ZooError
from zoo.store import write_atomic

FILE = "learned.parquet"
FOLD = "fold"  # column of a file that says which adapter has not learned from a row
_FACTS = b"zoo"  # of the file: whether anybody said, and whether rows stand in it that were held out
# Why a table is not believed, on its card.
POSSIBLY = "possibly in-sample: nobody said which rows it learned from; register it with --trained-on FILE or none"
WHOLLY = "in-sample: it has learned from every row here, or from a near-copy of its prompt"


@dataclass(frozen=True)
class Learned:
    """Rows of a file of battles, and whether each was learned from.

    Ids and prompts (lists of turns).

    Those that were not are of the fold that the weights held out. `known` False: nobody said. A file of ids alone has empty
    prompts.
    """

    known: bool
    ids: tuple[str, ...] = ()
    prompts: tuple[tuple[str, ...], ...] = ()
    learned: tuple[bool, ...] = ()

    @property
    def by_fold(self) -> bool:
        """Whether it says which rows were held out."""
        return not all(self.learned)


def learned_of(battles: Battles, fold: int | None, n_folds: int) -> Learned:
    """What is learned of a file.

    All its rows, or of adapters by fold those that its column `fold` does not give this one.

    ZooError where the column is missing, or holds what is no fold.
    """
    frame = battles.frame
    prompts = tuple(tuple(turn or "" for turn in turns) for turns in frame["prompt"])
    ids = tuple(frame["id"])
    if fold is None:
        return Learned(True, ids, prompts, (True,) * len(ids))
    if FOLD not in battles.kept.columns:
        raise ZooError(
            f"{battles.path}: has no column `{FOLD}`, and each adapter held out other rows; add the fold of each row, from 0"
        )
    told = battles.kept[FOLD].reindex(frame["id"])
    folds = pd.to_numeric(told, errors="coerce").to_numpy(dtype=np.float64)
    wrong = ~np.isin(folds, np.arange(n_folds))
    if wrong.any():
        place = int(np.flatnonzero(wrong)[0])
        raise ZooError(
            f"{battles.path}: row {ids[place]} has the fold {told.iloc[place]!r}; there are adapters of 0 to {n_folds - 1}"
        )
    return Learned(True, ids, prompts, tuple((folds != fold).tolist()))


def write_learned(learned: Learned, folder: Path) -> None:
    """Put what weights learned from beside them, whole or not at all."""
    import pyarrow
    import pyarrow.parquet

    columns = {"id": list(learned.ids), "prompt": [json.dumps(p) for p in learned.prompts], "learned": list(learned.learned)}
    schema = pyarrow.schema([("id", pyarrow.string()), ("prompt", pyarrow.string()), ("learned", pyarrow.bool_())])
    table = pyarrow.table(columns, schema=schema).replace_schema_metadata({_FACTS: json.dumps({"known": learned.known})})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    write_atomic(folder / FILE, buffer.getvalue())


def read_learned(folder: Path) -> Learned | None:
    """What the weights of an artifact learned from elsewhere; None where they were trained here."""
    import pyarrow
    import pyarrow.parquet

    path = folder / FILE
    if not path.exists():
        return None
    try:
        table = pyarrow.parquet.read_table(path)
        known = bool(json.loads((table.schema.metadata or {})[_FACTS])["known"])
        found = table.to_pydict()
    except (OSError, KeyError, ValueError, pyarrow.ArrowException) as error:
        raise ZooError(f"{path}: cannot be read ({str(error).splitlines()[0]}); remove {folder.name} and run again") from error
    return Learned(
        known,
        tuple(found["id"]),
        tuple(tuple(json.loads(text)) for text in found["prompt"]),
        tuple(found["learned"]),
    )


def carry_learned(sources: Sequence[Path], target: Path) -> None:
    """Put what the weights of artifacts learned beside what is made of all of them.

    Nothing where they were trained here."""
    found = [learned for source in sources if (learned := read_learned(source)) is not None]
    if not found:
        return
    if len(found) == 1:
        shutil.copyfile(next(source / FILE for source in sources if (source / FILE).exists()), target / FILE)
        return
    rows: dict[tuple[str, tuple[str, ...]], bool] = {}
    for one in found:
        for row_id, prompt, was_learned in zip(one.ids, one.prompts, one.learned, strict=True):
            rows[row_id, prompt] = rows.get((row_id, prompt), False) or was_learned
    ids, prompts = zip(*rows, strict=True) if rows else ((), ())
    write_learned(Learned(all(one.known for one in found), tuple(ids), tuple(prompts), tuple(rows.values())), target)


def seen(frame: pd.DataFrame, learned: Learned, rule: FoldRule | None) -> np.ndarray:
    """Which rows of a battles frame the weights have learned from: bool, shape (rows,).

    A row counts where one of its prompt's turns, or all of them as one text, is a near-copy of what was learned, holds it or
    stands in it, as for `train.extra` (`zoo.data.keys`); and so do rows of its group by the `rule` of the folds. By id alone
    where the file had no prompts: ids of two data sets may be the same numbers.
    """
    texts: set[str] = set()
    ids: set[str] = set()
    for row_id, prompt, was_learned in zip(learned.ids, learned.prompts, learned.learned, strict=True):
        if was_learned:
            own = prompt_texts(prompt)
            texts |= own
            if not own:
                ids.add(row_id)
    rows = [prompt_texts(turns) for turns in frame["prompt"]]
    near = near_copies({text for row in rows for text in row}, texts)
    found = np.array([not near.isdisjoint(row) or not texts.isdisjoint(row) for row in rows], dtype=bool)
    found |= frame["id"].isin(ids).to_numpy()
    groups = group_hashes(frame, rule)
    together: np.ndarray = np.isin(groups, groups[found])
    return together


def select_held_out(
    battles: Battles, learned: Learned | None, selection: Selection, held: Held, say: Say = silent
) -> pd.DataFrame:
    """The rows that a selection asks for, as `select_rows` gives them.

    Of adapters by fold whose file says which rows each held out, these are the held-out ones; rows that are not in that file
    go by the folds here.
    """
    if learned is None or selection.rows != "held_out" or not learned.by_fold:
        return select_rows(battles, selection, held, say)
    frame = battles.frame
    theirs = dict(zip(learned.ids, learned.learned, strict=True))
    ours = assign_folds(frame, held.n_folds, held.rule, say) == held.fold
    wanted = [not theirs[row_id] if row_id in theirs else own for row_id, own in zip(frame["id"], ours, strict=True)]
    frame = frame[np.array(wanted, dtype=bool)]
    return (frame if selection.max_rows is None else sample_rows(frame, selection.max_rows)).reset_index(drop=True)
