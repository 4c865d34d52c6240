"""Variants written into an entry's file: what was there stays, comments and all, and the file is the entry that was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from zoo.contracts import Variant
from zoo.entries.load import load_entry, read_entry
from zoo.entries.variants import add_variants
from zoo.errors import ZooError

SMALL = ROOT / "zoo" / "entries" / "smollm2-135m.toml"
OWN = 'variants = [{ order = "ab", max_tokens = 512 }, { order = "ba", max_tokens = 512 }]'
FORMS = {
    "a list": OWN,
    "tables": '[[score.variants]]\norder = "ab"\nmax_tokens = 512\n\n[[score.variants]]\norder = "ba"\nmax_tokens = 512',
    "none": "",
}
NEW = (
    Variant(max_tokens=256),
    Variant(max_tokens=512),
    Variant(max_tokens=768, shares=(0.1, 0.45, 0.45), keep="both_ends", template='{prompt}\n"{response_a}"\n\\{response_b}\n'),
)


@pytest.mark.parametrize("form", FORMS)
def test_new_variants_join_the_known_ones_and_comments_stay(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_ENTRIES", str(tmp_path))
    path, text = tmp_path / "smollm2-135m.toml", SMALL.read_text()
    assert text.count(OWN) == 1
    path.write_text(text.replace(OWN, FORMS[form]))
    before = load_entry("smollm2-135m")
    assert before.score is not None
    written, new = add_variants("smollm2-135m", NEW)
    assert written == path and new == [variant for variant in NEW if variant not in before.score.variants]
    after = read_entry(path)
    assert after.score is not None and after.score.variants == (*before.score.variants, *new)
    assert after.model_copy(update={"score": before.score}) == before
    kept = path.read_text()
    assert all(line in kept for line in text.splitlines() if line.startswith("#"))
    assert add_variants("smollm2-135m", NEW) == (path, []) and path.read_text() == kept


def test_an_entry_of_the_package_is_copied_to_the_user_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_ENTRIES", str(tmp_path / "mine"))
    text = SMALL.read_text()
    written, new = add_variants("smollm2-135m", NEW[:1])
    assert written == tmp_path / "mine" / "smollm2-135m.toml" and new == [NEW[0]]
    score = load_entry("smollm2-135m").score
    assert score is not None and NEW[0] in score.variants and SMALL.read_text() == text


def test_variants_that_would_make_it_no_entry_leave_the_file_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_ENTRIES", str(tmp_path))
    path = tmp_path / "smollm2-135m.toml"
    path.write_text(SMALL.read_text())
    with pytest.raises(ZooError, match="another one already"):
        add_variants("smollm2-135m", (Variant(max_tokens=512, form="awq"),))
    assert path.read_text() == SMALL.read_text()
