"""Masks of prompts: near-copies of a test file's own, and how near the others are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.data.battles import read_battles
from zoo.data.keys import near_copies, prompt_texts
from zoo.data.near import common_shingles, shingles
from zoo.data.prefix_join import candidates
from zoo.data.turns import Turns

EXACT, NEAR = "a prompt of --never", "a near-copy of a prompt of --never"
LEAST_SIMILAR, SHOWN = 0.4, 10  # below, two prompts have little in common that prompts do not have anyway


@dataclass(frozen=True)
class Neighbours:
    """Two prompts that are alike, but not near-copies.

    `similarity`: Jaccard, of their runs of five characters.
    """

    similarity: float
    kept: str
    never: str


def asked_in(paths: Sequence[Path]) -> set[str]:
    """Every turn and every whole prompt of some files of battles, as `prompt_texts` has them.

    Also of rows that cannot be used, where their prompt can be read.
    """
    texts: set[str] = set()
    for path in paths:
        battles = read_battles(path, strict=False, need_texts=False)
        for turns in (*battles.frame["prompt"], *battles.bad_prompts.values()):
            texts |= prompt_texts(turns)
    return texts


def why_masked(prompts: Sequence[Turns], never: Collection[str]) -> list[str]:
    """Why each prompt must not be used, EXACT or NEAR; empty where it may.

    One of its turns, or all as one text, is a text of `never` or a near-copy of one.
    """
    if not never:
        return [""] * len(prompts)
    texts = [prompt_texts(turns) for turns in prompts]
    asked = set(never)
    near = near_copies({text for own in texts for text in own} - asked, asked)
    return [EXACT if own & asked else NEAR if own & near else "" for own in texts]


def nearest(kept: Collection[str], never: Collection[str], count: int = SHOWN) -> list[Neighbours]:
    """The most alike of kept texts and those of `never`, the most alike first.

    At least LEAST_SIMILAR. Compared exactly, without the shingles that a quarter of either side's texts have, as
    `zoo.data.near` does.
    """
    ours, theirs = sorted(set(kept)), sorted(set(never))
    common = np.intersect1d(common_shingles(ours), common_shingles(theirs)) if ours and theirs else np.empty(0, dtype=np.uint64)
    sets = [_own(text, common) for text in (*ours, *theirs)]
    found = []
    for number, others in candidates(sets, LEAST_SIMILAR) if ours and theirs else ():
        for other in others[(others < len(ours)) != (number < len(ours))].tolist():
            shared = len(np.intersect1d(sets[number], sets[other], assume_unique=True))
            similarity = shared / (len(sets[number]) + len(sets[other]) - shared)
            if similarity >= LEAST_SIMILAR:
                i, j = sorted((number, other))
                found.append(Neighbours(similarity, ours[i], theirs[j - len(ours)]))
    return sorted(found, key=lambda pair: (-pair.similarity, pair.kept, pair.never))[:count]


def _own(text: str, common: np.ndarray) -> np.ndarray:
    found = np.unique(shingles(text))
    rest = found[~np.isin(found, common, assume_unique=True)]
    return rest if len(rest) else found
