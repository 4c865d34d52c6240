"""Targets are data; checks agree with vLLM's own refusals and with the bytes of real shapes."""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.checks import ARCHITECTURES, FLOAT16_REFUSED, Finding, check_entry
from zoo.contracts import Entry
from zoo.entries_io import list_entries, load_entry
from zoo.errors import ZooError
from zoo.shapes import approximate_shapes, awq_bytes, count_parameters, shapes_of_config
from zoo.targets import Target, host_memory_bytes, list_targets, load_target, machine_fingerprint

LLAMA_3_8B: dict[str, Any] = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
GEMMA_2_9B: dict[str, Any] = {
    "hidden_size": 3584,
    "num_hidden_layers": 42,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 256,
    "intermediate_size": 14336,
    "vocab_size": 256000,
}
YI_34B: dict[str, Any] = {
    "hidden_size": 7168,
    "num_hidden_layers": 60,
    "num_attention_heads": 56,
    "num_key_value_heads": 8,
    "intermediate_size": 20480,
    "vocab_size": 64000,
    "tie_word_embeddings": False,
}
REAL = [("llama-3-8b", LLAMA_3_8B), ("gemma-2-9b", GEMMA_2_9B), ("yi-34b", YI_34B)]


def found(entry: Entry, target: str | Target, check: str, **kwargs: Any) -> Finding:
    machine = load_target(target) if isinstance(target, str) else target
    return next(f for f in check_entry(entry, machine, **kwargs) if f.check == check)


def entry_with(name: str, section: str, **fields: Any) -> Entry:
    raw = load_entry(name).model_dump()
    raw[section] = {**raw[section], **fields}
    return Entry.model_validate(raw)


def test_targets_of_the_package() -> None:
    assert {t.name for t in list_targets()} == {"t4x2", "t4", "l4x2", "a10g", "h200", "h200x2", "cpu"}
    for target in list_targets():
        assert load_target(target.name) == target
        assert (target.gpus == 0) == (target.compute_capability is None)
        assert target.device_bytes <= (target.memory_bytes or host_memory_bytes())
        assert (target.compute_capability or (9, 9)) >= (8, 0) or "bfloat16" not in target.dtypes
        assert (target.interconnect == "none") == (target.gpus < 2)


def test_unknown_and_faulty_targets(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="no target 't5'; known: a10g, cpu"):
        load_target("t5")
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\ngpu = 2\ndtypes = []\nmargin = 1\n')
    with pytest.raises(ZooError, match="unknown key `gpu`; did you mean `gpus`"):
        load_target(str(path))
    path.write_text('name = "mine"\ngpus = 0\ndtypes = ["float32"]\nmargin = 1.2\n')
    assert load_target(str(path)).devices == 1


def test_machine_fingerprint_is_stable_and_tells_no_names() -> None:
    import socket

    assert machine_fingerprint() == machine_fingerprint.__wrapped__()
    assert socket.gethostname() not in machine_fingerprint()
    assert "\n" not in machine_fingerprint() and machine_fingerprint().strip()


@pytest.mark.parametrize("entry", list_entries(), ids=lambda e: e.name)
@pytest.mark.parametrize("target", list_targets(), ids=lambda t: t.name)
def test_every_entry_can_be_checked_on_every_target(entry: Entry, target: Target) -> None:
    for finding in check_entry(entry, target):
        assert finding.what and (finding.verdict == "ok" or finding.mend)


@pytest.mark.parametrize("name", ["llama-3-8b", "yi-34b"])
def test_the_competition_machine_takes(name: str) -> None:
    assert not [f for f in check_entry(load_entry(name), load_target("t4x2")) if f.verdict == "fail"]


def test_gemma_2_in_float16_is_refused_as_vllm_does() -> None:
    assert found(load_entry("gemma-2-9b"), "t4x2", "dtype").verdict == "fail"
    assert found(load_entry("gemma-2-9b"), "l4x2", "dtype").verdict == "ok"
    auto = entry_with("gemma-2-9b", "serve", t4x2={"dtype": "auto"})
    assert found(auto, "t4x2", "dtype").verdict == "fail", "auto becomes float32, which AWQ refuses"
    forced = entry_with("gemma-2-9b", "serve", l4x2={"dtype": "float16"})
    finding = found(forced, "l4x2", "dtype")
    assert finding.verdict == "fail" and 'serve.l4x2.dtype = "bfloat16"' in finding.mend


def test_refusals_are_those_of_the_installed_vllm() -> None:
    vllm = importlib.util.find_spec("vllm")
    if vllm is None or vllm.origin is None:
        pytest.skip("vLLM is not installed")
    root = Path(vllm.origin).parent  # read, not imported: importing vLLM takes many seconds
    registry = (root / "model_executor/models/registry.py").read_text()
    table = registry[: registry.index("_PREVIOUSLY_SUPPORTED_MODELS = {")]
    assert [a for a in ARCHITECTURES if f'"{a}"' not in table] == []
    config = (root / "config/model.py").read_text()
    refused = config[config.index("_FLOAT16_NOT_SUPPORTED_MODELS = {") :].split("}")[0]
    assert refused.count('":') == 4, "gemma2, gemma3, gemma3_text, glm4"
    for architecture in FLOAT16_REFUSED:
        assert f'"{architecture.split("For")[0].lower()}"' in refused


@pytest.mark.parametrize(("dtype", "verdict"), [("float16", "ok"), ("bfloat16", "fail"), ("float32", "fail"), ("auto", "ok")])
def test_dtype_on_turing(dtype: str, verdict: str) -> None:
    entry = entry_with("llama-3-8b", "serve", t4x2={"dtype": dtype})
    assert found(entry, "t4x2", "dtype").verdict == verdict


def test_layouts() -> None:
    replicas = entry_with("yi-34b", "serve", t4x2={"layout": "replicas"})
    finding = found(replicas, "t4x2", "memory")
    assert finding.verdict == "fail" and 'layout = "pipeline"' in finding.mend
    tensor = entry_with("yi-34b", "serve", t4x2={"layout": "tensor"}, h200x2={"layout": "tensor"}, t4={"layout": "tensor"})
    assert found(tensor, "t4x2", "layout").verdict == "warn"
    assert found(tensor, "h200x2", "layout").verdict == "ok"
    assert found(tensor, "t4", "layout").verdict == "fail"
    assert found(tensor, "t4", "memory").verdict == "fail"


def test_old_gpus_have_no_awq_kernel() -> None:
    volta = load_target("t4").model_copy(update={"compute_capability": (7, 0)})
    assert found(load_entry("llama-3-8b"), volta, "kernel").verdict == "fail"


@pytest.mark.parametrize(("name", "config"), REAL)
def test_approximate_bytes_are_near_and_never_below_the_true_ones(name: str, config: dict[str, Any]) -> None:
    base = load_entry(name).base
    assert base is not None
    true = awq_bytes(shapes_of_config(config, base.parameters), 128)
    rough = awq_bytes(approximate_shapes(base.parameters, base.architecture), 128)
    assert true <= rough <= 1.08 * true


def test_llama_3_8b_awq_is_as_large_as_the_published_checkpoint() -> None:
    assert awq_bytes(shapes_of_config(LLAMA_3_8B, 8030261248), 128) == pytest.approx(5.73e9, rel=0.01)


@given(st.integers(10**7, 10**11), st.sampled_from([32, 64, 128]))
def test_bytes_grow_with_parameters_and_shrink_with_groups(parameters: int, group: int) -> None:
    smaller, larger = (approximate_shapes(p, "LlamaForCausalLM") for p in (parameters, 2 * parameters))
    assert awq_bytes(smaller, group) < awq_bytes(larger, group)
    assert awq_bytes(smaller, 2 * group) < awq_bytes(smaller, group) < 2 * parameters


def model_folder(folder: Path, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**LLAMA_3_8B, "max_position_embeddings": 8192, **config}))
    return folder


def test_shapes_of_a_model_folder_are_used(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", hidden_size=576, num_attention_heads=9, intermediate_size=1536)
    finding = found(load_entry("llama-3-8b"), "t4x2", "group size", model_folder=folder)
    assert finding.verdict == "fail" and "quantize.group_size = 64" in finding.mend
    folder = model_folder(tmp_path / "m", max_position_embeddings=1024)
    assert found(load_entry("llama-3-8b"), "t4x2", "context", model_folder=folder).verdict == "fail"
    assert found(load_entry("llama-3-8b"), "t4x2", "labels", model_folder=folder).verdict == "fail", "no tokenizer.json"
    assert check_entry(load_entry("llama-3-8b"), load_target("t4x2"), model_folder=tmp_path)[0].check == "model"


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
