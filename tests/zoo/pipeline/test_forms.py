"""Forms of an entry: one checkpoint and one scoring each, everything before shared, and what names none as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo.contracts import (
    Entry,
    Held,
    QuantizeRequest,
    Request,
    ScoreRequest,
    Selection,
    Variant,
    entry_of_form,
    forms_of,
    spec_of_form,
)
from zoo.entries.load import load_entry, override
from zoo.errors import ZooError
from zoo.pipeline.chain import battles_input, chain, ladder_request
from zoo.store import fingerprint

PLAIN = "score.variants=[{order='ab',max_tokens=512},{order='ba',max_tokens=512}]"
BOTH = (
    "score.variants=[{order='ab',max_tokens=512},{order='ba',max_tokens=512},"
    "{order='ba',max_tokens=512,form='int8'},{order='ab',max_tokens=512,form='int8'},{order='ab',max_tokens=256,form='w4a8'}]"
)


def asked(entry: Entry, csv: Path, store: Path) -> list[Request]:
    return chain(entry, battles_input(csv), "cpu", store, held=Held(), selection=Selection(), source="hub")


@pytest.fixture
def both() -> Entry:
    return override(load_entry("smollm2-135m"), [BOTH])


def test_each_form_is_quantized_and_scored_once(both: Entry, sample_csv: Path, tmp_path: Path) -> None:
    requests = asked(both, sample_csv, tmp_path)
    assert [request.stage for request in requests] == ["fetch", "train", "merge", *["quantize"] * 3, *["score"] * 3]
    quantizes = [request for request in requests if isinstance(request, QuantizeRequest)]
    scores = [request for request in requests if isinstance(request, ScoreRequest)]
    assert [request.spec.scheme for request in quantizes] == ["awq", "int8", "w4a8"]
    assert [request.model.fingerprint for request in scores] == [fingerprint(request) for request in quantizes]
    slugs = [[variant.slug for variant in request.spec.variants] for request in scores]
    assert slugs == [["ab-512", "ba-512"], ["ba-512-int8", "ab-512-int8"], ["ab-256-w4a8"]]


def test_more_forms_leave_what_there_was_as_it_was(both: Entry, sample_csv: Path, tmp_path: Path) -> None:
    before = asked(override(load_entry("smollm2-135m"), [PLAIN]), sample_csv, tmp_path)
    after = asked(both, sample_csv, tmp_path)
    kept = [after[i] for i in (0, 1, 2, 3, 6)]
    assert list(map(fingerprint, kept)) == list(map(fingerprint, before))
    assert '"form"' not in before[-1].model_dump_json() and '"scheme"' not in before[3].model_dump_json()


def test_settings_of_one_form_do_not_touch_another(both: Entry) -> None:
    """Groups are not of int8, and what may stay in 16 bits is not of AWQ."""
    assert both.quantize is not None
    for form, setting in (("int8", "quantize.group_size=64"), ("awq", "quantize.finer_share=0")):
        changed = override(both, [setting]).quantize
        assert changed is not None and changed != both.quantize
        assert spec_of_form(changed, form) == spec_of_form(both.quantize, form)  # type: ignore[arg-type]


def test_a_ladder_has_the_forms_that_are_scored_as_its_first(both: Entry, sample_csv: Path, tmp_path: Path) -> None:
    requests = asked(both, sample_csv, tmp_path)
    request = ladder_request(both, requests, tmp_path)
    assert list(request.forms) == ["awq", "int8"], "w4a8 has another cap"
    assert request.forms["int8"].variant == Variant(order="ab", max_tokens=512, form="int8")
    plain = override(load_entry("smollm2-135m"), [PLAIN])
    alone = ladder_request(plain, asked(plain, sample_csv, tmp_path), tmp_path)
    assert '"more_forms"' not in alone.model_dump_json() and '"scheme"' not in alone.model_dump_json()


def test_one_form_of_an_entry_has_its_variants_alone(both: Entry) -> None:
    assert forms_of(both) == ("awq", "int8", "w4a8")
    for form in forms_of(both):
        assert forms_of(entry_of_form(both, form)) == (form,)
    assert forms_of(load_entry("lexical")) == ()


def test_one_checkpoint_is_not_scored_twice_by_two_names() -> None:
    twice = "score.variants=[{order='ab',max_tokens=512},{order='ab',max_tokens=512,form='awq'}]"
    with pytest.raises(ZooError, match=r"score\.variants\.1 is another one already"):
        override(load_entry("smollm2-135m"), [twice])
