"""AWQ backends elsewhere: compressed-tensors' layout against its own code, interpreters, and the whole where they are."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from zoo.contracts import Held, Input, PromptSpec, Quantizer, QuantizeRequest, QuantizeSpec
from zoo.errors import ZooError
from zoo.settings import backend_interpreter
from zoo.stages.quantize import awq_format, backends
from zoo.stages.quantize import stage as quantize
from zoo.stages.quantize.layerwise import Weights

compressed_tensors = pytest.importorskip("compressed_tensors", reason="comes with vLLM")


def packed(weight: torch.Tensor, group_size: int, *, symmetric: bool) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A weight as compressed-tensors stores it, and as compressed-tensors itself reads that."""
    from compressed_tensors.compressors.pack_quantized import base
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams

    args = QuantizationArgs(num_bits=4, type="int", strategy="group", group_size=group_size, symmetric=symmetric)
    grouped = weight.view(weight.shape[0], -1, group_size)
    scale, zero = calculate_qparams(grouped.amin(-1), grouped.amax(-1), args)
    state = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero.to(torch.int8)}
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    stored = base.PackedQuantizationCompressor.compress(state, scheme)
    read = base.PackedQuantizationCompressor.decompress(dict(stored), scheme)["weight"]
    return stored, read


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("out_size", "in_size", "group_size"), [(64, 128, 32), (24, 192, 64), (8, 128, 128)])
def test_packed_weights_are_read_as_compressed_tensors_reads_them(
    out_size: int, in_size: int, group_size: int, symmetric: bool
) -> None:
    weight = torch.randn(out_size, in_size, generator=torch.Generator().manual_seed(out_size)) + 0.3
    stored, expected = packed(weight, group_size, symmetric=symmetric)
    zero_point = stored.get("weight_zero_point")
    assert (zero_point is None) == symmetric
    ours = awq_format.dequantize_packed(
        stored["weight_packed"], stored["weight_scale"], zero_point, tuple(stored["weight_shape"].tolist())
    )
    assert torch.allclose(ours, expected, atol=1e-6)
    assert (ours - weight).norm() / weight.norm() < 0.2


@pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj.weight_scale", "model.layers.0.mlp.up_proj.scales"])
def test_scales_are_kept_in_float16_and_refused_where_it_has_no_room(tiny_llama: Path, name: str) -> None:
    """In the layout of either backend."""
    original = Weights(tiny_llama)
    assert backends.stored(name, torch.tensor([0.5, 6e4]), original).dtype == torch.float16
    for scale in (7e4, float("nan")):
        with pytest.raises(ZooError, match=f"{name}: scales are not finite in float16"):
            backends.stored(name, torch.tensor([0.5, scale]), original)


@pytest.fixture
def packed_model(tiny_llama: Path, tmp_path: Path) -> Path:
    """The tiny model with every matrix of its layers rounded by compressed-tensors."""
    folder = tmp_path / "packed"
    shutil.copytree(tiny_llama, folder)
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(tiny_llama / "model.safetensors").items():
        if tensor.ndim == 2 and ".layers." in name:
            module = name.removesuffix(".weight")
            stored, _ = packed(tensor.float(), 32, symmetric=False)
            tensors |= {f"{module}.{part}": value.contiguous() for part, value in stored.items()}
        else:
            tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "compressed-tensors"}}))
    return folder


def test_plain_copy_of_a_packed_checkpoint_is_whole_and_loads(packed_model: Path, tiny_llama: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    awq_format.write_dequantized(packed_model, tmp_path / "plain")
    original, plain = Weights(tiny_llama), Weights(tmp_path / "plain")
    assert set(original) == set(plain)
    errors = awq_format.weight_errors(tiny_llama, packed_model)
    assert len(errors) == 14 and 0 < max(errors.values()) < 0.2
    model, whole = (AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32) for f in (tmp_path / "plain", tiny_llama))
    ids = torch.arange(40)[None]
    with torch.no_grad():
        off = (model(ids).logits - whole(ids).logits).norm() / whole(ids).logits.norm()
    assert 0 < float(off) < 0.3


def test_a_broken_packed_weight_is_refused(packed_model: Path, tiny_llama: Path) -> None:
    tensors = load_file(packed_model / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight_scale"
    tensors[name][0, 0] = float("nan")
    save_file(tensors, packed_model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ZooError, match=r"layers\.1\.mlp\.up_proj.*not finite"):
        awq_format.weight_errors(tiny_llama, packed_model)


ELSEWHERE: tuple[tuple[Quantizer, str], ...] = (("llm-compressor", "llmcompressor"), ("auto-round", "autoround"))


def name_interpreter(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("[environments]\n" + "".join(f'{backend} = "{path}"\n' for backend, _ in ELSEWHERE))
    monkeypatch.setenv("ZOO_SETTINGS", str(settings))


@pytest.mark.parametrize(("backend", "name"), ELSEWHERE)
def test_a_missing_interpreter_names_the_command(
    backend: Quantizer, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_interpreter(tmp_path / "none", tmp_path, monkeypatch)
    with pytest.raises(ZooError, match=rf"{backend}.*make setup-{name}"):
        backend_interpreter(backend)


@pytest.mark.parametrize(("backend", "module"), [("llm-compressor", "llmcompressor"), ("auto-round", "auto_round")])
def test_an_interpreter_without_it_says_so(
    backend: Quantizer, module: str, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This interpreter runs the worker and has no backend: the worker's last line comes through."""
    name_interpreter(Path(sys.executable), tmp_path, monkeypatch)
    request = request_for(tiny_llama, tmp_path / "battles.csv", tmp_path, backend)
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "saved").touch()  # of a killed run
    with pytest.raises(ZooError, match=f"{backend} in .*exit code 1: ModuleNotFoundError: No module named '{module}'"):
        backends.quantize(tiny_llama, tmp_path / "model", [[1] * 64] * 2, request)
    assert not (tmp_path / "model").exists() and not (tmp_path / "scratch").exists()


def test_attention_with_a_soft_cap_is_calibrated_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers leaves Gemma 2's cap out by default: the worker is told to load it as every other stage does."""
    from transformers import Gemma2Config

    Gemma2Config(num_hidden_layers=1).save_pretrained(tmp_path / "gemma")
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\ncp "$3" {tmp_path}/job.json\nexit 1\n')
    interpreter.chmod(0o755)
    name_interpreter(interpreter, tmp_path, monkeypatch)
    request = request_for(tmp_path / "gemma", tmp_path / "battles.csv", tmp_path)
    with pytest.raises(ZooError, match="exit code 1"):
        backends.quantize(tmp_path / "gemma", tmp_path / "model", [[1] * 64] * 2, request)
    job = json.loads((tmp_path / "job.json").read_text())
    assert job["options"] == {"attn_implementation": "eager"}
    assert set(type(request.spec).model_fields) <= set(job), "also those that fingerprints leave out at their default"


def request_for(model: Path, battles: Path, folder: Path, backend: Quantizer = "llm-compressor") -> QuantizeRequest:
    source = folder / "merged"
    source.mkdir()
    (source / "model").symlink_to(model)
    return QuantizeRequest(
        entry="tiny",
        model=Input(path=source, fingerprint="model"),
        battles=Input(path=battles, fingerprint="battles"),
        held=Held(),
        prompt=PromptSpec(template="{prompt}{response_a}{response_b}<|end|>", max_tokens=256),
        spec=QuantizeSpec(backend=backend, group_size=32, calibration_rows=4, calibration_tokens=64, iterations=5),
    )


@pytest.mark.chain
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("backend", "name"), ELSEWHERE)
def test_the_backend_makes_a_checkpoint_that_is_close_to_its_source(
    backend: Quantizer, name: str, tiny_llama: Path, sample_csv: Path, tmp_path: Path
) -> None:
    try:
        backend_interpreter(backend)
    except ZooError:
        pytest.skip(f"make setup-{name} has not been run")
    out = tmp_path / "out"
    out.mkdir()
    result = quantize.run(request_for(tiny_llama, sample_csv, tmp_path, backend), out)
    config = json.loads((out / "model" / "config.json").read_text())["quantization_config"]
    if backend == "auto-round":
        assert (config["quant_method"], config["version"], config["zero_point"]) == ("awq", "gemm", True)
    else:
        assert config["quant_method"] == "compressed-tensors" and config["format"] == "pack-quantized"
    assert len(awq_format.weight_errors(tiny_llama, out / "model")) == 14
    assert 0 < result.metrics["quant/weight_error_mean"] < 0.3
    awq_format.write_dequantized(out / "model", tmp_path / "plain")
    assert set(Weights(tmp_path / "plain")) == set(Weights(tiny_llama))
    assert [path.name for path in out.iterdir() if path.is_dir()] == ["model"], "nothing of the worker is left"
