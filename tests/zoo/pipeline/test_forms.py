"""Forms of an entry: one checkpoint and one scoring each, everything before shared, and what names none as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.manifests import finished
from zoo.contracts import (
    Entry,
    Held,
    MergeRequest,
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
from zoo.experiments.run import RunOptions, entry_chains, run_entry
from zoo.pipeline.chain import battles_input, chain, ladder_request
from zoo.pipeline.folds import average_chain
from zoo.pipeline.judges import as_declared
from zoo.report.views import run_page, run_record
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


def test_a_ladder_takes_of_each_form_the_variant_scored_alike(sample_csv: Path, tmp_path: Path) -> None:
    """Also where that is not the form's first."""
    variants = "{order='ab',max_tokens=512},{order='ab',max_tokens=256,form='int8'},{order='ab',max_tokens=512,form='int8'}"
    entry = override(load_entry("smollm2-135m"), [f"score.variants=[{variants}]"])
    request = ladder_request(entry, asked(entry, sample_csv, tmp_path), tmp_path)
    assert {form: of.variant.slug for form, of in request.forms.items()} == {"awq": "ab-512", "int8": "ab-512-int8"}


@pytest.mark.parametrize("setting", ["score.variants=[{order='ab',form='int8'}]"])
def test_what_is_not_quantized_has_no_forms(setting: str) -> None:
    with pytest.raises(ZooError, match=r"form = 'int8' is of quantized checkpoints, and a lexical entry has none"):
        override(load_entry("lexical"), [setting])


def test_the_average_of_folds_is_told_in_every_form(both: Entry, sample_csv: Path, tmp_path: Path) -> None:
    options = RunOptions("quantize", sample_csv, "cpu", Held(n_folds=2), every_fold=True, average=True)
    chains = entry_chains(both, options, tmp_path)
    averaging = average_chain(chains, tmp_path)
    for requests in (*chains, averaging):
        for request in requests:
            if not isinstance(request, ScoreRequest) and not (tmp_path / f"{request.stage}-{fingerprint(request)}").exists():
                finished(tmp_path, request)
    made = run_entry(both, options, tmp_path, say=lambda _: None)
    assert [artifact.fingerprint for artifact in made.averaged] == [fingerprint(request) for request in averaging[1:]]
    assert len(run_record(made.artifacts, [], made.averaged, [])["averaged"]) == 3
    assert [str(artifact.path) for artifact in made.averaged] == run_page(made.artifacts, [], made.averaged)[-3:]


def test_a_judges_checkpoint_scores_the_variants_of_its_own_form(both: Entry, sample_csv: Path, tmp_path: Path) -> None:
    """A merged model has no form: each order and cap once."""
    requests = asked(both, sample_csv, tmp_path)
    found = {}
    for request in requests:
        if isinstance(request, MergeRequest | QuantizeRequest):
            name = request.spec.scheme if isinstance(request, QuantizeRequest) else "merged"
            found[name] = [variant.slug for variant in as_declared(both, "cpu", request)[0].variants]
    assert found == {
        "merged": ["ab-512", "ba-512", "ab-256"],
        "awq": ["ab-512", "ba-512"],
        "int8": ["ba-512-int8", "ab-512-int8"],
        "w4a8": ["ab-256-w4a8"],
    }
