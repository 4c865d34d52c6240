"""Weights from elsewhere are what their trainers' own libraries compute, under today's names; what is not is one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.foreign import gptq_folder, last_logits, loaded, write_adapter
from tests.helpers.requests import given
from tests.helpers.tiny_encoders import encoder_answers, write_encoder
from tests.helpers.tiny_models import write_tiny_llama
from zoo.contracts import AdoptRequest, Encoder, Input, MergeRequest, MergeSpec
from zoo.errors import ZooError
from zoo.models.encoders import FAMILIES
from zoo.stages.weights import adopt, merge
from zoo.store import folder_fingerprint

pytestmark = pytest.mark.usefixtures("float32")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama in float32, so that nothing but the merge is compared."""
    place = tmp_path_factory.mktemp("base")
    write_tiny_llama(place / "model", tie_word_embeddings=False)
    loaded(place / "model").save_pretrained(place / "model")
    return place


def adopted(folder: Path, out: Path, **fields: Any) -> Path:
    out.mkdir(parents=True)
    own = Input(path=folder, fingerprint=folder_fingerprint(folder))
    adopt.run(AdoptRequest(**{"entry": "theirs", "kind": "adapter", "folders": (own,), **fields}), out)
    return out


def merged(base: Path, adapter: Path, out: Path, **spec: Any) -> Path:
    out.mkdir()
    spec = {"into": "original", **spec}
    merge.run(MergeRequest(entry="theirs", base=given(base), adapter=given(adapter), spec=MergeSpec(**spec)), out)
    return out / "model"


# --- adapters ---------------------------------------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True, "r": 6},
    "dora": {"use_dora": True},
    "some layers": {"target_modules": ["q_proj", "down_proj"]},
    "patterns": {"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 7}, "alpha_pattern": {"mlp.up_proj": 3}},
    "regular expressions": {
        "target_modules": r".*\.(q|down|up)_proj",
        "alpha_pattern": {r"^model\.layers\.0\..*": 3, r"layers.\d+.(mlp|none).up_proj": 5, "_proj": 100},
        "rank_pattern": {r".*down_proj": 2},
    },
    "classifier": {"classifier": True, "use_rslora": True},
}


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_an_adapter_of_plain_peft_is_merged_to_what_peft_computes(base: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    """Oracle: peft's own forward pass in float32, on transformers' own class."""
    theirs = write_adapter(base / "model", tmp_path / "peft", **settings)
    out = adopted(tmp_path / "peft", tmp_path / "adopted")
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["adapter", "base_format.json", "learned.parquet", *(["head.json"] if "classifier" in settings else [])]
    )
    config = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None, "no place of another machine"
    assert all(name.startswith("model.layers.") for name in (*config["target_modules"], *config["alpha_pattern"]))
    ours = loaded(merged(base, out, tmp_path / "merged"), classifier="classifier" in settings)
    expected = last_logits(theirs)
    assert np.abs(last_logits(ours) - expected).max() < 1e-4
    assert np.abs(expected).max() > 0.05


def test_a_classifier_s_outputs_are_put_into_our_order(base: Path, tmp_path: Path) -> None:
    theirs = write_adapter(base / "model", tmp_path / "peft", classifier=True)
    out = adopted(tmp_path / "peft", tmp_path / "adopted", classes=("tie", "a", "b"))
    ours = loaded(merged(base, out, tmp_path / "merged"), classifier=True)
    assert np.abs(last_logits(ours) - last_logits(theirs)[:, [1, 2, 0]]).max() < 1e-4


def test_an_adapter_trained_on_four_bits_is_merged_into_them(base: Path, tmp_path: Path) -> None:
    """Every linear layer of the base, and nothing else of it, is what NF4 keeps."""
    write_adapter(base / "model", tmp_path / "peft", target_modules=["q_proj"])
    out = adopted(tmp_path / "peft", tmp_path / "adopted")
    plain, rounded = (
        load_file(merged(base, out, tmp_path / into, into=into) / "model.safetensors") for into in ("original", "trained")
    )
    changed = {name for name in plain if not torch.equal(plain[name], rounded[name])}
    assert changed == {name for name, value in plain.items() if ".layers." in name and value.dim() == 2}
    up = "model.layers.0.mlp.up_proj.weight"
    assert torch.allclose(rounded[up], merge.nf4_there_and_back(plain[up]))


def renamed(folder: Path, name: Any) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    path.unlink()
    save_file({name(key): value for key, value in tensors.items()}, path)


OLD = {
    "active adapter's name": lambda key: key.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default."),
    "wrapped by DDP": lambda key: f"module.{key}",
    "head as peft has it in memory": lambda key: key.replace(".score.", ".score.modules_to_save.default."),
    "head under another name": lambda key: key.replace(".score.", ".classifier."),
}


@pytest.mark.parametrize("name", OLD.values(), ids=OLD)
def test_older_names_of_an_adapter_are_read(base: Path, tmp_path: Path, name: Any) -> None:
    write_adapter(base / "model", tmp_path / "peft", classifier=True)
    plain = load_file(adopted(tmp_path / "peft", tmp_path / "plain") / "adapter" / "adapter_model.safetensors")
    renamed(tmp_path / "peft", name)
    found = load_file(adopted(tmp_path / "peft", tmp_path / "renamed") / "adapter" / "adapter_model.safetensors")
    assert found.keys() == plain.keys() and all(torch.equal(found[key], plain[key]) for key in plain)


def test_an_adapter_in_torch_s_own_format_is_read_and_nothing_of_it_is_run(base: Path, tmp_path: Path) -> None:
    write_adapter(base / "model", tmp_path / "peft")
    path = tmp_path / "peft" / "adapter_model.safetensors"
    tensors = load_file(path)
    path.unlink()
    torch.save(tensors, tmp_path / "peft" / "adapter_model.bin")
    found = load_file(adopted(tmp_path / "peft", tmp_path / "out") / "adapter" / "adapter_model.safetensors")
    assert all(torch.equal(found[key], tensors[key]) for key in tensors)
    torch.save({**tensors, "trainer": Path("run")}, tmp_path / "peft" / "adapter_model.bin")  # any object would do
    with pytest.raises(ZooError, match=r"adapter_model\.bin: holds more than tensors"):
        adopted(tmp_path / "peft", tmp_path / "again")


def with_config(folder: Path, **fields: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_what_is_not_merged_here_is_one_line_with_the_mend(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "peft"
    write_adapter(base / "model", folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"peft_type": "IA3"}, "peft_type is IA3"),
        ({"bias": "all"}, "bias = all"),
        ({"modules_to_save": ["embed_tokens"]}, "embed_tokens"),
        ({"r": "many"}, "no numbers above 0"),
        ({"modules_to_save": 3}, "no list of names"),
        ({"alpha_pattern": ["q_proj"]}, "no object of numbers"),
        ({"alpha_pattern": {"(a+)+b": 3}}, r"alpha_pattern has '\(a\+\)\+b', and names with.*merge_and_unload"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4: it is of a base from which.*merge_and_unload"),
    )
    for number, (fields, told) in enumerate(refused):
        original = (folder / "adapter_config.json").read_text()
        with_config(folder, **fields)
        with pytest.raises(ZooError, match=told):
            adopted(folder, tmp_path / f"out-{number}")
        (folder / "adapter_config.json").write_text(original)
    first = sorted(tensors)[0]
    for number, (wrong, told) in enumerate(
        (
            (
                {**tensors, "base_model.model.model.embed_tokens.weight": torch.zeros(320, 128)},
                "embed_tokens.*merge_and_unload",
            ),
            ({key: value for key, value in tensors.items() if key != first}, "lacks a half"),
            ({**tensors, first: torch.full_like(tensors[first], float("nan"))}, "no numbers"),
            ({**tensors, "base_model.model.(a+)+b.lora_A.weight": torch.zeros(4, 8)}, "is not of LoRA"),
        )
    ):
        save_file(wrong, folder / "adapter_model.safetensors")
        with pytest.raises(ZooError, match=told):
            adopted(folder, tmp_path / f"wrong-{number}")


def test_a_classifier_without_its_head_is_refused(base: Path, tmp_path: Path) -> None:
    """transformers would go on with a random one."""
    write_adapter(base / "model", tmp_path / "peft", classifier=True)
    path = tmp_path / "peft" / "adapter_model.safetensors"
    tensors = {key: value for key, value in load_file(path).items() if "score" not in key}
    path.unlink()
    save_file(tensors, path)
    with pytest.raises(ZooError, match="without its head, which would be random"):
        adopted(tmp_path / "peft", tmp_path / "out")


def test_a_folder_that_changed_since_is_refused(base: Path, tmp_path: Path) -> None:
    write_adapter(base / "model", tmp_path / "peft")
    own = Input(path=tmp_path / "peft", fingerprint=folder_fingerprint(tmp_path / "peft"))
    (tmp_path / "peft" / "more.txt").write_text("x")
    (tmp_path / "out").mkdir()
    request = AdoptRequest(entry="theirs", kind="adapter", folders=(own,))
    with pytest.raises(ZooError, match="has changed since"):
        adopt.run(request, tmp_path / "out")
    with pytest.raises(ZooError, match=r"is not in the store.*remove theirs\.toml and register it again"):
        adopt.run(request.model_copy(update={"folders": (Input(fingerprint=own.fingerprint),)}), tmp_path / "out")


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.fixture
def whole(base: Path, tmp_path: Path) -> Path:
    shutil.copytree(base / "model", tmp_path / "whole")
    return tmp_path / "whole"


def rewrite(folder: Path, change: Any, **config: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(change(tensors), folder / "model.safetensors")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))


def checkpoint(folder: Path, out: Path, **fields: Any) -> Path:
    return adopted(folder, out, kind="checkpoint", **fields) / "model"


def shards(folder: Path) -> None:
    loaded(folder).save_pretrained(folder, max_shard_size="300KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    assert len(list(folder.glob("*.safetensors"))) > 2


def bins(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    for number in range(2):
        own = {name: tensors[name] for name in names[number::2]}
        torch.save(own, folder / f"pytorch_model-{number + 1:05}-of-00002.bin")
    (folder / "model.safetensors").unlink()


def consolidated(folder: Path) -> None:
    shards(folder)
    save_file({"layers.0.attention.wq.weight": torch.zeros(128, 128)}, folder / "consolidated.safetensors")


ODD = {
    "as it is": lambda folder: None,
    "shards": shards,
    "another form beside its shards": consolidated,
    "torch's own files": bins,
    "peft's prefix": lambda folder: rewrite(folder, lambda t: {f"base_model.model.{name}": value for name, value in t.items()}),
    "peft's base layers": lambda folder: rewrite(
        folder, lambda t: {name.replace("proj.weight", "proj.base_layer.weight"): value for name, value in t.items()}
    ),
    "compiled": lambda folder: rewrite(folder, lambda t: {f"_orig_mod.{name}": value for name, value in t.items()}),
    "said to be tied": lambda folder: rewrite(folder, lambda t: t, tie_word_embeddings=True),
    "code and places": lambda folder: rewrite(folder, lambda t: t, auto_map={"AutoModel": "x.py"}, _name_or_path="/home/me"),
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_odd_folders_are_read_as_the_model_that_they_are(base: Path, whole: Path, tmp_path: Path, change: Any) -> None:
    """Oracle: transformers' forward pass of the folder as its trainer had it."""
    expected = last_logits(loaded(base / "model"))
    change(whole)
    found = checkpoint(whole, tmp_path / "out")
    assert np.abs(last_logits(loaded(found)) - expected).max() < 1e-5
    text = (found / "config.json").read_text()
    assert "auto_map" not in text and "/home/me" not in text
    assert {path.suffix for path in found.iterdir()} <= {".safetensors", ".json", ".jinja"}


def test_a_resized_vocabulary_is_as_large_as_its_embedding(whole: Path, tmp_path: Path) -> None:
    def longer(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        names = ("model.embed_tokens.weight", "lm_head.weight")
        return {n: torch.cat([t, t[:8]]) if n in names else t for n, t in tensors.items()}

    rewrite(whole, longer)
    found = checkpoint(whole, tmp_path / "out")
    assert json.loads((found / "config.json").read_text())["vocab_size"] == 328
    loaded(found)


def test_a_tokenizer_comes_from_the_base_where_there_is_none(base: Path, whole: Path, tmp_path: Path) -> None:
    (whole / "tokenizer.json").unlink()
    with pytest.raises(ZooError, match=r"no tokenizer\.json; name the folder of its base with --base"):
        checkpoint(whole, tmp_path / "without")
    tokenizer = Input(path=base / "model" / "tokenizer.json", fingerprint="0" * 16)
    found = checkpoint(whole, tmp_path / "with", tokenizer=tokenizer)
    assert (found / "tokenizer.json").read_bytes() == (base / "model" / "tokenizer.json").read_bytes()


def test_an_index_is_of_files_that_are_there(whole: Path, tmp_path: Path) -> None:
    for number, (content, told) in enumerate(
        (({"weight_map": ["a"]}, "weight_map is no object"), ({"weight_map": {"a": "../b.safetensors"}}, "which is not there"))
    ):
        (whole / "model.safetensors.index.json").write_text(json.dumps(content))
        with pytest.raises(ZooError, match=rf"model\.safetensors\.index\.json: .*{told}"):
            checkpoint(whole, tmp_path / f"out-{number}")


@pytest.mark.parametrize("family", FAMILIES.values())
def test_a_trained_encoder_is_read_in_our_order(family: Encoder, tmp_path: Path) -> None:
    """Also of torch's own files with a wrapper's names, and of weights in 16 bits, as trainers leave them."""
    theirs = write_encoder(tmp_path / "theirs", family, head="ForSequenceClassification", labels=3)
    rows = [[2, 9, 8, 7, 3], [2, 30, 31, 32, 33, 34, 3]]
    expected = encoder_answers(theirs, rows)
    found = checkpoint(theirs, tmp_path / "out", head="classifier", classes=("tie", "b", "a"))
    assert np.abs(encoder_answers(found, rows) - expected[:, [2, 1, 0]]).max() < 1e-6
    config = json.loads((found / "config.json").read_text())
    assert config["id2label"] == {"0": "a", "1": "b", "2": "tie"} and not (found.parent / "as-given").exists()

    tensors = {f"module.{name}": value.half() for name, value in load_file(theirs / "model.safetensors").items()}
    torch.save(tensors, theirs / "pytorch_model.bin")
    (theirs / "model.safetensors").unlink()
    again = checkpoint(theirs, tmp_path / "again", head="classifier")
    assert np.abs(encoder_answers(again, rows) - expected).max() < 0.02
    assert {value.dtype for value in load_file(again / "model.safetensors").values()} == {torch.float32}


def test_an_encoder_without_all_of_its_weights_is_refused(tmp_path: Path) -> None:
    """What transformers would draw at random or leave out is one line."""
    with pytest.raises(
        ZooError, match=r"without a classifier's head \(architectures: ModernBertForMaskedLM.* give it by --base"
    ):
        checkpoint(write_encoder(tmp_path / "encoder", "ModernBert"), tmp_path / "out")
    theirs = write_encoder(tmp_path / "theirs", "Bert", head="ForSequenceClassification", labels=3)
    whole = load_file(theirs / "model.safetensors")
    head = {"classifier.weight": torch.zeros(2, 64), "classifier.bias": torch.zeros(2)}
    broken = whole["bert.pooler.dense.bias"].clone()
    broken[0] = float("nan")
    for number, (tensors, told) in enumerate(
        (
            ({name: value for name, value in whole.items() if "pooler" not in name}, r"no bert\.pooler.*would be random"),
            ({**whole, "attention_pool.weight": torch.zeros(4)}, "attention_pool.weight is no weight of .* head of its own"),
            ({**whole, **head}, r"classifier\.bias has not the shape that config\.json and three classes"),
            ({**whole, "bert.pooler.dense.bias": broken}, r"bert\.pooler\.dense\.bias holds values that are no numbers"),
        )
    ):
        save_file(tensors, theirs / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ZooError, match=told):
            checkpoint(theirs, tmp_path / f"out-{number}", head="classifier")
    config = json.loads((theirs / "config.json").read_text())
    (theirs / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "bitsandbytes"}}))
    with pytest.raises(ZooError, match="encoders are served in 16 or 32 bits, and this one is quantized"):
        checkpoint(theirs, tmp_path / "quantized", head="classifier")


def test_a_head_that_is_not_there_is_never_made_of_random_numbers(whole: Path, tmp_path: Path) -> None:
    rewrite(whole, lambda tensors: {name: value for name, value in tensors.items() if name != "lm_head.weight"})
    path = whole / "config.json"
    config = json.loads(path.read_text())
    del config["tie_word_embeddings"]
    for number, own in enumerate((config | {"tie_word_embeddings": False}, config)):  # a Llama's, where it is left out
        path.write_text(json.dumps(own))
        with pytest.raises(ZooError, match=r"no lm_head\.weight.*tie_word_embeddings = true"):
            checkpoint(whole, tmp_path / f"out-{number}")
    with pytest.raises(ZooError, match=r"an adapter's tensor in a whole model; merge it"):
        rewrite(whole, lambda tensors: {**tensors, "model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(1)})
        checkpoint(whole, tmp_path / "again")


def test_a_classifier_of_transformers_is_read_in_our_order(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(base / "model", num_labels=3, dtype=torch.float32)
    model.save_pretrained(tmp_path / "theirs")
    shutil.copy(base / "model" / "tokenizer.json", tmp_path / "theirs")
    found = checkpoint(tmp_path / "theirs", tmp_path / "out", head="classifier", classes=("b", "a", "tie"))
    expected = last_logits(model.eval())
    assert np.abs(last_logits(loaded(found, classifier=True)) - expected[:, [1, 0, 2]]).max() < 1e-5
    config = json.loads((found / "config.json").read_text())
    assert config["id2label"] == {"0": "a", "1": "b", "2": "tie"}
    two = AutoModelForSequenceClassification.from_pretrained(base / "model", num_labels=2, dtype=torch.float32)
    two.save_pretrained(tmp_path / "two")
    with pytest.raises(ZooError, match=r"id2label has 2 classes|classifier is \(2, 128\)"):
        checkpoint(tmp_path / "two", tmp_path / "of-two", head="classifier")


# --- quantized --------------------------------------------------------------------------------------------------------


def test_quantized_tensors_are_taken_as_they_are(base: Path, tmp_path: Path) -> None:
    """Packed weights are no business of ours: bit by bit what the quantizer of others wrote, and its config."""
    gptq, _ = gptq_folder(base / "model", tmp_path / "gptq", tmp_path / "plain", group=32)
    found = checkpoint(gptq, tmp_path / "out")
    theirs, ours = (load_file(folder / "model.safetensors") for folder in (gptq, found))
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[name], ours[name]) for name in theirs)
    specs = [json.loads((folder / "config.json").read_text())["quantization_config"] for folder in (gptq, found)]
    assert specs[0] == specs[1]


def test_what_gptqmodel_writes_of_its_machine_stays_there(base: Path, tmp_path: Path) -> None:
    """Its own config of version 7.7.0, with the folder that it kept weights in meanwhile; what engines read is all there."""
    gptq, _ = gptq_folder(base / "model", tmp_path / "gptq", tmp_path / "plain", group=32)
    spec = json.loads(Path("tests/zoo/models/quantization_configs.json").read_text())["gptqmodel-awq"]
    assert spec["meta"].pop("offload_to_disk_path").startswith("/")
    rewrite(gptq, lambda tensors: tensors)
    path = gptq / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] |= {"meta": {**spec["meta"], "offload_to_disk_path": "/tmp/gptqmodel_x"}}
    path.write_text(json.dumps(config | {"tokenizer_file": "C:\\me\\tokenizer.json"}))
    (gptq / "tokenizer_config.json").write_text(json.dumps({"name_or_path": "/home/me", "eos_token": "</s>"}))
    found = checkpoint(gptq, tmp_path / "out")
    ours = json.loads((found / "config.json").read_text())
    assert ours["quantization_config"] == {**config["quantization_config"], "meta": spec["meta"]}
    assert "tokenizer_file" not in ours and json.loads((found / "tokenizer_config.json").read_text()) == {"eos_token": "</s>"}


def test_a_config_that_leaves_keys_out_is_handed_on_without_them(base: Path, tmp_path: Path) -> None:
    """What a family means by them is read, and not written: files stay as their authors left them."""
    gptq, _ = gptq_folder(base / "model", tmp_path / "gptq", tmp_path / "plain", group=32)
    path = gptq / "config.json"
    left = {
        key: value for key, value in json.loads(path.read_text()).items() if key not in ("max_position_embeddings", "head_dim")
    }
    path.write_text(json.dumps(left))
    assert json.loads((checkpoint(gptq, tmp_path / "out") / "config.json").read_text()).keys() <= left.keys()


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}
INT4 = {"num_bits": 4, "type": "int", "group_size": 128}
REFUSED = {
    "bitsandbytes of neither": ({"quant_method": "bitsandbytes"}, "neither load_in_4bit nor load_in_8bit; NF4, FP4 and int8"),
    "bitsandbytes of a type": ({"load_in_4bit": True, "bnb_4bit_quant_type": "af4"}, "bnb_4bit_quant_type = 'af4'"),
    "three bits": ({"quant_method": "gptq", "bits": 3, "group_size": 128}, "3 bits"),
    "gemv": ({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemv"}, "gemv"),
    "unknown": ({"quant_method": "exl2"}, "exl2"),
    "zero points": ({**GPTQ, "sym": False}, "sym = true"),
    "by activations": ({**GPTQ, "desc_act": True}, "desc_act = false"),
    "of a kernel": ({**GPTQ, "checkpoint_format": "marlin"}, "'marlin'"),
    "busy with a module": ({**GPTQ, "dynamic": {"-:(a+)+b": {}}}, r"'\(a\+\)\+b' is no pattern, or could keep an engine busy"),
    "busy with what is left out": (
        {"quant_method": "compressed-tensors", "config_groups": {}, "ignore": ["re:" + ".*" * 9 + "b"]},
        "could keep an engine busy",
    ),
    "busy with a group": (
        {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"targets": ["re:(?!(x+)+y).*"], "weights": INT4}}},
        "could keep an engine busy",
    ),
    "by activations, compressed": (
        {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {**INT4, "actorder": "group"}}}},
        "actorder = 'static'",
    ),
    "no object": ([1], "no object"),
}


@pytest.mark.parametrize(("spec", "told"), REFUSED.values(), ids=REFUSED)
def test_what_the_engine_does_not_serve_is_refused(whole: Path, tmp_path: Path, spec: Any, told: str) -> None:
    rewrite(whole, lambda tensors: tensors, quantization_config=spec)
    with pytest.raises(ZooError, match=told):
        checkpoint(whole, tmp_path / "out")
