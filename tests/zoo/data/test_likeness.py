"""How alike prompts are, and weights that make some like others."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.logs import question
from zoo.data.likeness import FEATURES, LANGUAGE, LENGTH, TOPIC, TURNS, Bins, distance, features_of, raked, shares
from zoo.data.topics import topics_of

SHARES = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 1), min_size=1).map(
    lambda found: {name: value / sum(found.values()) for name, value in found.items()}
)


@given(SHARES, SHARES, SHARES)
def test_the_distance_is_one_between_what_shares_nothing_and_a_metric(a: dict, b: dict, c: dict) -> None:
    assert 0 <= distance(a, b) <= 1 + 1e-9 and distance(a, b) == pytest.approx(distance(b, a)) and distance(a, a) == 0
    assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-9
    assert distance(a, {name + "'": value for name, value in b.items()}) == pytest.approx(1)


CATEGORIES = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), min_size=1, max_size=50).map(
    lambda rows: pd.DataFrame(rows, columns=["one", "two"])
)


@given(CATEGORIES, CATEGORIES)
def test_weights_are_shares_whatever_the_pool_lacks(pool: pd.DataFrame, target: pd.DataFrame) -> None:
    weights = raked(pool, target)
    assert (weights >= 0).all() and weights.sum() == pytest.approx(1)
    again = raked(pool, target)
    assert (weights == again).all()


@given(CATEGORIES, st.integers(0, 1000))
def test_margins_are_met_where_the_pool_has_every_kind(target: pd.DataFrame, seed: int) -> None:
    every = pd.DataFrame([(a, b) for a in "ab" for b in "xyz"] * 7, columns=["one", "two"])
    pool = every.iloc[np.random.default_rng(seed).integers(0, len(every), 60)].reset_index(drop=True)
    pool = pd.concat([pool, every], ignore_index=True)
    weights = raked(pool, target)
    for name in pool:
        assert distance(shares(pool[name], weights), shares(target[name])) < 1e-3


def test_features_and_their_bins() -> None:
    english = ["Write a short letter to my landlord about the heating, please."]
    rows = [english] * 90 + [["Schreibe bitte einen kurzen Brief an meinen Vermieter."]] * 9 + [["Écris une lettre courte."]]
    rows += [[*english, "And make it longer, will you?", "Thank you very much!", "Now in one sentence only.", "Good."]] * 20
    found = features_of(rows, np.arange(len(rows)) % 3)
    assert list(found.columns) == [*FEATURES] and found[TURNS].value_counts().to_dict() == {"1": 100, "5 or more": 20}
    bins = Bins.of(found)
    assert bins.languages == ("de", "en")  # one of 120 is rare
    applied = bins.apply(found)
    assert set(applied[LANGUAGE]) == {"de", "en", "other"} and set(applied[TOPIC]) == {"0", "1", "2"}
    far = bins.apply(found.assign(**{LENGTH: 10_000}))
    assert set(far[LENGTH]) == {f"above {bins.edges[-1]:.0f}"}


def test_topics_are_those_of_words_and_the_same_each_time() -> None:
    cooking = [f"How do I bake bread with {question(n)} and flour in the oven for dinner" for n in range(40)]
    code = [f"Fix this python function {question(n + 99)} that raises an exception in a loop" for n in range(40)]
    pool, target = topics_of(cooking[:20] + code[:20], cooking[20:] + code[20:])
    assert len({*target.tolist()}) == 2 and len({*pool[:20].tolist()}) == len({*pool[20:].tolist()}) == 1
    assert pool[0] != pool[-1] and (target[:20] == pool[0]).all() and (target[20:] == pool[-1]).all()
    again = topics_of(cooking[:20] + code[:20], cooking[20:] + code[20:])
    assert (again[0] == pool).all() and (again[1] == target).all()


@pytest.mark.parametrize("texts", [["", ""], ["?"], ["a b c"] * 40, ["你好吗", "什么是爱"]])
def test_texts_with_little_in_them_have_topics_too(texts: list[str]) -> None:
    pool, target = topics_of(texts, texts)
    assert len(pool) == len(target) == len(texts)
