"""Pairs: of different texts, each once, no prompt over its cap, and sides that say nothing of who answered."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zoo.data.pairing import EXHAUSTED, PER_PROMPT, ROWS, Choice, balanced_sides, choose, possible_pairs

PROMPTS = st.lists(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), max_size=7, unique_by=lambda t: t[0]), max_size=9)
CEILING = st.none() | st.integers(1, 30)


def made(
    prompts: list[list[tuple[int, int]]], rows: int | None, per_prompt: int | None, seed: int
) -> tuple[list[np.ndarray], list[np.ndarray], Choice]:
    models = [np.array([model for model, _ in own], dtype=np.int64) for own in prompts]
    pairs = [possible_pairs(np.array([text for _, text in own], dtype=np.int64)) for own in prompts]
    return models, pairs, choose(models, pairs, rows=rows, per_prompt=per_prompt, seed=seed)


@given(PROMPTS, CEILING, CEILING, st.integers(0, 3))
def test_what_is_chosen(prompts: list[list[tuple[int, int]]], rows: int | None, per_prompt: int | None, seed: int) -> None:
    models, pairs, choice = made(prompts, rows, per_prompt, seed)
    places = choice.answers.tolist()
    chosen = list(zip(choice.prompts.tolist(), places, strict=True))
    for prompt, (a, b) in chosen:
        assert prompts[prompt][a][0] != prompts[prompt][b][0] and prompts[prompt][a][1] != prompts[prompt][b][1]
    assert len({(prompt, frozenset(pair)) for prompt, pair in chosen}) == len(chosen)
    of_prompt = Counter(choice.prompts.tolist())
    possible = [min(len(own), per_prompt or len(own)) for own in pairs]
    assert len(chosen) == min(sum(possible), rows or sum(possible)), "as many as the ceilings allow"
    assert all(count <= possible[prompt] for prompt, count in of_prompt.items())
    waiting = min((of_prompt[prompt] for prompt, most in enumerate(possible) if of_prompt[prompt] < most), default=None)
    assert waiting is None or max(of_prompt.values(), default=0) <= waiting + 1, "no prompt is two rounds ahead"
    first = choice.prompts[: len(of_prompt)].tolist()
    assert len(set(first)) == len(first), "one pair a prompt before any has two"
    ended = ROWS if rows and len(chosen) >= rows else EXHAUSTED if len(chosen) == sum(map(len, pairs)) else PER_PROMPT
    assert choice.ended_by == ended
    again = made(prompts, rows, per_prompt, seed)[2]
    assert (again.answers == choice.answers).all() and (again.prompts == choice.prompts).all()
    sides = Counter[int]()
    for prompt, (a, b) in chosen:
        sides[int(models[prompt][a])] += 1
        sides[int(models[prompt][b])] -= 1
    assert all(abs(difference) <= 1 for difference in sides.values())


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(lambda pair: pair[0] != pair[1]), max_size=60))
def test_sides_are_balanced_for_every_model(pairs: list[tuple[int, int]]) -> None:
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    turned = balanced_sides(ends, np.random.default_rng(0))
    ends[turned] = ends[turned][:, ::-1]
    a, b = (np.bincount(side, minlength=6) for side in ends.T)
    assert np.abs(a - b).max(initial=0) <= 1


def test_models_meet_in_all_mixtures() -> None:
    """Of eight models on every prompt all 28 pairs come up alike, though each prompt gives one."""
    models = [np.arange(8)] * 560
    pairs = [possible_pairs(np.arange(8))] * 560
    choice = choose(models, pairs, rows=None, per_prompt=1, seed=0)
    met = Counter(frozenset(pair) for pair in choice.answers.tolist())
    assert len(met) == 28 and set(met.values()) == {20}
    first, second = Counter(map(tuple, choice.answers.tolist())), Counter(tuple(pair[::-1]) for pair in choice.answers.tolist())
    assert sum(abs(first[pair] - second[pair]) for pair in first) < 280, "a pair of models is not always the same way round"


def test_a_prompt_uses_all_its_answers_before_it_uses_one_twice() -> None:
    choice = choose([np.arange(6)], [possible_pairs(np.arange(6))], rows=3, per_prompt=None, seed=0)
    assert sorted(choice.answers.ravel().tolist()) == list(range(6))
