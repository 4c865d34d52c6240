"""Which answers to one prompt become a pair, and which of the two is A.

One pair a prompt first, then further rounds. In each round a prompt gives the pair whose answers it has used least, and of
those the one whose two models have met least, so that strong and weak models meet in all mixtures. Then sides: pairs are edges
between models, and edges walked in closed trails leave each model as often as they reach it (Euler). So every model is A as
often as B, but for one pair at most, and which side is which says nothing of who answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

EXHAUSTED, ROWS, PER_PROMPT = "every pair is taken", "--rows", "--per-prompt"
Allowed = Callable[[int, int, int], bool]  # a prompt's number and the places of two of its answers


@dataclass(frozen=True)
class Choice:
    """Chosen pairs in the order of rounds, and what ended the choice.

    `prompts` (pairs,): the prompts' numbers; `answers` (pairs, 2): places of A's and B's answers among those of the prompt.
    """

    prompts: np.ndarray
    answers: np.ndarray
    ended_by: str


def possible_pairs(texts: np.ndarray) -> np.ndarray:
    """Places of all pairs of a prompt's answers whose texts differ: int64, (pairs, 2).

    `texts` (answers,): a number for each text.
    """
    first, second = np.triu_indices(len(texts), 1)
    differ = texts[first] != texts[second]
    return np.stack([first[differ], second[differ]], axis=1)


def choose(
    models: Sequence[np.ndarray],
    pairs: Sequence[np.ndarray],
    *,
    rows: int | None,
    per_prompt: int | None,
    seed: int,
    told: Callable[[int], object] = lambda _: None,
) -> Choice:
    """Choose pairs and their sides.

    `models`: for each prompt the number of the model of each answer, all different; `pairs`: for each the places of the answers
    that may be paired. `told` gets how many more pairs were chosen. Same arguments, same choice.
    """
    rng = np.random.default_rng(seed)
    taken = list(_rounds(models, pairs, rows, per_prompt, rng, told))
    prompts = np.array([prompt for prompt, _, _ in taken], dtype=np.int64)
    answers = np.array([places for _, *places in taken], dtype=np.int64).reshape(-1, 2)
    ends = np.array([models[prompt][places] for prompt, places in zip(prompts, answers, strict=True)], dtype=np.int64)
    turned = balanced_sides(ends.reshape(-1, 2), rng)
    answers[turned] = answers[turned][:, ::-1]
    if rows is not None and len(taken) >= rows:
        return Choice(prompts, answers, ROWS)
    whole = len(taken) == sum(map(len, pairs))
    return Choice(prompts, answers, EXHAUSTED if whole else PER_PROMPT)


def _rounds(
    models: Sequence[np.ndarray],
    pairs: Sequence[np.ndarray],
    rows: int | None,
    per_prompt: int | None,
    rng: np.random.Generator,
    told: Callable[[int], object],
) -> Iterator[tuple[int, int, int]]:
    """Prompt and both answers of each pair, round by round; prompts in another order in each."""
    count = 1 + max((int(own.max()) for own in models if len(own)), default=-1)
    met = np.zeros((count, count), dtype=np.int64)
    used = [np.zeros(len(own), dtype=np.int64) for own in models]
    left = [np.ones(len(own), dtype=bool) for own in pairs]
    made, turn = 0, 0
    open_prompts = np.array([prompt for prompt, own in enumerate(pairs) if len(own)], dtype=np.int64)
    while len(open_prompts) and (per_prompt is None or turn < per_prompt):
        for prompt in rng.permutation(open_prompts).tolist():
            if rows is not None and made >= rows:
                return
            first, second = pairs[prompt].T
            ours, theirs = models[prompt][first], models[prompt][second]
            order = np.lexsort(
                (rng.random(len(first)), met[ours, theirs], used[prompt][first] + used[prompt][second], ~left[prompt])
            )
            best = int(order[0])
            i, j = int(first[best]), int(second[best])
            left[prompt][best] = False
            used[prompt][[i, j]] += 1
            met[ours[best], theirs[best]] += 1
            met[theirs[best], ours[best]] += 1
            made += 1
            told(1)
            yield prompt, i, j
        open_prompts = np.array([prompt for prompt in open_prompts.tolist() if left[prompt].any()], dtype=np.int64)
        turn += 1


def balanced_sides(ends: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which pairs to turn, so that each model is A as often as B, but for one pair at most.

    bool, (pairs,). `ends` (pairs, 2): the numbers of two different models each.
    """
    count = int(ends.max()) + 1 if len(ends) else 0
    degree = np.bincount(ends.ravel(), minlength=count)
    # A model that is in an odd number of pairs gets one more, with a model that does not exist.
    odd = np.flatnonzero(degree % 2)
    walked = np.concatenate([ends, np.stack([odd, np.full(len(odd), count)], axis=1)]) if len(ends) else ends
    edges: list[list[int]] = [[] for _ in range(count + 1)]
    for edge in rng.permutation(len(walked)).tolist():
        for end in walked[edge].tolist():
            edges[end].append(edge)
    turned, done = np.zeros(len(walked), dtype=bool), np.zeros(len(walked), dtype=bool)
    for start in rng.permutation(count + 1).tolist():
        at = start
        while edges[at]:  # a trail ends only where it began, for every number of edges is even
            edge = edges[at].pop()
            if done[edge]:
                continue
            done[edge], turned[edge] = True, walked[edge, 0] != at
            at = int(walked[edge, 0] if turned[edge] else walked[edge, 1])
    return turned[: len(ends)]
