"""Classifiers and encoders that are exported: transformers, peft and vLLM answer with them as this project does.

Oracle: the project's own evaluation of the artifacts that the folders were made of, in float32. The trainings are made by hand.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.classifiers import write_causal
from tests.helpers.exports import CARD_BATTLE, Made, answers_of, card_code, exported, make_store
from tests.helpers.manifests import finished, input_of, partial_folder
from tests.helpers.requests import given, quantize_request
from tests.helpers.tiny_encoders import encoder_entry, write_encoder
from tests.helpers.tiny_models import TEMPLATE, TINY_ENTRY, write_tiny_llama, write_tokenizer
from zoo.bundle.asking import asking_of, complete_classifier, padding_of
from zoo.contracts import Entry, MergeRequest, MergeSpec, PromptSpec, ScoreSpec, ServeSpec, TrainSpec, Variant, changed
from zoo.data.battles import read_battles
from zoo.entries.load import read_entry
from zoo.errors import ZooError
from zoo.models.plain_text import plain_tokenizer
from zoo.models.prompts import Codec, Turns, encode_battles, load_codec
from zoo.pipeline.adoption import Offered, adopt
from zoo.report.run_report import find_run
from zoo.scores.tables import label_probabilities
from zoo.stages.compare.in_transformers import adapted_model, model_probabilities, plain_model
from zoo.stages.quantize import stage as quantize
from zoo.stages.score.in_transformers import Engine, engine_arguments
from zoo.stages.train.classifier import learned_uncapped
from zoo.stages.weights import merge
from zoo.store import Artifact

DECODERS = ("llama", "gemma2", "ends in a pad")
ENCODERS = ("DebertaV2", "ModernBert", "Bert", "Roberta")
EVERY = (*DECODERS, *ENCODERS)
PAD_LAST = TEMPLATE.removesuffix("<|end|>\n") + "<pad>"  # where a model pads with what ends a turn
CLOSE = 1e-4


@pytest.fixture(scope="module", autouse=True)
def float32() -> Any:
    """What is computed in this process is in float32, also on processors with bfloat16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.stages.device.processor_has_bfloat16", lambda: False)
        yield


def write_base(folder: Path, family: str) -> Path:
    """A tiny base in float32, so that what its own dtype rounds is no part of a difference."""
    if family in ENCODERS:
        return write_encoder(folder, family)
    from transformers import AutoModelForCausalLM

    if family == "gemma2":
        write_causal(folder, family)
        write_tokenizer(folder)
    else:
        write_tiny_llama(folder, initializer_range=0.1)
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).save_pretrained(folder)
    return folder


def entry_of(family: str, method: str, **more: Any) -> Entry:
    train = {"rank": 4, "alpha": 8, "method": method}
    if family in ENCODERS:
        return Entry.model_validate(encoder_entry(family, train=train, **more))
    prompt = {"template": PAD_LAST if family == "ends in a pad" else TEMPLATE, "max_tokens": 160}
    return Entry.model_validate({**TINY_ENTRY, "head": "classifier", "train": train, "prompt": prompt, **more})


class Stores:
    """Stores of every family and method, each made once."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.made: dict[tuple[str, str], tuple[Entry, Path, Made]] = {}

    def __call__(self, family: str, method: str = "lora", **more: Any) -> tuple[Entry, Path, Made]:
        """The entry, its base's folder, and the artifacts."""
        key = (family, method + str(more))
        if key not in self.made:
            place = self.place / f"{len(self.made)}"
            base, entry = write_base(place / "base", family), entry_of(family, method, **more)
            self.made[key] = entry, base, make_store(entry, base, place / "store")
        return self.made[key]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return Stores(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def battles(sample_csv: Path) -> list[tuple[Turns, Turns, Turns]]:
    frame = read_battles(sample_csv).frame.head(11)
    return [*zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True)]


def prompt_of(entry: Entry) -> PromptSpec:
    assert entry.prompt is not None
    return entry.prompt


def rows_of(base: Path, entry: Entry, battles: list[tuple[Turns, Turns, Turns]]) -> list[list[int]]:
    spec = prompt_of(entry)
    return [row.ids for row in encode_battles(battles, load_codec(base, spec), spec, "ab")]


def ours(load: Any, base: Path, entry: Entry, battles: list[tuple[Turns, Turns, Turns]]) -> np.ndarray:
    """Probabilities (rows, 3) by the project's own evaluation, as the ladder and caps have it."""
    codec = load_codec(base, prompt_of(entry))
    found = model_probabilities(load, rows_of(base, entry, battles), codec, "ab", "test")
    assert np.ptp(found, axis=0).max() > 0.01, "else anything would agree"
    return found


def by_transformers(folder: Path, model: Any, rows: list[list[int]]) -> np.ndarray:
    """Probabilities of padded batches by a model of transformers or peft, and by what lies in the folder."""
    from transformers import AutoTokenizer

    asked, tokenizer = json.loads((folder / "prompt.json").read_text()), AutoTokenizer.from_pretrained(folder)
    for piece in ("what is the capital of ", " hot\n\ncold"):
        expected = load_tokenizer(folder).encode(piece, add_special_tokens=False).ids
        assert tokenizer(piece, add_special_tokens=False).input_ids == expected
    found = []
    for start in range(0, len(rows), 4):
        batch = tokenizer.pad({"input_ids": rows[start : start + 4]}, padding_side="right", return_tensors="pt")
        with torch.no_grad():
            found.append(model(**batch).logits)
    logits = torch.cat(found).numpy()
    cap = asked["softcap"]
    return label_probabilities(cap * np.tanh(logits / cap) if cap else logits, asked["order"])


def load_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("family", EVERY)
def test_transformers_alone_answers_as_we_do(
    family: str, method: str, stores: Stores, battles: list[tuple[Turns, Turns, Turns]], tmp_path: Path
) -> None:
    """Merged and fully trained weights, in padded batches of rows of unlike lengths; nothing in them is made at random."""
    from transformers import AutoModelForSequenceClassification

    entry, base, made = stores(family, method)
    artifact = made["merge"][0]
    folder = exported(artifact, tmp_path / "out", "merged")["merged"].path
    model, told = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not told["missing_keys"] and not told["unexpected_keys"]
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {"0": "a", "1": "b", "2": "tie"} and model.config.num_labels == 3
    assert config["label2id"] == {"a": 0, "b": 1, "tie": 2}
    expected = ours(lambda: plain_model(artifact.path / "model", torch.float32), base, entry, battles)
    assert np.abs(by_transformers(folder, model, rows_of(base, entry, battles)) - expected).max() < CLOSE
    if family in ENCODERS:
        spec = ScoreSpec(engine="transformers", variants=(Variant(max_tokens=96),))
        rows = [np.array(row, dtype=np.int32) for row in rows_of(base, entry, battles)]
        scored = Engine(engine_arguments(artifact.path / "model", spec, ServeSpec())).score(rows)
        assert np.abs(label_probabilities(scored.logits, "ab") - expected).max() < CLOSE
    if method == "full":  # the same, of the training itself
        trained = exported(made["train"][0], tmp_path / "trained")["merged"].path
        again = AutoModelForSequenceClassification.from_pretrained(trained, dtype=torch.float32, attn_implementation="eager")
        assert np.abs(by_transformers(trained, again, rows_of(base, entry, battles)) - expected).max() < CLOSE


@pytest.mark.parametrize("family", EVERY)
def test_peft_alone_answers_as_we_do(
    family: str,
    stores: Stores,
    battles: list[tuple[Turns, Turns, Turns]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the name of the base that the adapter has, which here is a folder's."""
    from peft import AutoPeftModelForSequenceClassification

    entry, base, made = stores(family)
    artifact = made["train"][0]
    folder = exported(artifact, tmp_path / "out", "adapter")["adapter"].path
    assert entry.base is not None
    (tmp_path / entry.base.hub_id).parent.mkdir()
    shutil.copytree(base, tmp_path / entry.base.hub_id)
    monkeypatch.chdir(tmp_path)
    padding = json.loads((folder / "prompt.json").read_text())["pad_token_id"]
    model = AutoPeftModelForSequenceClassification.from_pretrained(
        folder, num_labels=3, pad_token_id=padding, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    adapter = artifact.path / "adapter"
    expected = ours(lambda: adapted_model(base, adapter, TrainSpec(method="lora")), base, entry, battles)
    assert np.abs(by_transformers(folder, model, rows_of(base, entry, battles)) - expected).max() < CLOSE


@pytest.mark.parametrize("family", ["llama", "ModernBert"])
def test_the_average_of_folds_is_exported_as_one_model(
    family: str, stores: Stores, battles: list[tuple[Turns, Turns, Turns]], tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    entry, base, made = stores(family)
    own, _, average = made["merge"]
    written = exported(average, tmp_path / "out")
    assert list(written) == ["merged"], "none of its adapters is the average"
    folder = written["merged"].path
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    found = by_transformers(folder, model, rows_of(base, entry, battles))
    whole, alone = (
        ours(lambda path=one.path: plain_model(path / "model", torch.float32), base, entry, battles) for one in (average, own)
    )
    assert np.abs(found - whole).max() < CLOSE < np.abs(found - alone).max()


def test_an_adapter_that_is_merged_in_part_is_exported_as_that_part(
    stores: Stores, battles: list[tuple[Turns, Turns, Turns]], tmp_path: Path
) -> None:
    """Head and body alike: the adapter beside its base is the merged weights."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    entry, base, made = stores("llama", merge=MergeSpec(scale=0.5).model_dump())
    written = exported(made["merge"][0], tmp_path / "out")
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, dtype=torch.float32)
    model = PeftModel.from_pretrained(plain, written["adapter"].path).eval()
    merged = AutoModelForSequenceClassification.from_pretrained(written["merged"].path, dtype=torch.float32)
    rows = rows_of(base, entry, battles)
    beside, whole = (by_transformers(written[form].path, one, rows) for form, one in (("adapter", model), ("merged", merged)))
    assert np.abs(beside - whole).max() < CLOSE


# --- cards ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What every card's code answers as it stands, in one process that cannot import this project.

    By family those of an adapter and of merged weights; `nf4`: of an adapter that learned on such.
    """
    place, codes = tmp_path_factory.mktemp("cards"), []
    for family in EVERY:
        _, base, made = stores(family)
        written = exported(made["merge"][0], place / family)
        codes += ["\n".join(card_code(written[form].path, base=base)[:2]) for form in ("adapter", "merged")]
    _, base, made = stores("llama", "qlora")
    written = exported(made["train"][0], place / "nf4", "adapter")
    codes.append("\n".join(card_code(written["adapter"].path, base=base)[:2]))
    answers = np.array([[*answer.values()] for answer in answers_of(codes, place)])
    return {family: answers[2 * number :][:2] for number, family in enumerate((*EVERY, "nf4"))}


@pytest.mark.parametrize("family", EVERY)
def test_cards_answer_by_themselves(family: str, stores: Stores, told: dict[str, np.ndarray]) -> None:
    entry, base, made = stores(family)
    battle = [tuple([text] for text in CARD_BATTLE.values())]
    codec, rows = load_codec(base, prompt_of(entry)), rows_of(base, entry, battle)  # type: ignore[arg-type]
    adapter, merged = made["train"][0].path / "adapter", made["merge"][0].path / "model"
    expected = [
        model_probabilities(load, rows, codec, "ab", "test")[0]
        for load in (
            lambda: adapted_model(base, adapter, TrainSpec(method="lora")),
            lambda: plain_model(merged, torch.float32),
        )
    ]
    assert np.abs(told[family] - expected).max() < CLOSE


def test_a_card_asks_an_adapter_of_nf4_weights_on_such(stores: Stores, told: dict[str, np.ndarray]) -> None:
    """The body is rounded, the head is not. The card multiplies in bfloat16 and the oracle in float32."""
    entry, base, made = stores("llama", "qlora")
    battle = [tuple([text] for text in CARD_BATTLE.values())]
    codec, rows = load_codec(base, prompt_of(entry)), rows_of(base, entry, battle)  # type: ignore[arg-type]
    adapter = made["train"][0].path / "adapter"
    rounded, plain = (
        model_probabilities(
            lambda method=method: adapted_model(base, adapter, TrainSpec(method=method)),  # type: ignore[misc]
            rows,
            codec,
            "ab",
            "test",
        )[0]
        for method in ("qlora", "lora")
    )
    off = np.abs(told["nf4"] - rounded).max()
    assert off < 0.02 and off < np.abs(rounded - plain).max()


@pytest.mark.parametrize("family", EVERY)
def test_a_card_s_code_reads_battles_as_training_does(
    family: str, stores: Stores, battles: list[tuple[Turns, Turns, Turns]], tmp_path: Path
) -> None:
    """Of every kind of tokenizer, and of battles that are cut. Oracle: the project's own encoding."""
    entry, base, made = stores(family)
    folder = exported(made["merge"][0], tmp_path / "out", "merged")["merged"].path
    spec, cut = prompt_of(entry), 0
    for turns in battles:
        texts = ["\n\n".join(map(str, field)) * 3 for field in turns]
        names: dict[str, Any] = {}
        exec(card_code(folder, battle=dict(zip(CARD_BATTLE, texts, strict=True)))[0], names)
        (expected,) = encode_battles([([texts[0]], [texts[1]], [texts[2]])], load_codec(base, spec), spec, "ab")
        assert names["ids"] == expected.ids
        cut += expected.n_truncated > 0
    assert cut > 3


def test_a_card_tells_where_the_head_reads_and_what_pads(stores: Stores, tmp_path: Path) -> None:
    for family, reads, pad in (("llama", "last token", 0), ("Roberta", "first token", 1), ("ModernBert", "first token", 0)):
        folder = exported(stores(family)[2]["merge"][0], tmp_path / family, "merged")["merged"].path
        asked, card = json.loads((folder / "prompt.json").read_text()), (folder / "README.md").read_text()
        assert (asked["reads"], asked["pad_token_id"], asked["softcap"]) == (reads, pad, None)
        assert f"reads the {reads}'s final state: `a` (A wins), `b` (B wins), `tie` (tie)" in card
        assert "softcap" not in card and 'pipeline_tag: "text-classification"' in card
    folder = exported(stores("gemma2")[2]["merge"][0], tmp_path / "gemma2", "merged")["merged"].path
    assert json.loads((folder / "prompt.json").read_text())["softcap"] == 4.0
    assert "4 * tanh(logit / 4)" in (folder / "README.md").read_text()


def test_the_padding_token_is_never_the_template_s_last(stores: Stores, tmp_path: Path) -> None:
    """Else transformers would read a token further left, where the model has answered nothing."""
    _, base, made = stores("ends in a pad")
    folder = exported(made["merge"][0], tmp_path / "out", "merged")["merged"].path
    before, after = (json.loads((place / "config.json").read_text())["pad_token_id"] for place in (base, folder))
    assert load_tokenizer(folder).encode("<pad>", add_special_tokens=False).ids == [before]
    assert after != before and json.loads((folder / "tokenizer_config.json").read_text())["pad_token"] != "<pad>"


@pytest.mark.parametrize(
    ("template", "own", "expected"),
    [
        ("<s>{prompt} {response_a} {response_b}<end>", "<unk>", "<unk>"),
        ("<s>{prompt} {response_a} {response_b}", "<unk>", "<end>"),  # any row may end with what the vocabulary lacks
        ("<s>{prompt} {response_a}<end>{response_b}", "<unk>", None),  # and one whose last field is empty with <end>
        ("<s>{prompt} {response_a} {response_b}<end>", "a", "<unk>"),  # which would be split off in every text
        ("<s>{prompt} {response_a} {response_b}<unk>", None, "<s>"),
    ],
)
def test_padding_is_no_token_that_a_row_can_end_with(
    template: str, own: str | None, expected: str | None, tmp_path: Path
) -> None:
    """Of a tokenizer whose unknown token is special, as Llama 2's is, and which has none that is called padding."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = ["<unk>", "<s>", "<end>", *"abtAB ", "tie"]
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.add_special_tokens([name for name in names if name.startswith("<")])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    codec = Codec(
        literals=tuple(tuple(tokenizer.encode(piece).ids) for piece in re.split(r"\{\w+\}", template)),
        fields=("prompt", "response_a", "response_b"),
        encode_text=lambda texts: [plain_tokenizer(content).encode(text).ids for text in texts],
        label_ids=(0, 1, 2),
    )
    config = {"vocab_size": len(names), "pad_token_id": None if own is None else names.index(own)}
    if expected is None:
        with pytest.raises(ZooError, match="end it in text"):
            padding_of(config, codec, content)
    else:
        assert names[padding_of(config, codec, content)] == expected


def test_a_folder_s_own_settings_of_its_tokenizer_change_nothing(stores: Stores, tmp_path: Path) -> None:
    """Neither a family's class, which would split texts its own way, nor a padding token that is not the model's."""
    from transformers import AutoTokenizer

    folder = exported(stores("llama")[2]["merge"][0], tmp_path / "out", "merged")["merged"].path
    asking = asking_of(folder, folder, "merged", prompt_of(stores("llama")[0]), nf4=False, capped=True)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", "pad_token": "<|end|>"}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<|user|>", "eos_token": "<|end|>"}))
    complete_classifier(folder, asking)
    tokenizer, text = AutoTokenizer.from_pretrained(folder), "what is the capital of hot\n\ncold"
    assert tokenizer.pad_token_id == asking.pad_token_id and tokenizer.eos_token == "<|end|>"
    expected = load_tokenizer(folder).encode(text, add_special_tokens=False).ids
    assert tokenizer(text, add_special_tokens=False) == {"input_ids": expected, "attention_mask": [1] * len(expected)}


# --- back again -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_what_was_exported_is_registered_with_its_soft_cap(
    form: str, stores: Stores, battles: list[tuple[Turns, Turns, Turns]], tmp_path: Path
) -> None:
    """A classifier of transformers learned without one; of ours prompt.json says that it did with it."""
    own, base, made = stores("gemma2")
    folder = exported(made["merge"][0], tmp_path / "out", form)[form].path
    if form == "adapter":
        offered = Offered((folder,), None, str(base), None, None, "none")
    else:
        offered = Offered((), folder, None, None, None, "none")
    made_again = adopt("again", offered, "cpu", tmp_path / "entries", tmp_path / "store", lambda _: None)
    entry = read_entry(made_again.registered.path)
    assert entry.head == "classifier" and entry.prompt is not None and entry.prompt.template == TEMPLATE
    (adopted,) = (path for path in (tmp_path / "store").glob("adopt-*"))
    model = adopted / "model"
    if form == "adapter":
        again = find_run(tmp_path / "store", adopted.name)
        assert not learned_uncapped(again.artifacts[0].path)
        (tmp_path / "merged").mkdir()
        spec = MergeSpec(into="original")
        request = MergeRequest(entry="again", base=given(made["fetch"][0].path), adapter=given(adopted), spec=spec)
        merge.run(request, tmp_path / "merged")
        model = tmp_path / "merged" / "model"
    assert json.loads((model / "config.json").read_text())["final_logit_softcapping"] == 4.0
    expected, found = (
        ours(lambda folder=folder: plain_model(folder, torch.float32), base, own, battles)
        for folder in (made["merge"][0].path / "model", model)
    )
    assert np.abs(found - expected).max() < CLOSE


# --- quantized --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quantized(stores: Stores, sample_csv: Path) -> dict[str, Artifact]:
    """A classifier's quantized forms, the training that they come from removed."""
    entry, base, _ = stores("llama")
    place = stores.place / "quantized"
    made = make_store(entry, base, place / "store")
    found = {}
    for form in ("awq", "int8"):
        merged = made["merge"][0]
        request = changed(quantize_request(merged.path, sample_csv, scheme=form), model=input_of(merged))
        quantize.run(request, partial_folder(place / "store", request))
        found[form] = finished(place / "store", request)
    shutil.rmtree(made["train"][0].path)
    return found


@pytest.mark.parametrize("form", ["awq", "int8"])
def test_a_quantized_classifier_is_written_for_the_pooling_runner(
    form: str, quantized: dict[str, Artifact], tmp_path: Path
) -> None:
    """Its head is as it was, and is said to be; what transformers takes is said and not promised."""
    made = exported(quantized[form], tmp_path / "out")
    assert list(made) == ["merged", form]
    folder, before = made[form].path, json.loads((quantized[form].path / "model" / "config.json").read_text())
    after = json.loads((folder / "config.json").read_text())
    assert after["quantization_config"] == before["quantization_config"] and after["pad_token_id"] == 0
    _, pooling = card_code(folder)
    assert 'runner="pooling"' in pooling and '"LlamaForCausalLM"' in pooling and "use_activation=False" in pooling
    package = "gptqmodel" if form == "awq" else "compressed-tensors"
    assert package in (folder / "README.md").read_text()


# --- vLLM -------------------------------------------------------------------------------------------------------------


@pytest.mark.chain
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("family", "dtype", "most"), [("llama", None, 0.02), ("gemma2", "float32", CLOSE)])
def test_vllm_alone_answers_as_we_do(
    family: str, dtype: str | None, most: float, stores: Stores, battles: list[tuple[Turns, Turns, Turns]], tmp_path: Path
) -> None:
    """The card's code for its own battle, then the same engine is asked others by the same lines.

    As it stands, in which vLLM takes 16 bits for weights of 32, and told to keep them.
    """
    entry, base, made = stores(family)
    folder = exported(made["merge"][0], tmp_path / "out", "merged")["merged"].path
    asked: list[tuple[Turns, Turns, Turns]] = [tuple([text] for text in CARD_BATTLE.values()), *battles[:5]]  # type: ignore[list-item]
    read, _, pooling = card_code(folder)
    load, ask = pooling.split("raw = ")
    if dtype is not None:
        load = load.replace('convert="classify",', f'convert="classify",\n    dtype={dtype!r},')
    codes = [read + load + "raw = " + ask]
    for turns in asked[1:]:
        texts = ["\n\n".join(map(str, field)) for field in turns]
        codes.append(card_code(folder, battle=dict(zip(CARD_BATTLE, texts, strict=True)))[0] + "raw = " + ask)
    told = np.array([[*answer.values()] for answer in answers_of(["\n".join(codes)], tmp_path)])
    expected = ours(lambda: plain_model(made["merge"][0].path / "model", torch.float32), base, entry, asked)
    assert np.abs(told - expected).max() < most
