"""The model stages on a tiny real model: each against an independent implementation or an invariant, in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.contracts import (
    Base,
    FetchRequest,
    Held,
    Input,
    MergeRequest,
    MergeSpec,
    PromptSpec,
    QuantizeRequest,
    QuantizeSpec,
    TrainRequest,
    TrainSpec,
)
from zoo.errors import ZooError
from zoo.models.prompts import load_codec
from zoo.stages.quantize import awq_format
from zoo.stages.quantize import stage as quantize
from zoo.stages.train import adapters, batches
from zoo.stages.train import label_head as labels
from zoo.stages.train import stage as train
from zoo.stages.weights import fetch, merge

TEMPLATE = "<|user|>\nPrompt: {prompt}\nA: {response_a}\nB: {response_b}\nWho wins?<|end|>\n"
PROMPT = PromptSpec(template=TEMPLATE, max_tokens=160)
BASE = Base(hub_id="test/tiny", architecture="LlamaForCausalLM", parameters=300_000, licence="none")
SPEC = TrainSpec(rank=4, alpha=8, dropout=0.0, learning_rate=5e-3, eval_rows=30, max_rows=64, batch_rows=16)


def given(path: Path, name: str = "x") -> Input:
    return Input(path=path, fingerprint=name)


@pytest.fixture(scope="module")
def base(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fetch")
    request = FetchRequest(entry="tiny", base=BASE, source="folder", folder=given(tiny_llama))
    fetch.run(request, out)
    return out


def train_request(base: Path, csv: Path, spec: TrainSpec = SPEC) -> TrainRequest:
    return TrainRequest(entry="tiny", base=given(base), battles=given(csv), held=Held(), prompt=PROMPT, spec=spec)


@pytest.fixture(scope="module")
def trained(base: Path, sample_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("train")
    train.run(train_request(base, sample_csv), out)
    return out


@pytest.fixture(scope="module")
def merged(base: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("merge")
    merge.run(MergeRequest(entry="tiny", base=given(base), adapter=given(trained), spec=MergeSpec()), out)
    return out


def test_label_logits_are_those_of_the_full_head(tiny_llama: Path) -> None:
    """Oracle: transformers' own full-vocabulary logits, one row at a time, without padding."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    rows = [[5, 6, 7], [9, 3, 4, 8, 20, 11], [30]]
    ids, mask = labels.pad(rows, "cpu")
    with torch.no_grad():
        ours = labels.label_logits(model, ids, mask, (3, 4, 5))
        full = torch.stack([model(torch.tensor([row])).logits[0, -1, [3, 4, 5]] for row in rows])
    assert torch.allclose(ours, full, atol=1e-5)


def test_every_row_stands_in_one_micro_batch_within_its_tokens() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 300, 137).tolist()
    spec = TrainSpec(batch_rows=16, micro_batch_tokens=600)
    steps = batches.plan_steps(lengths, spec, epoch=0)
    flat = [i for step in steps for batch in step for i in batch]
    assert sorted(flat) == list(range(137))
    assert all(len(b) * max(lengths[i] for i in b) <= 600 or len(b) == 1 for step in steps for b in step)
    assert batches.plan_steps(lengths, spec, epoch=0) == steps != batches.plan_steps(lengths, spec, epoch=1)


def test_an_adapter_names_no_path_and_leaves_no_checkpoint(trained: Path) -> None:
    config = json.loads((trained / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None and config["r"] == 4
    assert (trained / "adapter" / "adapter_model.safetensors").exists()
    assert not (trained / "checkpoint").exists()


def test_training_learns_its_rows(base: Path, sample_csv: Path, tmp_path: Path, float32: None) -> None:
    """Sixteen rows seen forty times: even a tiny random model must come to know them."""
    spec = SPEC.model_copy(update={"max_rows": 16, "epochs": 40.0, "learning_rate": 2e-2, "swap_orders": False})
    losses = [loss for _, loss in train.run(train_request(base, sample_csv, spec), tmp_path).curves["train/loss"]]
    assert losses[-1] < 0.7 * losses[0]


def test_full_fine_tuning_goes_through_merge(base: Path, sample_csv: Path, tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"method": "full", "max_rows": 16, "learning_rate": 1e-4})
    (tmp_path / "train").mkdir()
    (tmp_path / "merge").mkdir()
    train.run(train_request(base, sample_csv, spec), tmp_path / "train")
    request = MergeRequest(entry="tiny", base=given(base), adapter=given(tmp_path / "train"), spec=MergeSpec())
    merge.run(request, tmp_path / "merge")
    assert load_codec(tmp_path / "merge" / "model", PROMPT).label_ids == load_codec(base / "model", PROMPT).label_ids


def test_a_killed_training_run_ends_with_the_same_weights(
    base: Path, sample_csv: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    real, saved = train.save_checkpoint, []

    def save_then_die(*arguments: object, **options: bool) -> None:
        real(*arguments, **options)  # type: ignore[arg-type]
        saved.append(1)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "save_checkpoint", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        train.run(train_request(base, sample_csv), tmp_path)
    monkeypatch.setattr(train, "save_checkpoint", real)
    resumed = train.run(train_request(base, sample_csv), tmp_path)
    steps = [step for step, _ in resumed.curves["train/loss"]]
    assert steps == list(range(1, 5))  # 64 rows, 16 a step: none twice, none left out
    ours, whole = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (tmp_path, trained))
    assert all(torch.allclose(ours[name], whole[name], atol=1e-6) for name in whole)


def test_the_merged_model_is_the_one_that_was_trained(base: Path, trained: Path, merged: Path) -> None:
    """Oracle: NF4 weights and adapter side by side, as in training. The original weights and the adapter are further off."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    generator = np.random.default_rng(0)
    ids, mask = labels.pad([generator.integers(3, 250, 40).tolist() for _ in range(16)], "cpu")

    def logits(model: torch.nn.Module) -> torch.Tensor:
        with torch.no_grad():
            return labels.label_logits(adapters.causal_model(model).eval(), ids, mask, (30, 31, 32))

    plain = AutoModelForCausalLM.from_pretrained(base / "model", dtype=torch.float32)
    in_training = logits(PeftModel.from_pretrained(adapters.load_base(base / "model", SPEC), trained / "adapter"))
    ours = logits(AutoModelForCausalLM.from_pretrained(merged / "model", dtype=torch.float32))
    onto_originals = logits(PeftModel.from_pretrained(plain, trained / "adapter"))
    assert (ours - in_training).abs().max() < 0.1 * (onto_originals - in_training).abs().max()


def test_an_adapter_from_elsewhere_merges_as_peft_merges_it(base: Path, trained: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    shutil.copytree(trained / "adapter", tmp_path / "given" / "adapter")  # without a word on what it was trained on
    (tmp_path / "out").mkdir()
    request = MergeRequest(entry="tiny", base=given(base), adapter=given(tmp_path / "given"), spec=MergeSpec())
    merge.run(request, tmp_path / "out")
    plain = AutoModelForCausalLM.from_pretrained(base / "model", dtype=torch.bfloat16)
    oracle = PeftModel.from_pretrained(plain, trained / "adapter").merge_and_unload().state_dict()
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model", dtype=torch.bfloat16).state_dict()
    changed = 0
    for name, weight in AutoModelForCausalLM.from_pretrained(base / "model", dtype=torch.bfloat16).state_dict().items():
        assert torch.allclose(ours[name].float(), oracle[name].float(), atol=2**-8 * oracle[name].abs().max().item())
        changed += not torch.equal(ours[name], weight)
    assert changed == 2 * 7  # seven projections in each of two layers


def test_merge_refuses_an_adapter_of_another_base(trained: Path, tmp_path: Path, make_tiny_llama: Callable[..., Path]) -> None:
    make_tiny_llama(tmp_path / "other" / "model", num_hidden_layers=1)
    request = MergeRequest(entry="tiny", base=given(tmp_path / "other"), adapter=given(trained), spec=MergeSpec())
    (tmp_path / "out").mkdir()
    with pytest.raises(ZooError, match="trained on another base"):
        merge.run(request, tmp_path / "out")


def quantize_request(merged: Path, csv: Path, **spec: object) -> QuantizeRequest:
    settings = {"group_size": 32, "calibration_rows": 4, "calibration_tokens": 64, "apply_clip": False}
    return QuantizeRequest(
        entry="tiny",
        model=given(merged),
        battles=given(csv),
        held=Held(),
        prompt=PROMPT,
        spec=QuantizeSpec(**{**settings, **spec}),  # type: ignore[arg-type]
    )


def test_awq_checkpoint_is_whole_and_close_to_its_source(merged: Path, sample_csv: Path, tmp_path: Path) -> None:
    result = quantize.run(quantize_request(merged, sample_csv), tmp_path)
    # Round-to-nearest of Gaussian weights in groups of 32 with 16 levels is off by about 0.08 of their norm.
    assert 0.03 < result.metrics["quant/weight_error_mean"] < 0.15
    assert result.metrics["quant/layer_error_max"] < 0.3
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "awq" and config["quantization_config"]["group_size"] == 32
    assert (tmp_path / "model" / "tokenizer.json").exists()


def test_quantized_layers_compute_what_the_model_did(
    make_tiny_llama: Callable[..., Path], sample_csv: Path, tmp_path: Path
) -> None:
    """Oracle: the model itself in transformers. Scales moved between weights and norms must cancel, whatever was searched.

    The weights' input channels differ in size, as real ones do: autoawq as it comes fails this on a CPU, because its search
    scales the weights that it meant to keep.
    """
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    folder = make_tiny_llama(tmp_path / "uneven" / "model")
    weights, generator = load_file(folder / "model.safetensors"), torch.Generator().manual_seed(0)
    for name, weight in weights.items():
        if name.endswith("_proj.weight"):
            weights[name] = weight * torch.exp(0.5 * torch.randn(weight.shape[1], generator=generator)).to(weight.dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    request = quantize_request(folder.parent, sample_csv)
    result = quantize.run(request, tmp_path)
    awq_format.write_dequantized(tmp_path / "model", tmp_path / "plain")
    ids = torch.tensor([quantize.calibration_blocks(request)[0]])
    outputs = []
    for path in (folder, tmp_path / "plain"):
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        with torch.no_grad():
            outputs.append(model(ids).logits[0])
    assert result.metrics["quant/layer_error_max"] < 0.4
    assert ((outputs[1] - outputs[0]).norm() / outputs[0].norm()).item() < 0.4


def test_dequantize_reads_autoawq_s_layout() -> None:
    """Oracle: autoawq's own packing, given integers and scales chosen here."""
    from awq.modules.linear.gemm import WQLinear_GEMM

    generator = torch.Generator().manual_seed(0)
    scales = torch.rand(2, 32, generator=generator).half() + 0.1  # groups x out
    zeros = torch.randint(0, 16, (2, 32), generator=generator).half()
    wide_s, wide_z = scales.repeat_interleave(32, 0).T, zeros.repeat_interleave(32, 0).T
    weight = (torch.randint(0, 16, (32, 64), generator=generator).half() - wide_z) * wide_s
    linear = torch.nn.Linear(64, 32, bias=False).half()
    linear.weight.data = weight
    with torch.no_grad():
        packed = WQLinear_GEMM.from_linear(linear, 4, 32, scales=scales, zeros=zeros)
    assert torch.allclose(awq_format.dequantize(packed.qweight, packed.qzeros, packed.scales), weight.float(), atol=2e-2)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"group_size": 48}, r"group_size 48 does not divide .* set quantize.group_size = 128"),
        ({"calibration_tokens": 10**6}, "needs at least"),
    ],
)
def test_quantize_refuses_what_cannot_work(merged: Path, sample_csv: Path, tmp_path: Path, spec: dict, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        quantize.run(quantize_request(merged, sample_csv, **spec), tmp_path)


def test_quantize_refuses_unsupported_architectures() -> None:
    with pytest.raises(ZooError, match="autoawq cannot quantize model_type 'gpt2'"):
        quantize.check_supported({"model_type": "gpt2"}, Path("model"))


def test_fetch_says_what_a_folder_lacks(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    request = FetchRequest(entry="tiny", base=BASE, source="folder", folder=given(tmp_path / "model"))
    (tmp_path / "out").mkdir()
    with pytest.raises(ZooError, match=r"no config\.json; point to the folder"):
        fetch.run(request, tmp_path / "out")


def test_averaged_adapters_are_the_mean_of_the_merged_models(
    base: Path, sample_csv: Path, trained: Path, tmp_path: Path
) -> None:
    """Oracle: each adapter merged by itself, then the mean of the weights. The mean of A and of B would be another model."""
    from safetensors.torch import load_file

    for name in ("other", "one", "two", "both"):
        (tmp_path / name).mkdir()
    train.run(train_request(base, sample_csv, SPEC.model_copy(update={"seed": 1})), tmp_path / "other")
    inputs = {
        "one": (given(trained), ()),
        "two": (given(tmp_path / "other"), ()),
        "both": (given(trained), (given(tmp_path / "other"),)),
    }
    weights = {}
    for name, (first, more) in inputs.items():
        request = MergeRequest(entry="tiny", base=given(base), adapter=first, more_adapters=more, spec=MergeSpec())
        merge.run(request, tmp_path / name)
        weights[name] = load_file(tmp_path / name / "model" / "model.safetensors")
    for key, both in weights["both"].items():
        one, two = weights["one"][key].float(), weights["two"][key].float()
        rounding = 2**-8 * (both.float().abs() + (one.abs() + two.abs()) / 2)  # each of the three is stored in bfloat16
        assert ((both.float() - (one + two) / 2).abs() <= rounding).all()


@pytest.mark.parametrize("options", [{"rslora": True}, {"dora": True}])
def test_merged_variants_of_lora_are_what_peft_computes(
    base: Path, sample_csv: Path, tmp_path: Path, options: dict[str, bool]
) -> None:
    """Oracle: peft's own forward pass with the adapter beside the weights."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    for name in ("train", "merge"):
        (tmp_path / name).mkdir()
    spec = SPEC.model_copy(update={"method": "lora", **options})
    train.run(train_request(base, sample_csv, spec), tmp_path / "train")
    request = MergeRequest(entry="tiny", base=given(base), adapter=given(tmp_path / "train"), spec=MergeSpec())
    merge.run(request, tmp_path / "merge")
    ids, mask = labels.pad([[5, 6, 7, 30, 31], [9, 3, 4, 8, 20, 11]], "cpu")
    plain = AutoModelForCausalLM.from_pretrained(base / "model", dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merge" / "model", dtype=torch.float32)
    with torch.no_grad():
        before, ours = (labels.label_logits(model.eval(), ids, mask, (30, 31, 32)) for model in (plain, merged))
        beside = PeftModel.from_pretrained(plain, tmp_path / "train" / "adapter").eval()
        expected = labels.label_logits(adapters.causal_model(beside), ids, mask, (30, 31, 32))
    assert (ours - expected).abs().max() < 0.15 * (before - expected).abs().max()


def test_merging_keeps_every_other_byte(base: Path, merged: Path) -> None:
    """The header and the tensors that no adapter touches are the base's own."""
    from safetensors.torch import load_file

    before, after = (path / "model" / "model.safetensors" for path in (base, merged))
    assert before.stat().st_size == after.stat().st_size
    old, new = load_file(before), load_file(after)
    assert {n for n in old if not torch.equal(old[n], new[n])} == {n for n in old if n.endswith("_proj.weight")}
