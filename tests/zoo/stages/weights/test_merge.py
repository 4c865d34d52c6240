"""Merged weights against peft's own arithmetic, against the model in training, and byte by byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.requests import PROMPT, SPEC, given, train_request
from tests.helpers.tiny_models import write_tiny_llama
from zoo.contracts import (
    MergeRequest,
    MergeSpec,
)
from zoo.errors import ZooError
from zoo.models.prompts import load_codec
from zoo.stages.train import adapters
from zoo.stages.train import label_head as labels
from zoo.stages.train import stage as train
from zoo.stages.weights import merge


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


def test_merge_refuses_an_adapter_of_another_base(trained: Path, tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "other" / "model", num_hidden_layers=1)
    request = MergeRequest(entry="tiny", base=given(tmp_path / "other"), adapter=given(trained), spec=MergeSpec())
    (tmp_path / "out").mkdir()
    with pytest.raises(ZooError, match="trained on another base"):
        merge.run(request, tmp_path / "out")


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


def test_full_fine_tuning_goes_through_merge(base: Path, sample_csv: Path, tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"method": "full", "max_rows": 16, "learning_rate": 1e-4})
    (tmp_path / "train").mkdir()
    (tmp_path / "merge").mkdir()
    train.run(train_request(base, sample_csv, spec), tmp_path / "train")
    request = MergeRequest(entry="tiny", base=given(base), adapter=given(tmp_path / "train"), spec=MergeSpec())
    merge.run(request, tmp_path / "merge")
    assert load_codec(tmp_path / "merge" / "model", PROMPT).label_ids == load_codec(base / "model", PROMPT).label_ids
