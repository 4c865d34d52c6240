"""Every committed entry is valid; faults of an entry file are named with the file, the key and the nearest known key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.contracts import Entry
from zoo.entries.load import entry_names, load_entry, read_entry
from zoo.errors import ZooError
from zoo.settings import entry_folders

COMMITTED = sorted(entry_folders()[0].rglob("*.toml"))


def test_there_are_entries() -> None:
    assert {p.stem for p in COMMITTED} >= {"smollm2-135m", "lexical", "llama-3-8b", "gemma-2-9b", "yi-34b"}


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: p.stem)
def test_committed_entry_is_valid(path: Path) -> None:
    entry = read_entry(path)
    assert load_entry(entry.name) == entry
    if entry.kind == "causal_lm":
        assert entry.score is not None and entry.prompt is not None
        slugs = [v.slug for v in entry.score.variants]
        assert len(set(slugs)) == len(slugs), "variants of an entry need different slugs"
        assert all(v.max_tokens is not None for v in entry.score.variants), "a language model needs a token cap"
        assert entry.prompt.template.index("{prompt}") < entry.prompt.template.index("{response_a}"), "prompt first"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def changed(old: str, new: str, name: str = "smollm2-135m") -> str:
    text = (entry_folders()[0] / f"{name}.toml").read_text()
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("learning_rate", "learning_rat", "unknown key `train.learning_rat`; did you mean `learning_rate`?"),
        ("version", "versoin", "unknown key `versoin`; did you mean `version`?"),
        ("[quantize]", "[quantise]", "unknown key `quantise`; did you mean `quantize`?"),
        ("[quantize]", "[quantize]\nlearning_rate = 1", "unknown key `quantize.learning_rate`; it belongs in [train]"),
        ("{ order", "{ ordr", "unknown key `score.variants.0.ordr`; did you mean `order`?"),
        ("[score]", "[serve.t4x2]\nlayot = 1\n[score]", "unknown key `serve.t4x2.layot`; did you mean `layout`?"),
        ("group_size = 32", "group_size = -1", "`quantize.group_size`: Input should be greater than 0, got -1"),
        ("{prompt}", "{question}", "`prompt`: prompt.template must hold {prompt} exactly once"),
        ("[quantize]", "[[quantize]]", "`quantize`"),
        ("name =", "name", "not TOML"),
        ("[base]", "[based]", "unknown key `based`; did you mean `base`?"),
        ("hub_id", "# hub_id", "key `base.hub_id` is missing"),
        ('{ order = "ab", max_tokens = 512 }', '{ order = "ab" }', "score.variants.0 has no token cap; give it one"),
    ],
)
def test_faults_are_named(tmp_path: Path, old: str, new: str, expected: str) -> None:
    path = write(tmp_path, "smollm2-135m", changed(old, new))
    with pytest.raises(ZooError) as caught:
        read_entry(path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_section_is_named(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"a causal_lm entry needs \[base\], \[prompt\]"):
        read_entry(write(tmp_path, "x", 'name = "x"'))


def test_name_must_match_the_file(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="differs from the file name"):
        read_entry(write(tmp_path, "other", changed("x", "x")))


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="cannot be read"):
        read_entry(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(ZooError, match="not TOML"):
        read_entry(tmp_path / "latin.toml")


def test_unknown_entry_suggests_the_nearest() -> None:
    with pytest.raises(ZooError, match="did you mean 'smollm2-135m'"):
        load_entry("smolm2-135")
    with pytest.raises(ZooError, match="known: deberta-v3-base"):
        load_entry("qqqqqqq")


def test_users_folder_comes_first_and_adds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "lexical", changed("folds = 5", "folds = 7", "lexical"))
    write(tmp_path, "mine", changed('"lexical"', '"mine"', "lexical"))
    monkeypatch.setenv("ZOO_ENTRIES", str(tmp_path))
    lexical = load_entry("lexical").lexical
    assert lexical is not None and lexical.folds == 7
    assert "mine" in entry_names()
    assert [load_entry(name).name for name in entry_names()] == entry_names()


@given(
    st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2))
)
def test_any_mapping_is_an_entry_or_one_line(raw: dict[str, object]) -> None:
    from pydantic import ValidationError

    from zoo.contracts import explain

    try:
        Entry.model_validate(raw)
    except ValidationError as error:
        assert explain(error, Entry)
