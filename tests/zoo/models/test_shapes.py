"""Sizes of the entries' models are those of the models; bytes follow from them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.contracts import Entry, Shape
from zoo.entries.load import entry_names, load_entry
from zoo.errors import ZooError
from zoo.models.shapes import (
    awq_bits,
    cached_tokens,
    count_parameters,
    embedding_parameters,
    kv_bytes_per_token,
    linear_layers,
    linear_parameters,
    quantized_bytes,
    shape_of_config,
)

MODELS = [entry for entry in map(load_entry, entry_names()) if entry.kind == "causal_lm"]


KINDS = {
    "LlamaForCausalLM": "llama",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3_text",
    "Qwen2ForCausalLM": "qwen2",
}


def shape_of(entry: Entry) -> Shape:
    assert entry.shape is not None and entry.base is not None
    return entry.shape


@pytest.mark.parametrize("entry", MODELS, ids=lambda e: e.name)
def test_shapes_are_the_models_by_transformers(entry: Entry) -> None:
    """Oracle: transformers' own classes, built without memory, hold as many parameters as the published model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = shape_of(entry)
    assert entry.base is not None
    kind = KINDS[entry.base.architecture]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape.model_dump(exclude_none=True)))
    sizes = {name: p.shape for name, p in model.named_parameters()}
    assert sum(p.numel() for p in model.parameters()) == entry.base.parameters
    assert sum(size.numel() for name, size in sizes.items() if "proj.weight" in name) == linear_parameters(shape)
    assert sum(size.numel() for name, size in sizes.items() if "norm" not in name and "proj" not in name) == (
        embedding_parameters(shape)
    )
    for name, (inputs, outputs) in linear_layers(shape).items():
        block = "mlp" if name.split("_")[0] in ("gate", "up", "down") else "self_attn"
        assert sizes[f"model.layers.0.{block}.{name}.weight"] == (outputs, inputs)


def test_shapes_read_from_a_config_are_those_declared() -> None:
    for entry in MODELS:
        shape = shape_of(entry)
        assert shape_of_config(shape.model_dump(exclude_none=True)) == shape
    plain = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 10}
    shape = shape_of_config(plain)
    assert (shape.head_dim, shape.num_key_value_heads, shape.intermediate_size) == (16, 4, 256)
    with pytest.raises(ZooError, match="'vocab_size' is missing"):
        shape_of_config({key: value for key, value in plain.items() if key != "vocab_size"})


def test_llama_3_8b_awq_is_as_large_as_the_published_checkpoint() -> None:
    shape = shape_of(load_entry("llama-3-8b"))
    assert quantized_bytes(shape, 8030261248, awq_bits(128)) == pytest.approx(5.73e9, rel=0.01)


def test_keys_and_values_of_the_published_models() -> None:
    """Bytes a token in 16 bit, as the models' reports and vLLM's own sizes have them."""
    found = {name: kv_bytes_per_token(shape_of(load_entry(name))) for name in ("llama-3-8b", "gemma-2-9b", "yi-34b")}
    assert found == {"llama-3-8b": 131072, "gemma-2-9b": 344064, "yi-34b": 245760}
    assert kv_bytes_per_token(shape_of(load_entry("yi-34b")), dtype_bytes=4) == 2 * 245760


@given(st.integers(1, 4096), st.integers(1, 2048), st.integers(1, 256), st.sampled_from([16, 128]))
def test_the_cache_holds_every_batch_that_can_be_in_flight(batch: int, longest: int, seqs: int, block: int) -> None:
    """A batch of rows whose last blocks are empty but for a token still fits, with one longest row that was cut before."""
    tokens = cached_tokens(max_batched_tokens=batch, longest=longest, max_seqs=seqs, block_tokens=block)
    rows = min(seqs, batch)
    worst = sum(-(-length // block) * block for length in [batch - rows + 1, *[1] * (rows - 1)])
    assert tokens >= worst + longest
    assert cached_tokens(max_batched_tokens=batch, longest=longest, max_seqs=seqs, block_tokens=block, batches=2) > tokens


@given(st.sampled_from(["llama-3-8b", "yi-34b"]), st.sampled_from([32, 64, 128]))
def test_bytes_shrink_with_groups(name: str, group: int) -> None:
    entry = load_entry(name)
    assert entry.base is not None
    parameters = entry.base.parameters
    finer, coarser = (quantized_bytes(shape_of(entry), parameters, awq_bits(g)) for g in (group, 2 * group))
    assert coarser < finer < 2 * parameters


def test_parameters_are_counted_from_headers(tmp_path: Path) -> None:
    header = {"__metadata__": {}, "a": {"dtype": "BF16", "shape": [3, 4], "data_offsets": [0, 24]}, "b": {"shape": [5]}}
    raw = json.dumps(header).encode()
    for shard in ("model-1.safetensors", "model-2.safetensors"):
        (tmp_path / shard).write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(24))
    assert count_parameters(tmp_path) == 2 * (12 + 5)
    (tmp_path / "model-2.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(ZooError, match="not a safetensors file"):
        count_parameters(tmp_path)
    with pytest.raises(ZooError, match=r"no \*\.safetensors files"):
        count_parameters(tmp_path / "empty")
