"""Extra training battles, without any that leak the held-out fold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from zoo.contracts import FoldRule, Held, TrainSpec
from zoo.data.battles import Battles
from zoo.data.keys import battle_keys, near_copies, prompt_texts
from zoo.data.near import near_places
from zoo.data.splits import assign_folds, group_hashes, prompt_hash, prompt_of
from zoo.data.usable import usable_battles
from zoo.data.votes import VOTES
from zoo.errors import ZooError
from zoo.stages import progress
from zoo.stages.train.examples import smoothed, with_votes

# Why a row is not learned from, in the order in which it is asked.
DOUBLED = "also in the main file"
HELD_OUT = "of the held-out fold"
NEAR = "near-copies of held-out prompts"
BETWEEN = "near-copies of two groups of prompts"


def extra_rows(
    path: Path, main: Battles, held: Held, spec: TrainSpec, rule: FoldRule | None
) -> tuple[Any, np.ndarray, dict[str, float]]:
    """The rows of the file at `path` that may be learned from, with their targets (rows, 3).

    Returned with how many are used and left out. A target sums to `spec.extra_weight`: vote shares where they are asked for and
    the file has them, else the label.
    """
    extra = usable_battles(path, keep=VOTES, say=progress.note)
    frame = extra.frame[extra.frame["label"] >= 0]
    reasons = why_not(frame, main.frame, held, rule)
    usable = frame[reasons == ""].reset_index(drop=True)
    found = [(int((reasons == reason).sum()), reason) for reason in (HELD_OUT, NEAR, BETWEEN, DOUBLED)]
    told = ", ".join(f"{count:,} {reason}" for count, reason in found if count)
    if usable.empty:
        raise ZooError(f"train.extra: {path}: none of its {len(frame)} labelled rows can be learned from: {told}")
    if told:
        progress.note(f"{path}: {len(usable):,} of {len(frame):,} labelled rows are learned from; left out: {told}")
    targets = np.eye(3)[usable["label"].to_numpy(dtype=np.int64)]
    counts = {"train/extra_rows": float(len(usable)), "train/extra_rows_left_out": float(len(frame) - len(usable))}
    counts["train/extra_rows_near_copies"] = float((reasons == NEAR).sum())
    if spec.targets == "votes" and set(VOTES) <= set(extra.kept):
        targets, voted = with_votes(targets, extra, usable["id"].tolist())
        counts["train/extra_rows_with_votes"] = float(voted)
    return usable, spec.extra_weight * smoothed(targets, spec.label_smoothing), counts


def why_not(extra: Any, main: Any, held: Held, rule: FoldRule | None) -> np.ndarray:
    """Why each row of `extra` may not be learned from; empty where it may. str, shape (rows,).

    `main`: all usable rows of the main file. A row is doubled if that file has its id, or its prompt with the same two
    responses in either order. It is of the held-out fold if its prompt's fold is, or if one of its prompt's turns, or all of
    them as one text, is also a turn or the whole of a prompt there: a question that is asked second there may be asked first
    here. One that is nearly so is a near-copy, where `rule` asks for these. Where the folds have a rule, a row is of the fold
    of the group that its prompt joins; one whose prompt would join two is left out, since it would tie them together.
    """
    held_out = main[assign_folds(main, held.n_folds, held.rule) == held.fold]
    asked = {text for turns in held_out["prompt"] for text in prompt_texts(turns)}
    texts = [prompt_texts(turns) for turns in extra["prompt"]]
    near = near_copies({text for row in texts for text in row}, asked) if rule or held.rule else set()
    ids, known = set(main["id"]), set(battle_keys(main))
    joined = joined_groups(extra, main, held.rule)
    keys = battle_keys(extra)
    reasons = np.full(len(extra), "", dtype=object)
    reasons[[len(groups) > 1 for groups in joined]] = BETWEEN
    reasons[[any(group % held.n_folds == held.fold for group in groups) for groups in joined]] = HELD_OUT
    reasons[[not near.isdisjoint(row) for row in texts]] = NEAR
    reasons[[not asked.isdisjoint(row) for row in texts]] = HELD_OUT
    reasons[[row_id in ids or key in known for row_id, key in zip(extra["id"], keys, strict=True)]] = DOUBLED
    return reasons


def joined_groups(extra: Any, main: Any, rule: FoldRule | None) -> list[set[int]]:
    """The groups of the main file that each added row's prompt joins, by their hashes.

    Its own hash alone where it joins none.
    """
    prompts = [prompt_of(turns) for turns in extra["prompt"]]
    groups = {prompt: {prompt_hash(prompt)} for prompt in prompts}
    if rule is not None:
        of_main = dict(zip((prompt_of(turns) for turns in main["prompt"]), group_hashes(main, rule).tolist(), strict=True))
        theirs, distinct = list(of_main), list(groups)
        for prompt, places in zip(distinct, near_places(distinct, theirs), strict=True):
            groups[prompt] = {of_main[theirs[place]] for place in places} or groups[prompt]
    return [groups[prompt] for prompt in prompts]
