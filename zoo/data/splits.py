"""Folds by prompt, and which rows a stage scores or learns from."""

from __future__ import annotations

import hashlib
import unicodedata
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from zoo.data.battles import Battles
from zoo.data.rows import Turns
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.contracts import Held, Selection


def fold_of(prompt_turns: Turns, n_folds: int) -> int:
    """Fold of a battle.

    A hash of its first prompt turn that holds text, so that a prompt never lies in two folds. Differences of Unicode form
    (NFKC), case and white space do not count. Other rows do not matter: folds are stable under reordering and added rows.
    """
    first = next((turn for turn in prompt_turns if turn and turn.strip()), "")
    digest = hashlib.sha256(normal_text(first).encode("utf-8", errors="replace")).digest()
    return int.from_bytes(digest[:8], "big") % n_folds


def normal_text(text: str) -> str:
    """A text without differences of Unicode form (NFKC), case and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def assign_folds(frame: pd.DataFrame, n_folds: int) -> np.ndarray:
    """`fold_of` for each row of a battles frame: int64, shape (rows,)."""
    return np.fromiter((fold_of(turns, n_folds) for turns in frame["prompt"]), dtype=np.int64, count=len(frame))


def prompt_groups(frame: pd.DataFrame) -> np.ndarray:
    """A number for each row of a battles frame, one a prompt: int64, shape (rows,)."""
    return assign_folds(frame, 2**61 - 1)


def select_rows(battles: Battles, selection: Selection, held: Held | None = None) -> pd.DataFrame:
    """The usable rows that a selection asks for.

    They are in file order, or for `listed` in the order of the list. `held_out` takes fold `held.fold`, or every row where
    `held` is None (a model that scores each row out of fold). Listed ids whose rows are bad are in `unusable_ids`; ids that are
    not in the file raise ZooError.
    """
    frame = battles.frame
    if selection.rows == "listed":
        wanted = _listed_ids(battles, selection)
        bad = set(battles.bad_ids)
        frame = frame.set_index("id", drop=False).loc[[row_id for row_id in wanted if row_id not in bad]]
    elif selection.rows == "held_out" and held is not None:
        frame = frame[assign_folds(frame, held.n_folds) == held.fold]
    if selection.max_rows is not None:
        frame = sample_rows(frame, selection.max_rows)
    return frame.reset_index(drop=True)


def sample_rows(frame: pd.DataFrame, max_rows: int) -> pd.DataFrame:
    """At most `max_rows` rows in file order, chosen by a hash of their ids.

    Files are often sorted by label or source.
    """
    if len(frame) <= max_rows:
        return frame
    order = np.argsort([hashlib.sha256(row_id.encode()).hexdigest() for row_id in frame["id"]], kind="stable")
    return frame.iloc[np.sort(order[:max_rows])]


def unusable_ids(battles: Battles, selection: Selection) -> list[str]:
    """Ids that a selection asks for and whose rows cannot be scored.

    None for `held_out`, whose folds need the prompt.
    """
    if selection.rows == "held_out":
        return []
    wanted = _listed_ids(battles, selection) if selection.rows == "listed" else list(battles.ids)
    bad = set(battles.bad_ids)
    return [row_id for row_id in wanted if row_id in bad]


def _listed_ids(battles: Battles, selection: Selection) -> list[str]:
    if selection.ids is None:
        raise ZooError("selection.ids: rows = 'listed' needs a text file of one id a line; give its path")
    path = selection.ids.path
    try:
        listed = [line.strip() for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except OSError as error:
        raise ZooError(f"{path}: cannot be read ({error.strerror}); give a text file of one id a line") from error
    known = set(battles.ids)
    unknown = [row_id for row_id in listed if row_id not in known]
    if unknown:
        raise ZooError(f"{path}: {len(unknown)} ids are not in {battles.path}, first {', '.join(unknown[:5])}")
    if len(set(listed)) < len(listed):
        raise ZooError(f"{path}: ids occur more than once; keep each once")
    return listed


def select_training(
    battles: Battles, held: Held, *, max_rows: int | None = None, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labelled rows to learn from and labelled rows of the held-out fold, both in file order.

    `max_rows` takes a seeded sample of the first; which rows it takes depends on their ids, not on their order in the file.
    """
    labelled = battles.frame[battles.frame["label"] >= 0]
    is_held = assign_folds(labelled, held.n_folds) == held.fold
    train, held_out = labelled[~is_held], labelled[is_held]
    if max_rows is not None and len(train) > max_rows:
        keys = [hashlib.sha256(f"{seed}/{row_id}".encode()).digest() for row_id in train["id"]]
        chosen = sorted(range(len(keys)), key=keys.__getitem__)[:max_rows]
        train = train.iloc[sorted(chosen)]
    return train.reset_index(drop=True), held_out.reset_index(drop=True)
