"""TOML that is written is read back as what it was."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.contracts import Entry
from zoo.entries.load import entry_names, load_entry
from zoo.entries.toml import contract_toml, document
from zoo.targets import Target, list_targets

TEXT = st.text(alphabet=st.characters(exclude_categories=("Cs",)) | st.sampled_from('\n\t"\\\r#'), max_size=20)
PLAIN = TEXT | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
LISTS = st.lists(PLAIN, max_size=3) | st.lists(st.dictionaries(TEXT, PLAIN, min_size=1, max_size=3), max_size=3)
TABLES = st.dictionaries(TEXT, PLAIN | LISTS | st.dictionaries(TEXT, PLAIN | LISTS, min_size=1, max_size=3), max_size=5)


@given(TABLES)
def test_any_settings_survive(settings: dict[str, object]) -> None:
    assert tomllib.loads(document(settings, head="settings")) == settings


@pytest.mark.parametrize("name", entry_names())
def test_entries_survive(name: str) -> None:
    assert Entry.model_validate(tomllib.loads(contract_toml(load_entry(name)))) == load_entry(name)


@pytest.mark.parametrize("target", list_targets(), ids=lambda target: target.name)
def test_targets_survive(target: Target) -> None:
    assert Target.model_validate(tomllib.loads(contract_toml(target))) == target


def test_comments_stand_behind_what_they_are_about() -> None:
    text = document({"a": {"b": 1}, "c": {"t4.2": {"d": "x"}}}, {"a": "table", "a.b": "one", "c.t4.2.d": "deep"}, head="top")
    assert text == '# top\n\n[a] # table\nb = 1 # one\n\n[c."t4.2"]\nd = "x" # deep\n'
