"""Weights from elsewhere in a chain: what `zoo register` writes and puts into the store, and what follows from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.foreign import write_adapter
from tests.helpers.tiny_encoders import write_encoder
from tests.helpers.tiny_models import TEMPLATE
from zoo.contracts import AdoptRequest, Entry, Held, Input, MergeRequest, QuantizeRequest, ScoreRequest, Selection, changed
from zoo.cost.training import forecast_training
from zoo.data.learned import read_learned
from zoo.entries.load import read_entry
from zoo.errors import ZooError
from zoo.experiments.tune.run import tune
from zoo.experiments.tune.trials import TuneOptions
from zoo.pipeline.adopted import adopt_request, adopted
from zoo.pipeline.adoption import Offered, adopt, parse_adapters
from zoo.pipeline.chain import battles_input, ladder_request, train_requests
from zoo.pipeline.class_order import ORDERS, SIDES, exchange
from zoo.pipeline.folds import average_chain, fold_chains
from zoo.pipeline.weights import fetch_request, fetched_folder
from zoo.store import find, folder_fingerprint
from zoo.targets import load_target

PEFT = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "ORG/MODEL", "task_type": "CAUSAL_LM"}


def silent(_: str) -> None:
    """Where nobody is told."""


@pytest.fixture(scope="module")
def peft(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peft")
    for fold in range(2):
        write_adapter(tiny_llama, folder / str(fold), seed=fold)
    (folder / "prompt.txt").write_text(TEMPLATE)
    return folder


def registered(name: str, offered: Offered, place: Path) -> Entry:
    made = adopt(name, offered, "cpu", place / "entries", place / "store", silent)
    return read_entry(made.registered.path)


def chains(entry: Entry, csv: Path, store: Path, base: Path | None, n_folds: int) -> list[list[Any]]:
    source = str(base) if base else None
    held = Held(n_folds=n_folds)
    return fold_chains(entry, battles_input(csv), "cpu", store, held=held, selection=Selection(), source=source)


def test_an_adapter_takes_the_place_of_a_training(peft: Path, tiny_llama: Path, sample_csv: Path, tmp_path: Path) -> None:
    """The user's folder may go: what the entry names is in the store, and is found by its digest."""
    given = peft / "gone"
    shutil.copytree(peft / "0", given)
    offered = Offered((given,), None, str(tiny_llama), peft / "prompt.txt", None, "none")
    entry = registered("theirs", offered, tmp_path)
    shutil.rmtree(given)
    assert entry.train is None and entry.elsewhere is not None
    assert entry.prompt is not None and entry.prompt.template == TEMPLATE, "the tokenizer puts no token before a text"
    (requests,) = chains(entry, sample_csv, tmp_path / "store", tiny_llama, 5)
    assert [request.stage for request in requests] == ["fetch", "adopt", "merge", "quantize", "score"]
    assert requests[-1].selection.rows == "all", "no fold has an adapter of its own"
    found = find(tmp_path / "store", requests[1])
    assert found is not None and requests[2].adapter.path == found.path
    assert read_learned(found.path).known  # type: ignore[union-attr]
    ladder = ladder_request(entry, requests, tmp_path / "store")
    assert ladder.trained.path == found.path and ladder.method == "lora"
    with pytest.raises(ZooError, match="there is an entry 'theirs' already"):
        registered("theirs", offered, tmp_path)


def test_adapters_by_fold_make_a_chain_each_of_one_recipe(
    peft: Path, tiny_llama: Path, sample_csv: Path, tmp_path: Path
) -> None:
    offered = Offered(parse_adapters([f"1={peft / '1'}", f"0={peft / '0'}"]), None, str(tiny_llama), peft / "prompt.txt")
    entry = registered("folds", offered, tmp_path)
    made = chains(entry, sample_csv, tmp_path / "store", tiny_llama, 2)
    adopts = [next(r for r in requests if isinstance(r, AdoptRequest)) for requests in made]
    assert [(request.fold, request.folder.fingerprint) for request in adopts] == [
        (fold, folder_fingerprint(peft / str(fold))) for fold in range(2)
    ]
    assert all(find(tmp_path / "store", request) for request in adopts)
    assert [requests[-1].held.fold for requests in made] == [0, 1]
    merge = next(request for request in average_chain(made, tmp_path / "store") if isinstance(request, MergeRequest))
    assert len(merge.more_adapters) == 1
    with pytest.raises(ZooError, match="has adapters of 2 folds, and 5 are asked for; run it with --folds 2"):
        chains(entry, sample_csv, tmp_path / "store", tiny_llama, 5)


def test_one_adapter_has_no_folds_to_average(peft: Path, tiny_llama: Path, sample_csv: Path, tmp_path: Path) -> None:
    entry = registered("one", Offered((peft / "0",), None, str(tiny_llama), peft / "prompt.txt"), tmp_path)
    with pytest.raises(ZooError, match="no adapters to average"):
        average_chain(chains(entry, sample_csv, tmp_path / "store", tiny_llama, 5), tmp_path / "store")


def test_a_checkpoint_is_quantized_and_one_that_is_quantized_is_scored_as_it_is(
    tiny_llama: Path, sample_csv: Path, tmp_path: Path
) -> None:
    entry = registered("whole", Offered(checkpoint=tiny_llama), tmp_path)
    (requests,) = chains(entry, sample_csv, tmp_path / "store", None, 5)
    assert [request.stage for request in requests] == ["adopt", "quantize", "score"]
    assert fetched_folder(entry, tmp_path / "store") == find(tmp_path / "store", requests[0]).path / "model"  # type: ignore[union-attr]
    with pytest.raises(ZooError, match="a checkpoint from elsewhere, which `zoo register` put into the store"):
        fetch_request(entry, tmp_path / "store", source=str(tiny_llama))
    with pytest.raises(ZooError, match="has no ladder"):
        ladder_request(entry, requests, tmp_path / "store")

    served = tmp_path / "served"
    shutil.copytree(tiny_llama, served)
    config = json.loads((served / "config.json").read_text())
    group = {"weights": {"num_bits": 8, "type": "int"}, "input_activations": {"num_bits": 8}}
    spec = {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}
    (served / "config.json").write_text(json.dumps({**config, "quantization_config": spec}))
    entry = registered("served", Offered(checkpoint=served, trained_on="none"), tmp_path)
    (requests,) = chains(entry, sample_csv, tmp_path / "store", None, 5)
    assert [request.stage for request in requests] == ["adopt", "score"]
    assert requests[-1].model.path == tmp_path / "store" / f"adopt-{requests[-1].model.fingerprint}"
    assert entry.quantize is not None and entry.quantize.scheme == "int8", "what it costs goes by that"
    assert not any(isinstance(request, QuantizeRequest) for request in requests)
    assert isinstance(requests[-1], ScoreRequest) and adopted(entry, tmp_path / "store") is not None


def test_an_encoder_s_classifier_is_served_as_it_is(sample_csv: Path, tiny_llama: Path, tmp_path: Path) -> None:
    """Its prompt is that of its kind, or the text it was trained with between the tokens that its tokenizer puts around one."""
    from tokenizers import Tokenizer, processors

    theirs = write_encoder(tmp_path / "theirs", "DebertaV2", head="ForSequenceClassification", labels=3)
    tokenizer = Tokenizer.from_file(str(theirs / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(theirs / "tokenizer.json"))
    entry = registered("deberta", Offered(checkpoint=theirs, classes="b,a,tie", trained_on="none"), tmp_path)
    assert (entry.kind, entry.head, entry.train) == ("encoder", "classifier", None)
    assert entry.elsewhere is not None and entry.elsewhere.classes == ("b", "a", "tie")
    assert entry.prompt is not None and entry.prompt.template == "[CLS]{prompt}[SEP]{response_a}[SEP]{response_b}[SEP]"
    (requests,) = chains(entry, sample_csv, tmp_path / "store", None, 5)
    assert [request.stage for request in requests] == ["adopt", "score"]
    assert requests[-1].model.path == tmp_path / "store" / f"adopt-{requests[-1].model.fingerprint}"

    (tmp_path / "prompt.txt").write_text("Prompt: {prompt} A: {response_a} B: {response_b}")
    text = registered("text", Offered(checkpoint=theirs, template=tmp_path / "prompt.txt"), tmp_path)
    assert text.prompt is not None
    assert text.prompt.template == "[CLS]Prompt: {prompt} A: {response_a} B: {response_b}[SEP]"
    assert (text.prompt.max_tokens, text.prompt.keep) == (160, "both_ends"), "what its config.json has positions for"
    write_adapter(tiny_llama, tmp_path / "adapter", classifier=True)
    with pytest.raises(ZooError, match="an encoder, whose adapters from elsewhere are not merged here; merge it with peft"):
        registered("adapter", Offered((tmp_path / "adapter",), None, str(theirs)), tmp_path)


def test_a_prompt_comes_with_what_we_export(peft: Path, tiny_llama: Path, tmp_path: Path) -> None:
    """`zoo export` writes prompt.json beside the weights; a file that is named comes before it."""
    ours = tmp_path / "ours"
    shutil.copytree(peft / "0", ours)
    facts = {"template": TEMPLATE, "labels": ["B", "A", "tie"], "max_tokens": 77, "label_ids": [1, 2, 3], "order": "ab"}
    (ours / "prompt.json").write_text(json.dumps(facts))
    entry = registered("ours", Offered((ours,), None, str(tiny_llama)), tmp_path)
    assert entry.prompt is not None and (entry.prompt.labels, entry.prompt.max_tokens) == (("B", "A", "tie"), 77)
    assert entry.score is not None and {variant.max_tokens for variant in entry.score.variants} == {77}
    named = registered("named", Offered((ours,), None, str(tiny_llama), peft / "prompt.txt"), tmp_path)
    assert named.prompt is not None and named.prompt.labels == ("A", "B", "tie")


def test_nothing_is_written_where_weights_are_refused(peft: Path, tiny_llama: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(peft / "0", broken)
    (broken / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(ZooError, match="not a safetensors file"):
        registered("broken", Offered((broken,), None, str(tiny_llama)), tmp_path)
    assert not (tmp_path / "entries").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a", "b"], "several adapters are of folds"),
        (["0=a", "b"], "several adapters are of folds"),
        (["0=a", "2=b"], "folds 0, 2; give each from 0 on once"),
        (["0=a", "0=b"], "folds 0, 0"),
        (["0=a"], "at least two"),
    ],
)
def test_folds_of_adapters_are_told_apart(words: list[str], told: str) -> None:
    with pytest.raises(ZooError, match=told):
        parse_adapters(words)


def test_an_entry_says_one_thing_of_its_weights(peft: Path, tiny_llama: Path, tmp_path: Path) -> None:
    entry = registered("theirs", Offered((peft / "0",), None, str(tiny_llama), peft / "prompt.txt"), tmp_path)
    for wrong, told in (
        ({"train": {}}, r"\[train\] and \[elsewhere\]"),
        ({"merge": {"scale": "chosen"}}, "scale = 'chosen'"),
        ({"kind": "lexical", "lexical": {}}, "of language models"),
        ({"head": "classifier", "merge": {"scale": 0.5}}, "where a classifier from elsewhere began is not known"),
    ):
        with pytest.raises(ValueError, match=told):
            changed(entry, **wrong)


def test_what_is_of_a_training_is_refused_with_the_reason(
    peft: Path, tiny_llama: Path, sample_csv: Path, tmp_path: Path
) -> None:
    entry = registered("theirs", Offered((peft / "0",), None, str(tiny_llama), peft / "prompt.txt", None, "none"), tmp_path)
    target, store = load_target("t4x2"), tmp_path / "store"
    options, base = TuneOptions(sample_csv, Held(), 2), Input(path=tiny_llama, fingerprint="x")
    with pytest.raises(ZooError, match=r"theirs: its weights were trained elsewhere.*leave --train out"):
        forecast_training(entry, target, rows=None, lengths=None, folds=5, n_folds=5, store=store)
    with pytest.raises(ZooError, match=r"there is no \[train\] to tune"):
        tune(entry, options, store, say=silent)
    with pytest.raises(ZooError, match="theirs: its weights were trained elsewhere, and are not trained here"):
        train_requests(entry, store, base=base, battles=battles_input(sample_csv), held=Held())


def test_what_an_entry_asks_goes_by_digests_alone(peft: Path, tiny_llama: Path, tmp_path: Path) -> None:
    entry = registered("theirs", Offered((peft / "0",), None, str(tiny_llama), peft / "prompt.txt"), tmp_path)
    assert entry.elsewhere is not None
    asked = adopt_request(entry.name, entry.head, entry.elsewhere)
    assert str(tmp_path) not in asked.model_dump_json() and find(tmp_path / "store", asked) is not None


# --- who is believed --------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.sampled_from(ORDERS))
@settings(max_examples=25, deadline=None)
def test_an_exchange_of_classes_is_found_and_undone(seed: int, order: tuple[int, int, int]) -> None:
    """Answers that are calibrated, their classes given in any other order: exactly that order comes back."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet((0.6, 0.6, 0.6), 300)
    y = (p.cumsum(axis=1) > rng.random((300, 1))).argmax(axis=1)
    groups = np.arange(300)
    assert exchange(p, y, groups, errors=3) is None
    found = exchange(p[:, np.argsort(order)], y, groups, errors=3)
    assert found is not None and found.order == order and found.exchanged < found.given


def test_a_model_that_expects_another_share_of_ties_is_not_exchanged() -> None:
    """Raw log loss alone would call it so: the prior is wrong, the order is not."""
    rng = np.random.default_rng(0)
    odds = rng.normal(size=(600, 3)) * [1, 1, 0.1]
    fewer = np.array([0, 0, -2.0])
    truth = odds + fewer
    y = (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)
    told = odds - fewer  # far too many ties
    p = np.exp(told) / np.exp(told).sum(axis=1, keepdims=True)
    swapped = p[:, [2, 1, 0]]
    assert -np.log(swapped[np.arange(600), y]).mean() < -np.log(p[np.arange(600), y]).mean()
    assert exchange(p, y, np.arange(600), errors=3) is None
    assert exchange(p, y, np.arange(600), orders=(SIDES,), errors=3) is None
