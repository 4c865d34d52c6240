"""Folds by prompt, and which rows a stage scores or learns from.

A prompt's fold is its hash modulo their number. With the rule `near-prompts-1` (`zoo.data.near`) near-copies share a fold, that
of the smallest hash among them in the file: what a group gains from other files never moves a row of this one.
"""

from __future__ import annotations

import hashlib
import unicodedata
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from zoo.contracts import Say
from zoo.data.battles import Battles
from zoo.data.near import near_groups
from zoo.data.turns import Turns
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.contracts import FoldRule, Held, Selection

NEAR_PROMPTS: FoldRule = "near-prompts-1"
MOST_APART = 0.1
PARTS = 10_000  # of the prompts, of which some are set apart
FEW_ROWS = 2_000  # with more, near-copies leave enough to every fold


def silent(_: str) -> None:
    """Where nobody is told."""


def fold_of(prompt_turns: Turns, n_folds: int) -> int:
    """Fold of a battle whose prompt is alone, as without a rule each is.

    The hash of its prompt, modulo `n_folds`. Other rows do not matter: folds are stable under reordering and added rows.
    """
    return prompt_hash(prompt_of(prompt_turns)) % n_folds


def prompt_of(turns: Turns) -> str:
    """What folds know of a prompt: its first turn that holds text, as `normal_text`."""
    return normal_text(next((turn for turn in turns if turn and turn.strip()), ""))


def prompt_hash(prompt: str) -> int:
    """The first 64 bits of a text's SHA-256."""
    return int.from_bytes(hashlib.sha256(prompt.encode("utf-8", errors="replace")).digest()[:8], "big")


def normal_text(text: str) -> str:
    """A text without differences of Unicode form (NFKC), case and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def group_hashes(frame: pd.DataFrame, rule: FoldRule | None = None, say: Say = silent) -> np.ndarray:
    """What is the same for battles that must share a fold: uint64, shape (rows,).

    Without a rule the hash of the prompt. With `near-prompts-1` the smallest of the hashes in its group of near-copies, for
    which the frame must be all usable rows of the file; `say` as `near_groups` takes it.
    """
    prompts = frame["prompt"].map(prompt_of)
    hashes = {prompt: prompt_hash(prompt) for prompt in prompts}
    if rule is not None:
        distinct = sorted(hashes, key=hashes.__getitem__)  # the first of a group is then the one with the smallest hash
        hashes = {prompt: hashes[distinct[first]] for prompt, first in zip(distinct, near_groups(distinct, say), strict=True)}
    return prompts.map(hashes).to_numpy(dtype=np.uint64)


def assign_folds(frame: pd.DataFrame, n_folds: int, rule: FoldRule | None = None, say: Say = silent) -> np.ndarray:
    """Fold of each row of a battles frame: int64, shape (rows,). See `group_hashes`."""
    return (group_hashes(frame, rule, say) % np.uint64(n_folds)).astype(np.int64)


def kept_out(hashes: np.ndarray, held: Held, apart: float = 0.0) -> np.ndarray:
    """Which groups of prompts, by their hashes, are not learned from: bool, their shape.

    Those of the held-out fold, and of the others the share `apart`, by the rest of their hash.
    """
    fold, rest = hashes % np.uint64(held.n_folds), hashes // np.uint64(held.n_folds)
    held_out: np.ndarray = fold == held.fold
    return held_out | (rest % np.uint64(PARTS) < np.uint64(round(apart * PARTS)))


def apart_share(frame: pd.DataFrame, held: Held, rows: int) -> float:
    """The share of the training side's prompts to set apart for `rows` of its labelled rows.

    At most MOST_APART: what is set apart is not learned from.
    """
    training = (frame["label"] >= 0).to_numpy() & ~kept_out(group_hashes(frame, held.rule), held)
    return min(MOST_APART, rows / max(1, int(training.sum())))


def rule_that_serves(frame: pd.DataFrame, n_folds: int) -> FoldRule | None:
    """The rule of folds that commands take of their own accord.

    Near-copies share a fold, unless that leaves a fold without rows, or what is trained beside it without one of the labels,
    and folds by prompt alone do not: of few battles made from a handful of sentences. Where there are more than FEW_ROWS no
    fold is looked at.
    """
    labels = frame["label"].to_numpy()
    if len(frame) > FEW_ROWS or not (labels >= 0).any():
        return NEAR_PROMPTS

    def serves(rule: FoldRule | None) -> bool:
        folds = assign_folds(frame, n_folds, rule)
        return all((folds == fold).any() and set(labels[folds != fold]) == set(labels) for fold in range(n_folds))

    return NEAR_PROMPTS if serves(NEAR_PROMPTS) or not serves(None) else None


def folds_of(battles: Battles, ids: pd.Series, n_folds: int, rule: FoldRule | None, say: Say = silent) -> np.ndarray:
    """Folds of some of a file's usable rows by their ids: int64, shape (ids,)."""
    folds = pd.Series(assign_folds(battles.frame, n_folds, rule, say), index=battles.frame["id"])
    return folds.loc[ids].to_numpy()


def prompt_groups(frame: pd.DataFrame, rule: FoldRule | None = None, say: Say = silent) -> np.ndarray:
    """A number for each row of a battles frame: int64, shape (rows,).

    It is the same where rows must share a fold. It goes by the prompt, and by the id (a column, or the index) where there is
    none. See `group_hashes` for the rule.
    """
    ids = frame["id"] if "id" in frame.columns else frame.index
    prompts = [turns or [row_id] for row_id, turns in zip(ids, frame["prompt"], strict=True)]
    return assign_folds(frame.assign(prompt=pd.Series(prompts, index=frame.index)), 2**61 - 1, rule, say)


def groups_of(battles: Battles, ids: pd.Series, rule: FoldRule | None = None, say: Say = silent) -> np.ndarray:
    """`prompt_groups` of some of a file's usable rows by their ids: int64, shape (ids,)."""
    groups = pd.Series(prompt_groups(battles.frame, rule, say), index=battles.frame["id"])
    return groups.loc[ids].to_numpy()


def select_rows(battles: Battles, selection: Selection, held: Held | None = None, say: Say = silent) -> pd.DataFrame:
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
        frame = frame[assign_folds(frame, held.n_folds, held.rule, say) == held.fold]
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


def assign_bad_folds(battles: Battles, n_folds: int) -> dict[str, int]:
    """Fold by id of each row that cannot be used.

    It goes by the prompt where that can be read, else by the id. Each is in one fold, so that it is counted once over all of
    them.
    """
    return {row_id: fold_of(battles.bad_prompts.get(row_id) or [row_id], n_folds) for row_id in battles.bad_ids}


def unusable_ids(battles: Battles, selection: Selection, held: Held | None = None) -> list[str]:
    """Ids that a selection asks for, as `select_rows` does, and whose rows cannot be scored."""
    if selection.rows == "held_out":
        if held is None:
            return list(battles.bad_ids)
        return [row_id for row_id, fold in assign_bad_folds(battles, held.n_folds).items() if fold == held.fold]
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
    battles: Battles,
    held: Held,
    *,
    max_rows: int | None = None,
    seed: int = 0,
    apart: float = 0.0,
    say: Say = silent,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labelled rows to learn from and labelled rows of the held-out fold, both in file order.

    `max_rows` takes a seeded sample of the first; which rows it takes depends on their ids, not on their order in the file.
    `apart`: share of the other prompts that is not learned from either (`select_apart`).
    """
    labelled = (battles.frame["label"] >= 0).to_numpy()
    hashes = group_hashes(battles.frame, held.rule, say)
    train, held_out = battles.frame[labelled & ~kept_out(hashes, held, apart)], battles.frame[labelled & kept_out(hashes, held)]
    if max_rows is not None and len(train) > max_rows:
        keys = [hashlib.sha256(f"{seed}/{row_id}".encode()).digest() for row_id in train["id"]]
        chosen = sorted(range(len(keys)), key=keys.__getitem__)[:max_rows]
        train = train.iloc[sorted(chosen)]
    return train.reset_index(drop=True), held_out.reset_index(drop=True)


def select_apart(battles: Battles, held: Held, apart: float) -> pd.DataFrame:
    """Labelled rows of the prompts that are set apart.

    They are neither learned from nor of the held-out fold.
    """
    hashes = group_hashes(battles.frame, held.rule)
    ours = kept_out(hashes, held, apart) & ~kept_out(hashes, held)
    found: pd.DataFrame = battles.frame[(battles.frame["label"] >= 0).to_numpy() & ours]
    return found.reset_index(drop=True)
