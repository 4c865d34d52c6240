"""Regular expressions of others are matched as `re` does, in steps that grow with pattern and name and no faster."""

from __future__ import annotations

import re
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zoo.models import patterns
from zoo.models.patterns import MOST_CHARACTERS, Pattern, is_quick, read_pattern

ONES = ("a", "b", ".", r"\.", r"\d", "1", "[ab]", "[^.]", "[0-3]", r"[\d.]", "_", r"\w", "-")


def texts() -> st.SearchStrategy[str]:
    """What is read: characters and groups with what may stand behind them, alternatives, and ends."""
    one = st.tuples(st.sampled_from(ONES), st.sampled_from(["", "", "?", "*", "+"])).map("".join)
    end = st.sampled_from(["^", "$"])

    def of(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        ways = st.lists(inner, min_size=1, max_size=3).map("|".join)
        group = st.tuples(st.sampled_from(["(", "(?:"]), ways, st.sampled_from([")", ")?"])).map("".join)
        return st.lists(one | group | end, max_size=4).map("".join)

    return st.recursive(st.lists(one | end, max_size=4).map("".join), of, max_leaves=6)


NAMES = st.text("ab1._-", max_size=12)


def read(text: str) -> Pattern:
    found = read_pattern(text)
    assert found is not None, text
    return found


@given(texts(), NAMES)
@example("^a.b", "a1b")
@example("(a|b)?$", "1.b")
@example("", "a.")
def test_it_matches_what_peft_matches(text: str, name: str) -> None:
    """Oracle: the expression that peft makes of a key (peft.utils.get_pattern_key), by `re`."""
    assert read(text).ends(name) == bool(re.match(rf"(.*\.)?({text})$", name))


@given(st.text("ab(|)*+?[]^$\\.-{}1:!<=P", max_size=14), NAMES)
def test_what_is_read_is_a_pattern_of_re_and_means_the_same(text: str, name: str) -> None:
    found = read_pattern(text)
    if found is not None:
        assert found.ends(name) == bool(re.match(rf"(.*\.)?({text})$", name))


PEFT_S = {
    "q_proj": True,
    "mlp.up_proj": False,
    "^model.decoder.layers.0.encoder_attn.k_proj": False,
    r".*\.(q|k|v)_proj": True,
    r"layers\.[0-3]\.self_attn\..+": True,
    r"model\.layers\.\d+\.self_attn\.q_proj": True,
    "_proj": False,
}


@pytest.mark.parametrize("text", PEFT_S)
def test_patterns_as_peft_s_documents_have_them_are_read(text: str) -> None:
    assert read(text).ends("base_model.model.model.layers.3.self_attn.q_proj") == PEFT_S[text]
    assert is_quick(text)


@pytest.mark.parametrize(
    "text",
    [
        "(a+)+b",
        "(a|aa)*",
        r"(a)\1",
        "a{1000}",
        "(?=a)",
        "(?i)a",
        "(",
        ")",
        "a)|(b",
        "[z-a]",
        "*",
        "a**",
        r"\b",
        "[a",
        "a" * 201,
    ],
)
def test_anything_else_is_no_pattern(text: str) -> None:
    assert read_pattern(text) is None


BUSY = {
    "a?" * 60 + "a" * 60: False,  # 2 ** 60 ways
    "(a|a)" * 40: False,
    ".*" * 30 + "b": False,
    "(" * 60 + "a" + ")?" * 60 + "b": True,
    r".*layers\.\d+\.mlp\.experts\.\d+\..*_proj": True,
    r".*\.(?:1[0-5])\..*": True,
}


@pytest.mark.parametrize("text", BUSY)
def test_steps_grow_with_pattern_and_name_alone(text: str) -> None:
    """Counted, not timed: no pattern looks at more than each of its characters beside each of the name's."""
    name, found = "a" * 200, read(text)
    with mock.patch.object(patterns, "_is_one", side_effect=patterns._is_one) as looked:
        found.ends(name)
    assert looked.call_count <= len(text) * (len(name) + 1)
    assert is_quick(text) == BUSY[text], "for a matcher that tries one way after another"
    assert len(text) <= MOST_CHARACTERS


OF_OTHERS = (
    ".*lm_head",
    ".*mlp.gate$",
    "visual.*",
    "^(?!.*lm_head).*",
    r"(?!.*\.experts\.).*proj",
    r".*mlp\.experts\.\d+\.(gate|up|gate_up|down)_proj$",
    r"model[.]layers[.][0-9]{1,2}[.].*",
    r"(?i).*LM_HEAD",
    r".*layers\.(?:[0-9]|1\d|2[0-3])\.(?:self_attn|mlp)\..*",
    r".*(?<!shared_)experts.*",
    r"^model\.layers\.(?:\d+)\.linear_attn\.in_proj_(a|b)$",
    r".*(?:language|text).*(?:self_attn|mlp).*(?:q|k|v|o|gate|up|down)_proj.*",
)


@pytest.mark.parametrize("text", OF_OTHERS)
def test_what_people_write_for_engines_is_quick(text: str) -> None:
    re.compile(text)
    assert is_quick(text)


@pytest.mark.parametrize(
    "text",
    [
        "(a+)+b",
        "(a|aa)*b",
        "(?i)(?:ab|AB)*c",
        "(?i)(?:\u0131x|ix)*y",
        "(?:ab|ab|cd)*e",
        "(?!(a+)+b).*",
        "(a*)*",
        "(a?){60}a{60}",
        "((a{1,9}){1,9}){1,9}b",
        "(?:a|a)" * 40,
        ".*?" * 9 + "b",
        r"(a+)\1*b",
        r"(?P<x>a*)(?P=x)b",
        "(a)(?(1)b|c)",
        "(",
        "[z-a]",
        "(?<=a*)b",
        "a" * 1001,
        "a{99999999999999999999}",
    ],
)
def test_what_could_keep_an_engine_busy_is_not(text: str) -> None:
    assert not is_quick(text)
