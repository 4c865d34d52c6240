"""Folders of bitsandbytes: to the bit what it dequantizes itself; what is not whole is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.foreign import bitsandbytes_folder, last_logits, loaded
from tests.helpers.tiny_models import TEMPLATE, write_tiny_llama
from zoo.contracts import AdoptRequest, Input
from zoo.entries.load import read_entry
from zoo.errors import ZooError
from zoo.pipeline.adoption import Offered
from zoo.pipeline.adoption import adopt as register
from zoo.stages.weights import adopt
from zoo.store import folder_fingerprint

NESTED: dict[str, Any] = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
KINDS: dict[str, dict[str, Any]] = {
    "nf4, double": NESTED,
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "nf4, stored as bfloat16": {**NESTED, "bnb_4bit_quant_storage": "bfloat16"},
    "nf4, parts in other files": {**NESTED, "max_shard_size": "20KB"},
    "fp4": {"load_in_4bit": True},
    "fp4, double": {"load_in_4bit": True, "bnb_4bit_use_double_quant": True},
    "int8": {"load_in_8bit": True},
    "int8, parts in other files": {"load_in_8bit": True, "max_shard_size": "20KB"},
}
UP = "model.layers.0.mlp.up_proj.weight"
STATE = f"{UP}.quant_state.bitsandbytes__nf4"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("base") / "model", tie_word_embeddings=False)


def adopted(folder: Path, out: Path, **fields: Any) -> Path:
    out.mkdir()
    own = Input(path=folder, fingerprint=folder_fingerprint(folder))
    adopt.run(AdoptRequest(entry="theirs", kind="checkpoint", folders=(own,), **fields), out)
    return out / "model"


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for path in sorted(folder.glob("*.safetensors")) for name, value in load_file(path).items()}


def own_values(model: Any) -> dict[str, torch.Tensor]:
    """What bitsandbytes makes of the weights in a model that it packed, in the dtype of the base."""
    from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant

    found = {}
    for name, weight in model.named_parameters():
        state, scales = getattr(weight, "quant_state", None), getattr(weight, "SCB", None)
        if state is not None:
            found[name] = dequantize_4bit(weight.data, state)
        elif weight.dtype == torch.int8:
            found[name] = int8_vectorwise_dequant(weight.data, scales).bfloat16()
        else:
            found[name] = weight.data
    return found


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_weights_are_to_the_bit_what_bitsandbytes_dequantizes(base: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    expected = own_values(bitsandbytes_folder(base, tmp_path / "theirs", **settings))
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > (10 if "max_shard_size" in settings else 0)
    found = adopted(tmp_path / "theirs", tmp_path / "out")
    ours = tensors_of(found)
    assert ours.keys() == expected.keys()
    assert {name for name in ours if not torch.equal(ours[name], expected[name])} == set()
    assert {value.dtype for value in ours.values()} == {torch.bfloat16}
    plain = tensors_of(base)
    changed = {name for name in ours if not torch.equal(ours[name], plain[name])}
    assert changed == {name for name in plain if ".layers." in name and plain[name].dim() == 2}, "all that was packed"
    assert "quantization_config" not in json.loads((found / "config.json").read_text())
    loaded(found)


def test_what_was_trained_is_answered_with(base: Path, tmp_path: Path) -> None:
    """A classifier's head is in 16 bits there; oracle: transformers on bitsandbytes' own layers."""
    theirs = bitsandbytes_folder(base, tmp_path / "theirs", classifier=True, dtype=torch.float32, **NESTED)
    found = adopted(tmp_path / "theirs", tmp_path / "out", head="classifier", classes=("tie", "a", "b"))
    expected = last_logits(theirs)[:, [1, 2, 0]]
    assert np.abs(last_logits(loaded(found, classifier=True)) - expected).max() < 1e-5
    assert np.abs(expected).max() > 0.01


def test_the_entry_is_like_one_of_16_bits_and_says_where_its_loss_is_from(base: Path, tmp_path: Path) -> None:
    bitsandbytes_folder(base, tmp_path / "theirs", **NESTED)
    (tmp_path / "prompt.txt").write_text(TEMPLATE)
    offered = Offered(checkpoint=tmp_path / "theirs", template=tmp_path / "prompt.txt", trained_on="none")
    made = register("theirs", offered, "cpu", tmp_path / "entries", tmp_path / "store", lambda _: None)
    assert made.notes == ("dequantized from NF4 of bitsandbytes; the loss is that of its NF4 weights",)
    entry = read_entry(made.registered.path)
    assert entry.elsewhere is not None and not entry.elsewhere.quantized and entry.quantize is not None
    assert entry.base is not None and entry.base.parameters == sum(value.numel() for value in tensors_of(base).values())


# --- what is not whole ------------------------------------------------------------------------------------------------

Tensors = dict[str, torch.Tensor]


def without(*parts: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: value for name, value in tensors.items() if name not in parts}


def with_state(**changes: Any) -> Callable[[Tensors], Tensors]:
    def change(tensors: Tensors) -> Tensors:
        state = json.loads(bytes(tensors[STATE].tolist())) | changes
        text = json.dumps({key: value for key, value in state.items() if value != "gone"})
        return tensors | {STATE: torch.tensor(list(text.encode()), dtype=torch.uint8)}

    return change


def instead(name: str, change: Callable[[torch.Tensor], torch.Tensor], to: str = "") -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**without(name)(tensors), to or name: change(tensors[name]).contiguous()}


FAULTS: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "no absmax": (without(f"{UP}.absmax"), rf"{UP}.absmax is not in the folder"),
    "no state": (without(STATE), rf"{UP}: is of 4 bits, and {UP}.quant_state.bitsandbytes__nf4 .* is not in the folder"),
    "no parts at all": (
        lambda tensors: {name: value for name, value in tensors.items() if not name.startswith(f"{UP}.")},
        rf"{UP}: is of 4 bits, and",
    ),
    "no scales of scales": (without(f"{UP}.nested_absmax"), rf"{UP}.nested_absmax is not in the folder"),
    "half of a double quantization": (
        with_state(nested_blocksize="gone"),
        rf"{UP}.absmax: is uint8 \(512,\), where 512 values of float32",
    ),
    "no weight": (without(UP), rf"{UP}\..*: is of a weight that is not in the folder"),
    "two states": (lambda t: t | {f"{UP}.quant_state.bitsandbytes__fp4": t[STATE].clone()}, "several are in the folder"),
    "unknown type": (
        instead(STATE, torch.clone, f"{UP}.quant_state.bitsandbytes__nf3"),
        r"quant_state.bitsandbytes__nf3: is of an unknown type; nf4 and fp4 are read",
    ),
    "no JSON": (instead(STATE, lambda t: t[:20]), rf"{STATE}: is no JSON as bytes"),
    "other type inside": (with_state(quant_type="fp4"), r'quant_type = "fp4"'),
    "other block size": (with_state(blocksize=128), rf"{UP}.absmax: is uint8 \(512,\), where 256 values of uint8"),
    "odd block size": (with_state(blocksize=48), rf"{STATE}: blocksize = 48, which bitsandbytes 0.50 does not know"),
    "odd dtype": (with_state(dtype=["int8"]), rf'{STATE}: dtype = \["int8"\]'),
    "odd shape": (with_state(shape=[-128, -256]), r"shape = \[-128, -256\]"),
    "odd nested blocks": (with_state(nested_blocksize=0), "nested_blocksize = 0"),
    "odd offset": (with_state(nested_offset=float("nan")), "nested_offset = NaN"),
    "truncated": (instead(UP, lambda t: t[:-64]), rf"{UP}: is uint8 \(16320, 1\), which is not \[256, 128\] of 4 bits"),
    "truncated scales": (instead(f"{UP}.nested_absmax", lambda t: t[:-1]), r"nested_absmax: is float32 \(1,\), where 2"),
    "no numbers": (
        instead(f"{UP}.nested_absmax", lambda t: t * float("nan")),
        "nested_absmax: holds values that are no numbers",
    ),
    "nothing packed": (
        lambda tensors: {name: value for name, value in tensors.items() if ".layers." not in name},
        r"config.json says bitsandbytes, and no weight has SCB or a quant_state",
    ),
}
SCB = UP.replace("weight", "SCB")
FAULTS_OF_INT8: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "no scales": (without(SCB), rf"{UP}: is int8, and {SCB} is not in the folder"),
    "few scales": (instead(SCB, lambda t: t[:-1]), rf"{SCB}: is float32 \(255,\), where 256 values of float32"),
    "no weight": (without(UP), "is of a weight that is not in the folder"),
    "layout of a GPU": (instead(UP.replace("weight", "weight_format"), torch.ones_like), "weight_format: is not 0"),
    "not packed": (instead(UP, lambda t: t.bfloat16()), r"up_proj.weight: is bfloat16 \(256, 128\), where SCB is of an int8"),
}


@pytest.fixture(scope="module")
def packed(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("packed")
    for name, settings in (("4", NESTED), ("8", {"load_in_8bit": True})):
        bitsandbytes_folder(base, place / name, **settings)
    return {name: place / name for name in "48"}


def refused(folder: Path, place: Path, change: Callable[[Tensors], Tensors], told: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    theirs = place / "theirs"
    theirs.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (theirs / name).write_bytes((folder / name).read_bytes())
    save_file(change(tensors), theirs / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ZooError, match=told) as caught:
        adopted(theirs, place / "out")
    assert str(theirs) in str(caught.value) and "\n" not in str(caught.value) and "save it again" in str(caught.value)


@pytest.mark.parametrize(("change", "told"), FAULTS.values(), ids=FAULTS)
def test_what_is_not_whole_is_named(packed: dict[str, Path], tmp_path: Path, change: Any, told: str) -> None:
    refused(packed["4"], tmp_path, change, told)


@pytest.mark.parametrize(("change", "told"), FAULTS_OF_INT8.values(), ids=FAULTS_OF_INT8)
def test_what_is_not_whole_in_8_bits_is_named(packed: dict[str, Path], tmp_path: Path, change: Any, told: str) -> None:
    refused(packed["8"], tmp_path, change, told)
