"""The classifier head: it begins where label tokens are, learns, and survives peft, merging and averaging."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.helpers.requests import SPEC, given, train_request
from tests.helpers.tiny_models import write_tiny_llama
from zoo.contracts import MergeRequest, MergeSpec, TrainRequest, TrainSpec, changed
from zoo.errors import ZooError
from zoo.models.heads import CLASSIFIERS
from zoo.models.shapes import count_parameters, embedding_parameters, of_head, read_config, shape_of_config, with_head
from zoo.stages.compare.in_transformers import adapted_model, plain_model
from zoo.stages.train import adapters
from zoo.stages.train import label_head as labels
from zoo.stages.train import stage as train
from zoo.stages.train.classifier import label_rows
from zoo.stages.train.scaling import scale_update
from zoo.stages.weights import merge

pytestmark = pytest.mark.usefixtures("float32")

IDS = (30, 31, 32)
ROWS = [[5, 6, 7, 30, 31, 90], [9, 3, 4, 8, 20, 11, 41, 77, 12], [30, 8]]


def logits(model: object) -> torch.Tensor:
    with torch.no_grad():
        return labels.label_logits(adapters.causal_model(model).eval(), *labels.pad(ROWS, "cpu"), IDS)


def write_tiny_gemma2(folder: Path) -> Path:
    """A two-layer Gemma 2 whose final soft-cap bends its logits: they are up to 30, and the cap 4."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    folder.mkdir(parents=True)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 32, "vocab_size": 320}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "query_pre_attn_scalar": 32, "sliding_window": 32}
    torch.manual_seed(1)
    model = Gemma2ForCausalLM(Gemma2Config(**shape, **heads, final_logit_softcapping=4.0, pad_token_id=0))
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_(std=0.5)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["tied", "untied", "gemma2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp(request.param) / "model"
    if request.param == "gemma2":
        return write_tiny_gemma2(place)
    return write_tiny_llama(place, tie_word_embeddings=request.param == "tied")


@pytest.mark.parametrize("method", ["qlora", "lora", "full"])
def test_a_classifier_begins_where_label_tokens_are(folder: Path, method: str) -> None:
    """At step 0 both heads are one function, whatever is trained, and a family's soft-cap is in both."""
    spec = TrainSpec(method=method, rank=4)
    by_tokens, by_classifier = (logits(adapters.load_model(folder, spec, start)) for start in (None, IDS))
    assert torch.allclose(by_classifier, by_tokens, atol=1e-5)
    assert by_tokens.std() > 0.01
    if "gemma2" in str(folder):
        assert by_tokens.abs().max() < 4


def test_the_rows_of_an_untied_head_are_not_the_embedding_s(tmp_path: Path) -> None:
    untied = write_tiny_llama(tmp_path / "model", tie_word_embeddings=False)
    with safe_open(untied / "model.safetensors", "pt") as file:
        assert torch.equal(label_rows(untied, IDS), file.get_tensor("lm_head.weight")[list(IDS)])


def test_every_family_has_its_class_in_transformers() -> None:
    import transformers

    assert all(hasattr(transformers, name) for pair in CLASSIFIERS.items() for name in pair)


# --- trained ----------------------------------------------------------------------------------------------------------


def request_of(base: Path, csv: Path, **spec: object) -> TrainRequest:
    settings = changed(SPEC, **{"max_rows": 32, "eval_rows": 8, "method": "lora", **spec})
    return changed(train_request(base, csv, settings), head="classifier")


@pytest.fixture(scope="module")
def trained(untied: Path, sample_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    train.run(request_of(untied, sample_csv), out)
    return out


def merged(base: Path, out: Path, *trained: Path, scale: float = 1.0) -> Path:
    out.mkdir()
    more = tuple(given(path) for path in trained[1:])
    request = MergeRequest(
        entry="tiny", base=given(base), adapter=given(trained[0]), more_adapters=more, spec=MergeSpec(scale=scale)
    )
    merge.run(request, out)
    return out / "model"


def score_of(folder: Path) -> torch.Tensor:
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
        head: torch.Tensor = file.get_tensor("score.weight")
        return head


def test_an_adapter_with_its_head_is_what_plain_peft_loads(untied: Path, trained: Path) -> None:
    """Oracle: peft on transformers' own class, which knows nothing of this project. The head has learned."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    plain = AutoModelForSequenceClassification.from_pretrained(untied / "model", num_labels=3, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(plain, trained / "adapter").eval()
    ours = adapted_model(untied / "model", trained / "adapter", TrainSpec(method="lora"))
    with torch.no_grad():
        expected = torch.cat([theirs(torch.tensor([row])).logits for row in ROWS])
    assert torch.allclose(logits(ours), expected, atol=1e-5)
    head = adapters.causal_model(ours).score
    assert (head.weight - head.original_module.weight).abs().max() > 0.001
    assert torch.equal(head.original_module.weight, label_rows(untied / "model", load_ids(trained)).float())


def load_ids(trained: Path) -> list[int]:
    ids: list[int] = json.loads((trained / "head.json").read_text())["label_ids"]
    return ids


def test_the_merged_folder_is_one_of_sequence_classification(untied: Path, trained: Path, tmp_path: Path) -> None:
    """Oracle: transformers' own forward pass of the folder; and adapter and base side by side, but for bfloat16's rounding."""
    from transformers import AutoModelForSequenceClassification

    folder = merged(untied, tmp_path / "merged", trained)
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert config["id2label"] == {"0": "a", "1": "b", "2": "tie"}
    plain, report = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    with torch.no_grad():
        expected = torch.cat([plain.eval()(torch.tensor([row])).logits for row in ROWS])
    ours = logits(plain_model(folder, torch.float32))
    assert torch.allclose(ours, expected, atol=1e-5)
    shape = of_head(shape_of_config(read_config(untied / "model")), "classifier")
    assert with_head(count_parameters(untied / "model"), shape) == count_parameters(folder)
    assert embedding_parameters(shape) == embedding_parameters(shape_of_config(read_config(folder)))
    side_by_side = logits(adapted_model(untied / "model", trained / "adapter", TrainSpec(method="lora")))
    untrained = logits(plain_model(untied / "model", torch.float32))
    assert (ours - side_by_side).abs().max() < 0.1 * (ours - untrained).abs().max()


def test_heads_are_averaged_and_scaled_with_the_rest(untied: Path, trained: Path, sample_csv: Path, tmp_path: Path) -> None:
    """A head's way from the label rows is an update as any other: the mean over folds, and a part of it."""
    (tmp_path / "other").mkdir()
    train.run(request_of(untied, sample_csv, seed=5), tmp_path / "other")
    own, other, mean, half = (
        score_of(merged(untied, tmp_path / str(i), *paths, scale=scale)).float()
        for i, (paths, scale) in enumerate(
            (((trained,), 1.0), ((tmp_path / "other",), 1.0), ((trained, tmp_path / "other"), 1.0), ((trained,), 0.5))
        )
    )
    start = label_rows(untied / "model", load_ids(trained)).float()
    assert (own - other).abs().max() > 0.001
    assert torch.allclose(mean, (own + other) / 2, atol=2e-3)
    assert torch.allclose(half, (start + own) / 2, atol=2e-3)


def test_a_head_that_is_not_on_both_sides_is_refused(untied: Path, trained: Path, tmp_path: Path) -> None:
    """Else what it learned would be left out of the merged weights, or of those that a training goes on from."""
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(trained, other)
    (other / "head.json").unlink()
    with pytest.raises(ZooError, match=r"its adapter has a classifier, and no head\.json"):
        merged(untied, tmp_path / "merged", other)
    with pytest.raises(ZooError, match="adapters of one head alone are averaged"):
        merged(untied, tmp_path / "both", trained, other)
    weights = load_file(other / "adapter" / "adapter_model.safetensors")
    save_file({name: weights[name] for name in weights if "score" not in name}, other / "adapter" / "adapter_model.safetensors")
    model = adapters.load_model(untied / "model", TrainSpec(method="lora", rank=4), IDS)
    with pytest.raises(ZooError, match=r"has no tensor .*score\.weight"):
        adapters.start_from(model, other / "adapter")


def test_a_part_of_the_update_is_the_same_beside_the_base_and_merged(untied: Path, trained: Path, tmp_path: Path) -> None:
    """The factor that `train.scales` tries in training is the one that merging takes, head and body alike."""
    whole, half = (adapted_model(untied / "model", trained / "adapter", TrainSpec(method="lora")) for _ in range(2))
    scale_update(half, 0.5)
    merged_half = logits(plain_model(merged(untied, tmp_path / "half", trained, scale=0.5), torch.float32))
    off = (merged_half - logits(half)).abs().max()
    assert off < 0.1 * (logits(whole) - logits(half)).abs().max()


def test_full_fine_tuning_keeps_the_classifier(untied: Path, sample_csv: Path, tmp_path: Path) -> None:
    (tmp_path / "trained").mkdir()
    train.run(request_of(untied, sample_csv, method="full", learning_rate=1e-3), tmp_path / "trained")
    folder = merged(untied, tmp_path / "merged", tmp_path / "trained")
    head = score_of(folder)
    assert head.shape == (3, 128) and head.dtype == torch.bfloat16
    assert torch.isfinite(logits(plain_model(folder, torch.float32))).all()


def test_a_training_goes_on_from_a_classifier(untied: Path, trained: Path, sample_csv: Path, tmp_path: Path) -> None:
    """What it starts from is the adapter with its head: before its first step it is as good as the other was in the end."""
    request = changed(request_of(untied, sample_csv), start=given(trained))
    result = train.run(request, tmp_path)
    kept = adapted_model(untied / "model", trained / "adapter", TrainSpec(method="lora"))
    assert result.metrics["val/log_loss_before"] == pytest.approx(last_held_out(trained, untied, sample_csv), abs=1e-3)
    assert logits(kept).shape == (3, 3)


def last_held_out(trained: Path, base: Path, csv: Path) -> float:
    from zoo.data.battles import read_battles
    from zoo.models.prompts import load_codec
    from zoo.stages.train.learner import Learner, evaluate
    from zoo.stages.train.rows import read_examples

    request = request_of(base, csv)
    codec = load_codec(base / "model", request.prompt)
    model = adapters.load_model(base / "model", request.spec, codec.label_ids)
    adapters.start_from(model, trained / "adapter")
    loss: float = evaluate(Learner(model, codec, request.spec), read_examples(request, codec, read_battles(csv)).held)
    return loss
