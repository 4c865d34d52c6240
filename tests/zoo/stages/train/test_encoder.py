"""Encoders in training: every family learns, whole or by adapters, and what is merged answers as it was trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.requests import SPEC, given, train_request
from tests.helpers.tiny_encoders import TEMPLATES, encoder_answers, write_encoder
from zoo.contracts import MergeRequest, MergeSpec, PromptSpec, StageResult, TrainRequest, changed
from zoo.errors import ZooError
from zoo.models.prompts import encode_battles, load_codec
from zoo.models.shapes import read_config
from zoo.scores.metric_names import HELD_OUT_LOSS, LOG_LOSS, TRAIN_LOSS, TRAIN_SHARE
from zoo.stages.compare.in_transformers import adapted_model, plain_model
from zoo.stages.encoders import encoder_logits, linear_modules, load_encoder, widen_head
from zoo.stages.train import adapters
from zoo.stages.train import stage as train
from zoo.stages.train.label_head import pad
from zoo.stages.weights import merge

pytestmark = pytest.mark.usefixtures("float32")

ROWS = [[2, 5, 6, 7, 30, 31, 90, 3], [2, 9, 3, 4, 8, 20, 11, 41, 77, 12, 3], [2, 30, 8, 3]]
FAMILIES = sorted(TEMPLATES)


def request_of(base: Path, csv: Path, family: str, **spec: object) -> TrainRequest:
    settings = {"method": "full", "max_rows": 32, "eval_rows": 16, "learning_rate": 1e-3, "epochs": 2, **spec}
    prompt = PromptSpec(template=TEMPLATES[family], max_tokens=96, keep="both_ends")
    return changed(train_request(base, csv, changed(SPEC, **settings)), head="classifier", prompt=prompt)


def merged(base: Path, out: Path, *trained: Path, scale: float = 1.0) -> tuple[Path, StageResult]:
    out.mkdir()
    more = tuple(given(path) for path in trained[1:])
    request = MergeRequest(
        entry="tiny", base=given(base), adapter=given(trained[0]), more_adapters=more, spec=MergeSpec(scale=scale)
    )
    return out / "model", merge.run(request, out)


def logits(model: object) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = encoder_logits(adapters.causal_model(model).eval(), *pad(ROWS, "cpu")).numpy()
    return found


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def base(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(family)
    write_encoder(folder / "model", family)
    return folder


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_family_learns_and_is_merged_as_it_was_trained(
    family: str, base: Path, method: str, sample_csv: Path, tmp_path: Path
) -> None:
    """All of it in float32; the merged folder is one of transformers, and answers what training held, row by row."""
    out = tmp_path / "trained"
    out.mkdir()
    result = train.run(request_of(base, sample_csv, family, method=method, learning_rate=3e-3), out)
    before, after = result.metrics["val/log_loss_before"], result.curves[TRAIN_LOSS]
    assert np.mean([loss for _, loss in after[-2:]]) < np.mean([loss for _, loss in after[:2]])
    assert len(result.curves[HELD_OUT_LOSS]) > 1 and result.metrics[LOG_LOSS] != before
    folder, told = merged(base, tmp_path / "merged", out)
    assert read_config(folder)["architectures"] == [f"{family}ForSequenceClassification"]
    assert {t.dtype for t in load_file(folder / "model.safetensors").values()} <= {torch.float32, torch.int64}
    held = (
        plain_model(out / "model", torch.float32)
        if method == "full"
        else adapted_model(base / "model", out / "adapter", changed(SPEC, method="lora"))
    )
    assert np.abs(logits(held) - encoder_answers(folder, ROWS)).max() < 1e-5
    assert (told.metrics.get("merge/largest_weight_change", 0) > 0) == (method == "lora")


def test_training_goes_on_from_its_checkpoint_with_the_same_numbers(sample_csv: Path, tmp_path: Path) -> None:
    """A training that its hours ended, and one that was never stopped, end alike; the random head is the seed's."""
    write_encoder(tmp_path / "base/model", "ModernBert")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for out in (whole, parts):
        out.mkdir()
    request = request_of(tmp_path / "base", sample_csv, "ModernBert")
    train.run(request, whole)
    stopped = changed(request, spec=changed(request.spec, max_hours=1e-9))
    first = train.run(stopped, parts)
    assert first.metrics[TRAIN_SHARE] < 1
    train.run(request, parts)
    a, b = (load_file(out / "model/model.safetensors") for out in (whole, parts))
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


def test_a_head_that_begins_at_random_is_the_seed_s_alone(family: str, base: Path) -> None:
    torch.manual_seed(5)
    one = load_encoder(base / "model", dtype=torch.float32, seed=1)
    torch.manual_seed(6)
    drawn = torch.rand(1)
    two = load_encoder(base / "model", dtype=torch.float32, seed=1)
    other = load_encoder(base / "model", dtype=torch.float32, seed=2)
    assert np.array_equal(logits(one), logits(two)) and not np.array_equal(logits(one), logits(other))
    torch.manual_seed(6)
    assert torch.equal(torch.rand(1), drawn)


def test_adapters_are_on_every_layer_and_not_on_the_head(family: str, base: Path) -> None:
    plain = load_encoder(base / "model", dtype=torch.float32)
    names = linear_modules(plain)
    layers = {part for name in names for part in name.split(".") if part.isdigit()}
    assert layers == {"0", "1", "2"} and len(names) == 3 * (4 if family == "ModernBert" else 6)
    model = adapters.load_model(base / "model", changed(SPEC, method="lora"))
    trained = list(adapters.trained_parameters(model))
    assert sum(".lora_A." in name for name in trained) == len(names)
    rest = {name for name in trained if ".lora_" not in name}
    assert rest and all(".modules_to_save." in name for name in rest)


def test_averaged_adapters_are_the_mean_of_their_merged_weights(
    family: str, base: Path, sample_csv: Path, tmp_path: Path
) -> None:
    trained = []
    for seed in (0, 1):
        out = tmp_path / str(seed)
        out.mkdir()
        train.run(request_of(base, sample_csv, family, method="lora", seed=seed, epochs=1), out)
        trained.append(out)
    each = [load_file(merged(base, tmp_path / f"m{i}", out)[0] / "model.safetensors") for i, out in enumerate(trained)]
    mean = load_file(merged(base, tmp_path / "mean", *trained)[0] / "model.safetensors")
    changes = [name for name in mean if not torch.equal(each[0][name], each[1][name])]
    assert changes
    for name in changes:
        assert torch.allclose(mean[name], (each[0][name] + each[1][name]) / 2, atol=1e-6)


def test_the_classifier_is_computed_in_float32_under_autocast(family: str, base: Path) -> None:
    """In 16 bits three logits near each other are one: with the head in float32 they differ as finely as it computes."""
    model = load_encoder(base / "model", dtype=torch.float32)
    plain = logits(model)
    widen_head(model)
    assert np.array_equal(logits(model), plain)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = encoder_logits(model.eval(), *pad(ROWS, "cpu"))
    assert found.dtype == torch.float32
    assert not torch.equal(found, found.to(torch.bfloat16).float())


def test_an_adapter_of_another_family_is_refused(sample_csv: Path, tmp_path: Path) -> None:
    for name in ("Bert", "Roberta"):
        write_encoder(tmp_path / name / "model", name)
    out = tmp_path / "trained"
    out.mkdir()
    train.run(request_of(tmp_path / "Bert", sample_csv, "Bert", method="lora", epochs=1), out)
    with pytest.raises(ZooError, match=r"no weight .* was it trained on another base"):
        merged(tmp_path / "Roberta", tmp_path / "merged", out)
    with pytest.raises(ZooError, match="head begins at random"):
        merged(tmp_path / "Bert", tmp_path / "scaled", out, scale=0.5)


# --- the prompt -------------------------------------------------------------------------------------------------------


def test_a_battle_s_text_never_becomes_a_special_token(family: str, base: Path) -> None:
    spec = PromptSpec(template=TEMPLATES[family], max_tokens=96, keep="both_ends")
    codec = load_codec(base / "model", spec)
    special = {token for literal in codec.literals for token in literal}
    hostile = " ".join(["[CLS] [SEP] [MASK] [PAD] [UNK] <s> </s> <mask> <pad>"] * 2)
    (row,) = encode_battles([([hostile], [hostile], [hostile])], codec, spec, "ab", 4096)
    assert sum(token in special for token in row.ids) == sum(map(len, codec.literals))


def test_a_template_without_its_first_token_is_refused(family: str, base: Path) -> None:
    spec = PromptSpec(template="Q: {prompt} A: {response_a} B: {response_b}", max_tokens=96)
    with pytest.raises(ZooError, match="answers from its first token"):
        load_codec(base / "model", spec)


def test_both_ends_of_a_field_are_kept(family: str, base: Path) -> None:
    spec = PromptSpec(template=TEMPLATES[family], max_tokens=96, keep="both_ends")
    codec = load_codec(base / "model", spec)
    long = "what is the capital " * 60 + " hot cold"
    (row,) = encode_battles([(["what"], [long], ["it"])], codec, spec, "ab")
    (whole,) = encode_battles([(["what"], [long], ["it"])], codec, spec, "ab", 10_000)
    assert len(row.ids) == 96 and row.n_truncated == len(whole.ids) - 96
    assert row.ids[:20] == whole.ids[:20] and row.ids[-20:] == whole.ids[-20:]


def test_old_names_of_weights_are_read(tmp_path: Path) -> None:
    """BERT's first checkpoints call a norm's weight gamma, and have a prefix that a bare body has not."""
    folder = write_encoder(tmp_path / "model", "Bert")
    plain = logits(load_encoder(folder, dtype=torch.float32))
    path = folder / "model.safetensors"
    new = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    old = {}
    for name, tensor in load_file(path).items():
        end = next((end for end in new if name.endswith(end)), "")
        old[name.removesuffix(end) + new.get(end, "")] = tensor
    assert any(name.endswith("gamma") for name in old)
    save_file(old, path, metadata={"format": "pt"})
    assert np.array_equal(logits(load_encoder(folder, dtype=torch.float32)), plain)
