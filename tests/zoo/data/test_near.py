"""Near-copies of texts: MinHash finds what an exact comparison of every pair finds, whatever the order."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zoo.data import near
from zoo.data.near import COMMON_LEAST, SHINGLE, THRESHOLD, _Candidates, near_groups, near_places
from zoo.data.prefix_join import candidates
from zoo.errors import ZooError

RIDDLE = "sally (a girl) has 3 brothers. each brother has 2 sisters. how many sisters does sally have?"
WORDS = ["why", "is", "the", "sky", "blue", "at", "night", "你好吗今天", "explain", "please", "😀", "3"]
sentences = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)


def jaccard(one: str, other: str) -> float:
    """By sets of texts, with no hash: an independent form of what `near_groups` compares."""
    first, second = ({text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1))} for text in (one, other))
    return len(first & second) / len(first | second)


def exact_groups(texts: list[str]) -> list[int]:
    group = list(range(len(texts)))
    for i, j in combinations(range(len(texts)), 2):
        if jaccard(texts[i], texts[j]) >= THRESHOLD:
            low, high = sorted((group[i], group[j]))
            group = [low if g == high else g for g in group]
    return group


@settings(max_examples=150, deadline=None, derandomize=True)  # one pair in thousands at the threshold is missed
@given(st.lists(sentences, max_size=25))
@example([RIDDLE, f"{RIDDLE} let's think step by step"])
@example(["", "", "a", "ab", "abcd", "abcde"])
def test_groups_are_those_of_comparing_every_pair(texts: list[str]) -> None:
    """Single linkage: near-copies of near-copies are one group, so that no fold has a near-copy of another's prompt."""
    assert near_groups(texts).tolist() == exact_groups(texts)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(sentences, max_size=10), st.lists(sentences, max_size=10))
def test_places_are_those_of_comparing_every_pair(texts: list[str], others: list[str]) -> None:
    expected = [[j for j, other in enumerate(others) if jaccard(text, other) >= THRESHOLD] for text in texts]
    assert near_places(texts, others) == expected


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(sentences, min_size=2, max_size=15, unique=True), st.randoms())
def test_the_order_of_texts_does_not_matter(texts: list[str], rng: random.Random) -> None:
    def parts(ordered: list[str]) -> set[frozenset[str]]:
        groups = near_groups(ordered)
        return {frozenset(t for t, g in zip(ordered, groups, strict=True) if g == group) for group in groups}

    shuffled = rng.sample(texts, len(texts))
    assert parts(shuffled) == parts(texts)


def test_a_question_with_an_instruction_behind_it_is_a_near_copy_and_another_question_is_not() -> None:
    others = [
        f"{RIDDLE} let's think step by step",
        "tom (a boy) has 5 sisters. each sister has 4 brothers. how many brothers does tom have?",
        "how many sisters does sally have?",
    ]
    assert near_places([RIDDLE], others) == [[0]]


def test_thousands_of_texts_agree_with_an_exact_comparison() -> None:
    """Long texts with a few words changed, around the threshold, where candidates are missed if anywhere."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(3, 8))) for _ in range(400)]
    texts = []
    for _ in range(60):
        base = rng.choices(words, k=40)
        texts += [" ".join(w if rng.random() > 0.06 else rng.choice(words) for w in base) for _ in range(8)]
    kin = [(i, j) for i, j in combinations(range(len(texts)), 2) if i // 8 == j // 8]
    near = [(i, j) for i, j in kin if jaccard(texts[i], texts[j]) >= THRESHOLD]
    found = near_places(texts, texts)
    missed = [(i, j) for i, j in near if j not in found[i] or i not in found[j]]
    assert len(near) > 200 and len(missed) <= len(near) // 100
    assert all(i == j or jaccard(texts[i], texts[j]) >= THRESHOLD for i, places in enumerate(found) for j in places)


def test_the_permutations_are_those_that_the_rules_name_stands_for() -> None:
    """Another version of the library may permute otherwise and find other candidates: then the rule needs another name."""
    first = [327370264, 1323307703, 356163169, 1941899982, 1554724455, 1308336982]
    assert _Candidates([RIDDLE], np.empty(0, dtype=np.uint64)).sketches[0, :6].tolist() == first


def test_another_algorithm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.data.near.ALGORITHM", 99)
    with pytest.raises(ZooError, match="near-prompts-1 need 99; install rensa 0"):
        near_groups(["a", "b"])


def test_no_texts_have_no_groups() -> None:
    assert near_groups([]).tolist() == [] and near_places([], ["a"]) == [] and near_places(["a"], []) == [[]]
    assert near_groups(["a"]).dtype == np.int64


def questions(count: int) -> list[str]:
    """Of words that are met once or twice."""
    rng = random.Random(1)
    return [" ".join("".join(rng.choices("abcdefghij", k=rng.randint(3, 9))) for _ in range(10)) for _ in range(count)]


@pytest.mark.parametrize(
    "around", ["{} ".format(" ".join(f"rule{i}" for i in range(60))) + "%s", "%s answer in a table please"]
)
def test_what_is_put_around_every_question_makes_no_two_the_same(around: str) -> None:
    asked = questions(200)
    near = f"{asked[7]} or not"
    texts = [around % text for text in [*asked, near]]
    assert near_groups(texts).tolist() == [*range(200), 7]
    assert near_places(texts[:100], texts[100:])[7] == [100] and sum(map(len, near_places(texts[:100], texts[100:]))) == 1


def test_many_near_copies_of_one_text_are_near_copies() -> None:
    """A held-out prompt is not alone for that an added file is full of it."""
    copies = [f"{RIDDLE} {i}" for i in range(3 * COMMON_LEAST)]
    assert near_places([RIDDLE], copies) == [list(range(3 * COMMON_LEAST))]


def test_groups_asked_for_again_are_the_same_and_ones_own() -> None:
    texts = [RIDDLE, f"{RIDDLE} let's think step by step", "why"]
    near_groups(texts)[:] = 9
    assert near_groups(texts).tolist() == [0, 0, 2] and near_groups(texts[::-1]).tolist() == [0, 1, 1]


def templated(count: int, templates: int, words: int) -> list[str]:
    """Questions with one of several templates before them, each around less than a quarter of all."""
    rng = random.Random(2)
    around = [" ".join("".join(rng.choices("klmnopqrst", k=rng.randint(3, 9))) for _ in range(words)) for _ in range(templates)]
    return [f"{around[i % templates]} {text}" for i, text in enumerate(questions(count))]


@pytest.mark.parametrize("words", [10, 24, 26, 60])
def test_large_buckets_are_grouped_as_small_ones(words: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing every pair of a bucket, or those with rare shingles in common: no group differs, above the threshold and below.

    Where templates are a little more or less than what makes two texts near-copies, some pairs of them are and others are not.
    """
    texts = templated(300, 6, words)
    texts += [f"{text} or not" for text in texts[::20]] + texts[:30]
    monkeypatch.setattr(near, "LARGE", 1)
    found, places = near._near_groups(texts), near_places(texts[:150], texts[150:])
    monkeypatch.setattr(near, "LARGE", len(texts))
    assert np.array_equal(found, near._near_groups(texts))
    assert places == near_places(texts[:150], texts[150:])
    assert len(set(found.tolist())) < len(set(texts))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.sets(st.integers(0, 25), min_size=1), max_size=25), st.sampled_from([0.5, 0.7, 0.8, 1.0]))
def test_no_pair_of_similar_sets_is_missed_by_the_join(sets: list[set[int]], threshold: float) -> None:
    """Against comparing every pair: each similar one comes once."""
    arrays = [np.array(sorted(one), dtype=np.uint64) for one in sets]
    found = [tuple(sorted((i, int(j)))) for i, others in candidates(arrays, threshold) for j in others]
    similar = {
        (i, j)
        for (i, one), (j, other) in combinations(enumerate(sets), 2)
        if Fraction(len(one & other), len(one | other)) >= Fraction(threshold).limit_denominator(10)
    }
    assert len(found) == len(set(found)) and similar <= set(found)


def test_sets_that_share_only_what_many_have_are_not_compared() -> None:
    common = np.arange(140, dtype=np.uint64)
    sets = [np.concatenate([common, np.arange(60, dtype=np.uint64) + np.uint64(1000 * (i + 1))]) for i in range(50)]
    assert list(candidates(sets, THRESHOLD)) == []


def test_it_is_told_that_many_texts_take_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    near_groups(["few", "texts"], said.append)
    monkeypatch.setattr(near, "MANY", 3)
    near_groups(["some", "more", "texts"], said.append)
    near_groups(["some", "more", "texts"], said.append)
    assert len(said) == 1 and "among 3 prompts" in said[0], "once, and not of few"
