"""Extra training battles, without any that leak the held-out fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.contracts import ExtraBattles, FoldRule, Held, TrainRequest, TrainSpec
from zoo.data.battles import Battles
from zoo.data.keys import battle_keys, near_copies, prompt_texts
from zoo.data.near import near_places
from zoo.data.splits import apart_share, group_hashes, kept_out, prompt_hash, prompt_of
from zoo.data.usable import usable_battles
from zoo.data.votes import VOTES
from zoo.errors import ZooError
from zoo.stages import progress
from zoo.stages.train.examples import learned_targets

# Why a row is not learned from, in the order in which it is asked and told.
DOUBLED = "also in the main file"
HELD_OUT = "of held-out prompts"
NEAR = "near-copies of held-out prompts"
BETWEEN = "near-copies of two groups of prompts"
EARLIER = "also in an extra file before it"
REASONS = (DOUBLED, EARLIER, HELD_OUT, NEAR, BETWEEN)


@dataclass(frozen=True)
class ExtraRows:
    """What is learned from one extra file, and what is not.

    `targets` (rows of `frame`, 3), each the file's weight in sum. `labelled`: rows of the file that say what is to be learned;
    `left_out`: how many of them are not learned from, by reason.
    """

    frame: Any
    targets: np.ndarray
    labelled: int
    left_out: dict[str, int]
    voted: int
    taught: int


def all_extra_rows(request: TrainRequest, main: Battles, teacher: Any = None) -> tuple[list[ExtraRows], dict[str, float]]:
    """The rows of every extra file that may be learned from, and how many are.

    A battle that stands in two files is learned from the first. ZooError where vote shares are asked for and no file has any.
    """
    spec, found = request.spec, [main.frame]
    rows: list[ExtraRows] = []
    for extra in request.extra_files:
        rows.append(extra_rows(extra, main, request.held, spec, request.extra_rule, earlier=found[1:], teacher=teacher))
        found.append(rows[-1].frame)
    if not rows:
        return [], {}
    if spec.extra_targets == "votes" and not any(one.voted for one in rows):
        raise ZooError(f"train.extra_targets = 'votes': no row of the extra files has {', '.join(VOTES)}; take the setting out")
    counts = {
        "train/extra_rows": sum(len(one.frame) for one in rows),
        "train/extra_rows_left_out": sum(sum(one.left_out.values()) for one in rows),
        "train/extra_rows_near_copies": sum(one.left_out.get(NEAR, 0) for one in rows),
    }
    if (spec.extra_targets or spec.targets) == "votes":
        counts["train/extra_rows_with_votes"] = sum(one.voted for one in rows)
    if teacher is not None:
        counts["train/extra_rows_with_teacher"] = sum(one.taught for one in rows)
    return rows, {name: float(count) for name, count in counts.items()}


def extra_rows(
    extra: ExtraBattles,
    main: Battles,
    held: Held,
    spec: TrainSpec,
    rule: FoldRule | None,
    *,
    earlier: Sequence[Any] = (),
    teacher: Any = None,
) -> ExtraRows:
    """The rows of one extra file that may be learned from, with their targets.

    Vote shares where they are asked for and the file has them, else the label; `teacher` as `learned_targets` takes it.
    `earlier`: what is learned of the files before it. How many rows are lost, and why, is told.
    """
    path = extra.battles.path
    battles = usable_battles(path, keep=VOTES, say=progress.note)
    votes = (spec.extra_targets or spec.targets) == "votes" and set(VOTES) <= set(battles.kept)
    says = np.isfinite(learned_targets(battles.frame, battles, spec, votes=votes, teacher=teacher).targets).all(axis=1)
    frame = battles.frame[says]
    reasons = why_not(frame, main.frame, held, rule, earlier, share_apart(main, held, spec))
    usable = frame[reasons == ""].reset_index(drop=True)
    left_out = {reason: int((reasons == reason).sum()) for reason in REASONS if (reasons == reason).any()}
    told = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
    if usable.empty:
        told = told or "it has no labels"
        raise ZooError(f"train.extra: {path}: none of its {len(frame)} labelled rows can be learned from: {told}")
    lost = f"; left out: {told}" if told else ""
    progress.note(f"{path}: {len(usable):,} of {len(frame):,} labelled rows are learned from, weight {extra.weight:g}{lost}")
    learned = learned_targets(usable, battles, spec, votes=votes, teacher=teacher)
    return ExtraRows(usable, extra.weight * learned.targets, len(frame), left_out, learned.voted, learned.taught)


def share_apart(main: Battles, held: Held, spec: TrainSpec) -> float:
    """The share of the training side's prompts that is set apart to choose a scale.

    0 where none is chosen.
    """
    return apart_share(main.frame, held, spec.eval_rows) if spec.scales else 0.0


def why_not(
    extra: Any, main: Any, held: Held, rule: FoldRule | None, earlier: Sequence[Any] = (), apart: float = 0.0
) -> np.ndarray:
    """Why each row of `extra` may not be learned from; empty where it may. str, shape (rows,).

    `main`: all usable rows of the main file; `earlier`: those learned from extra files before this one; `apart`: share of the
    prompts that is held out like those of the fold. A row is doubled if
    one of these files has its id, or its prompt with the same two responses in either order. It is of the held-out fold if its
    prompt's fold is, or if one of its prompt's turns, or all of them as one text, is also a turn or the whole of a prompt
    there: a question that is asked second there may be asked first here. One that is nearly so is a near-copy, where `rule`
    asks for these. Where the folds have a rule, a row is of the fold of the group that its prompt joins; one whose prompt would
    join two is left out, since it would tie them together.
    """
    held_out = main[kept_out(group_hashes(main, held.rule), held, apart)]
    asked = {text for turns in held_out["prompt"] for text in prompt_texts(turns)}
    texts = [prompt_texts(turns) for turns in extra["prompt"]]
    near = near_copies({text for row in texts for text in row}, asked) if rule or held.rule else set()
    joined = joined_groups(extra, main, held.rule)
    keys = battle_keys(extra)
    reasons = np.full(len(extra), "", dtype=object)
    reasons[[len(groups) > 1 for groups in joined]] = BETWEEN
    reasons[[kept_out(np.array(list(groups), np.uint64), held, apart).any() for groups in joined]] = HELD_OUT
    reasons[[not near.isdisjoint(row) for row in texts]] = NEAR
    reasons[[not asked.isdisjoint(row) for row in texts]] = HELD_OUT
    for reason, frames in ((EARLIER, earlier), (DOUBLED, [main])):
        ids = {row_id for frame in frames for row_id in frame["id"]}
        known = {key for frame in frames for key in battle_keys(frame)}
        reasons[[row_id in ids or key in known for row_id, key in zip(extra["id"], keys, strict=True)]] = reason
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
