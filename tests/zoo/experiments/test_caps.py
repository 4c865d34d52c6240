"""Ways to read rows: which variants are compared, what is refused before anything runs, and what their hours rest on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.tiny_models import TINY_ENTRY
from zoo.contracts import Entry, Variant, changed
from zoo.entries.load import load_entry
from zoo.errors import ZooError
from zoo.experiments.caps import USUAL_CAPS, Asked, check_priced, check_variants, variants_of

SMALL = load_entry("smollm2-135m")


def test_every_cap_with_every_way_and_the_entry_s_own_among_them() -> None:
    assert SMALL.prompt is not None
    template = SMALL.prompt.template.replace("Say A", "Answer A")
    asked = Asked((300, 256), ((0.2, 0.4, 0.4), (0.1, 0.45, 0.45)), ("both_ends",), (template, SMALL.prompt.template))
    variants, own = variants_of(SMALL, asked)
    assert own == Variant(max_tokens=512) and own in variants
    assert len(set(variants)) == len(variants) == 3 * 2 * 2 * 2  # caps, shares, ends, templates; its own named or not
    assert {variant.shares for variant in variants} == {None, (0.1, 0.45, 0.45)}
    assert [variant.max_tokens for variant in variants[:3]] == [256, 300, 512]  # longer ones take what is whole in shorter


def test_what_the_entry_s_own_variant_says_already_is_no_other_way() -> None:
    assert SMALL.score is not None
    entry = changed(SMALL, score=changed(SMALL.score, variants=(Variant(max_tokens=512, keep="end"),)))
    variants, own = variants_of(entry, Asked((512,), ((0.2, 0.4, 0.4),), ("end", "both_ends")))
    assert variants == (own, changed(own, keep="both_ends"))


def test_without_caps_they_are_the_usual_ones_that_the_model_was_made_for() -> None:
    variants, _ = variants_of(SMALL, Asked())
    assert tuple(variant.max_tokens for variant in variants) == USUAL_CAPS
    assert SMALL.shape is not None
    short = changed(SMALL, shape=changed(SMALL.shape, max_position_embeddings=1024))
    assert [variant.max_tokens for variant in variants_of(short, Asked())[0]] == [256, 512, 768]


def test_variants_have_the_order_and_the_form_of_the_entry_s_own() -> None:
    assert SMALL.score is not None
    both = tuple(Variant(order=order, max_tokens=512, form="int8") for order in ("ba", "ab"))
    entry = changed(SMALL, score=changed(SMALL.score, variants=both))
    assert variants_of(entry, Asked((256,)))[0] == (Variant(max_tokens=256, form="int8"), both[1])


def test_what_cannot_be_scored_or_priced_is_refused_before_anything_runs(tmp_path: Path) -> None:
    assert SMALL.score is not None
    with pytest.raises(ZooError, match="lexical entry reads no tokens"):
        variants_of(load_entry("lexical"), Asked())
    long = changed(SMALL, score=changed(SMALL.score, variants=variants_of(SMALL, Asked((9000,)))[0]))
    with pytest.raises(ZooError, match="9000 tokens a row"):
        check_variants(long, tmp_path)
    nameless = Entry.model_validate(TINY_ENTRY)  # no shape, so that its speed on another machine is not known
    with pytest.raises(ZooError, match="cannot be told"):
        check_priced(nameless, "t4x2", tmp_path)
    check_priced(nameless, "cpu", tmp_path)  # measured by the scoring itself
    check_priced(SMALL, "t4x2", tmp_path)
