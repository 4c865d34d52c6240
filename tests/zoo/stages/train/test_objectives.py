"""Learning the whole text: the chunked loss and its gradients are those of full logits, whatever the chunk and the padding."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tests.helpers.tiny_models import TEMPLATE
from zoo.contracts import Held, Input, PromptSpec, TrainRequest, TrainSpec
from zoo.errors import ZooError
from zoo.models.prompts import load_codec
from zoo.stages.device import device
from zoo.stages.train import activation_checkpoints as recompute
from zoo.stages.train import adapters, checkpoint, examples, objectives
from zoo.stages.train import stage as train
from zoo.stages.train.label_head import final_softcap
from zoo.stages.train.learner import Learner

PROMPT = PromptSpec(template=TEMPLATE, max_tokens=96)
SPEC = TrainSpec(objective="text", rank=4, dropout=0.0, learning_rate=5e-3, eval_rows=12, max_rows=32, batch_rows=8)
LABEL_IDS = (40, 41, 42)
ROWS = [[5, 6, 7, 30, 31, 90], [9, 3, 4, 8, 20, 11, 41, 77, 12], [30]]
HARD = [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)]
SOFT = [(0.2, 0.7, 0.1), (0.0, 0.125, 0.125), (1.5, 0.5, 0.0)]  # the second and third of weights 0.25 and 2


def float32_model(folder: Path, method: str) -> Any:
    """The folder's model with adapters where the method has them, all in float32: differences are those of the loss."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if method != "full":
        model = adapters.with_adapters(model, SPEC)
        for name, parameter in adapters.trained_parameters(model).items():
            if "lora_B" in name:  # zero at the start: then A would have no gradient to compare
                torch.nn.init.normal_(parameter, std=0.05)
    return model


def oracle(model: Any, rows: list[list[int]], targets: Any, label_ids: tuple[int, int, int] = LABEL_IDS) -> torch.Tensor:
    """One row at a time through transformers' own forward pass, torch's cross-entropy on all logits at once."""
    losses = []
    for row, target in zip(rows, torch.tensor(targets), strict=True):
        logits = model(input_ids=torch.tensor([row], device=model.device)).logits[0].float().cpu()
        wanted = F.one_hot(torch.tensor([*row[1:], 0]), logits.shape[1]).float()
        wanted[-1] = torch.zeros(logits.shape[1]).index_put((torch.tensor(label_ids),), target / target.sum())
        losses.append(target.sum() * F.cross_entropy(logits, wanted, reduction="mean"))
    return torch.stack(losses).sum()


def with_gradients(model: Any, loss: torch.Tensor) -> tuple[float, dict[str, torch.Tensor]]:
    loss.backward()
    found = {name: p.grad.clone() for name, p in adapters.trained_parameters(model).items() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return float(loss.detach()), found


def assert_same(ours: tuple[float, dict[str, torch.Tensor]], expected: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert ours[0] == pytest.approx(expected[0], rel=1e-5)
    assert ours[1].keys() == expected[1].keys() and ours[1]
    all_norm = sum(float(gradient.norm()) for gradient in expected[1].values())
    for name, gradient in expected[1].items():  # some are zero but for rounding: queries where all tokens are the same
        assert (ours[1][name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6 * all_norm, name


def gemma(folder: Path) -> Path:
    """A two-layer Gemma 2 whose cap of 2 bends its logits, which are large."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    shape = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "final_logit_softcapping": 2.0, "initializer_range": 0.2}
    torch.manual_seed(0)
    Gemma2ForCausalLM(Gemma2Config(**shape, **heads, attn_implementation="eager")).save_pretrained(folder)
    return folder


def with_bias(folder: Path) -> Path:
    """A two-layer Phi, whose head has a bias and is a matrix of its own."""
    from transformers import PhiConfig, PhiForCausalLM

    shape = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = PhiForCausalLM(PhiConfig(**shape))
    torch.nn.init.normal_(model.lm_head.bias)
    model.save_pretrained(folder)
    return folder


# --- against full logits ----------------------------------------------------------------------------------------------


def test_hard_labels_have_the_loss_of_transformers(tiny_llama: Path) -> None:
    """Each row by itself, its label after it, as `model(input_ids, labels=input_ids)` has it."""
    model = float32_model(tiny_llama, "full")
    with torch.no_grad():
        texts = [torch.tensor([[*row, LABEL_IDS[target.index(1)]]]) for row, target in zip(ROWS, HARD, strict=True)]
        expected = [float(model(input_ids=text, labels=text).loss) for text in texts]
        assert float(objectives.text_loss(model, ROWS, HARD, LABEL_IDS)) == pytest.approx(sum(expected), rel=1e-5)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("kind", ["tied llama", "soft-capped gemma", "biased phi"])
def test_gradients_are_those_of_full_logits(tiny_llama: Path, tmp_path: Path, kind: str, method: str) -> None:
    folder = {"tied llama": lambda _: tiny_llama, "soft-capped gemma": gemma, "biased phi": with_bias}[kind](tmp_path)
    model = float32_model(folder, method)
    plain = adapters.causal_model(model)
    assert bool(final_softcap(plain)) == (kind == "soft-capped gemma")
    ours = with_gradients(model, objectives.text_loss(plain, ROWS, SOFT, LABEL_IDS, chunk=4))
    assert_same(ours, with_gradients(model, oracle(plain, ROWS, SOFT)))


@pytest.mark.usefixtures("place")
def test_a_head_of_16_bits_is_as_near_as_16_bits_are(tiny_llama: Path) -> None:
    """On a GPU products of 16 bits come out in 32."""
    model = float32_model(tiny_llama, "lora")
    plain = adapters.causal_model(model)
    expected, exact = with_gradients(model, oracle(plain, ROWS, SOFT))
    model.to(device())
    plain.get_input_embeddings().weight.data = plain.get_input_embeddings().weight.data.bfloat16()
    with torch.autocast(device().type, dtype=torch.bfloat16):
        loss, found = with_gradients(model, objectives.text_loss(plain, ROWS, SOFT, LABEL_IDS, chunk=4))
    assert loss == pytest.approx(expected, rel=1e-2)
    assert all((found[name].cpu() - gradient).norm() <= 5e-2 * gradient.norm() for name, gradient in exact.items())


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.integers(3, 250), min_size=1, max_size=30), min_size=1, max_size=4),
    st.integers(1, 70),
    st.randoms(use_true_random=False),
)
def test_neither_chunk_nor_padding_nor_company_matters(adapted: Any, rows: list[list[int]], chunk: int, random: Any) -> None:
    model = adapters.causal_model(adapted)
    targets = [[random.uniform(0.01, 2) for _ in range(3)] for _ in rows]
    together = with_gradients(model, objectives.text_loss(model, rows, targets, LABEL_IDS, chunk=chunk))
    alone = sum(objectives.text_loss(model, [row], [target], LABEL_IDS) for row, target in zip(rows, targets, strict=True))
    assert_same(together, with_gradients(model, alone))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def adapted(tiny_llama: Path) -> Any:
    return float32_model(tiny_llama, "lora")


def test_soft_targets_mix_the_losses_of_hard_ones(tiny_llama: Path) -> None:
    """A row's loss is linear in its target: shares mix losses, and a target that sums to a weight scales them."""
    model = float32_model(tiny_llama, "full")
    with torch.no_grad():
        hard = [float(objectives.text_loss(model, [ROWS[1]], [h], LABEL_IDS)) for h in torch.eye(3).tolist()]
        soft = float(objectives.text_loss(model, [ROWS[1]], [(0.6, 0.3, 0.6)], LABEL_IDS))
    assert len({round(loss, 4) for loss in hard}) == 3
    assert soft == pytest.approx(0.6 * hard[0] + 0.3 * hard[1] + 0.6 * hard[2], rel=1e-5)


def test_a_short_row_counts_as_much_as_a_long_one(tiny_llama: Path) -> None:
    model = float32_model(tiny_llama, "full")
    torch.nn.init.zeros_(model.get_output_embeddings().weight)  # every token is as likely: log V a position
    rows = [[5] * 60, [7, 8]]
    with torch.no_grad():
        for part in (rows, rows[:1], rows[1:]):
            loss = objectives.text_loss(model, part, HARD[: len(part)], LABEL_IDS)
            assert float(loss) == pytest.approx(len(part) * float(torch.tensor(model.config.vocab_size).log()), rel=1e-5)


def test_no_tensor_holds_more_logits_than_a_chunk_s_nor_a_frozen_head_s_gradient(adapted: Any) -> None:
    """Every tensor that forward and backward pass make is seen; whole logits would be 12 times a chunk's."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Made(TorchDispatchMode):
        largest, gradients = 0, 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            made = [t for t in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(t, torch.Tensor)]
            made = [t for t in made if t.untyped_storage().data_ptr() != head.untyped_storage().data_ptr()]
            self.largest = max([self.largest, *(t.numel() for t in made if t.shape[-1:] == (vocabulary,))])
            self.gradients += sum(t.shape == head.shape for t in made)
            return out

    model = adapters.causal_model(adapted)
    vocabulary, head = model.config.vocab_size, model.get_output_embeddings().weight
    with Made() as seen:
        objectives.text_loss(model, [[5] * 128] * 3, HARD, LABEL_IDS, chunk=32).backward()
    assert (seen.largest, seen.gradients) == (32 * vocabulary, 0)


# --- in training ------------------------------------------------------------------------------------------------------


def learner_of(base: Path, spec: TrainSpec, *, fused: bool) -> Learner:
    torch.manual_seed(0)
    model = adapters.load_model(base, spec)
    for name, parameter in adapters.trained_parameters(model).items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    model.train()
    return Learner(model, load_codec(base, PROMPT), spec, fused=fused)


def test_fused_and_checkpointed_layers_change_no_gradient(tiny_llama: Path) -> None:
    """Fused layers are compared within their 16 bits, where the CPU has them; computed again they are the same numbers."""
    found = []
    for fused, count in ((False, 0), (True, 0), (True, 2)):
        learner = learner_of(tiny_llama, SPEC.model_copy(update={"method": "lora"}), fused=fused)
        recompute.checkpoint_layers(adapters.causal_model(learner.model), count)
        loss = learner.backward(ROWS, SOFT, 1 / 3)
        found.append((loss, {name: p.grad for name, p in adapters.trained_parameters(learner.model).items()}))
    (loss, plain), (fused_loss, ours), (_, again) = found
    assert torch.allclose(loss, fused_loss, rtol=1e-2)
    for name, gradient in plain.items():
        assert gradient is not None and ours[name] is not None
        assert (ours[name] - gradient).norm() <= 5e-2 * gradient.norm(), name  # type: ignore[operator]
        assert torch.equal(ours[name], again[name]), name  # type: ignore[arg-type]


def test_memory_is_fitted_with_passes_of_the_text(tiny_llama: Path, place: str) -> None:
    """Asked for on a CPU every layer is computed again; on a GPU as many as there is no room for, here none."""
    learner = learner_of(tiny_llama, SPEC.model_copy(update={"gradient_checkpointing": True}), fused=True)
    rows = [examples.Example("1", row, row, 0, (1.0, 0.0, 0.0)) for row in ROWS]
    found = learner.fit_memory(rows)
    if place == "cuda":
        assert found.pop("memory/kept_mib_a_layer") > 0
    again, kept = (0.0, {"memory/kept_weights": 1.0, "memory/on_host_gib": 0.0}) if place == "cuda" else (2.0, {})
    assert found == {"memory/checkpointed_layers": again, **kept}


def request_of(base: Path, csv_path: Path, spec: TrainSpec, folder: Path) -> TrainRequest:
    (folder / "base").mkdir(parents=True)
    (folder / "base" / "model").symlink_to(base)
    inputs = {name: Input(path=path, fingerprint="x") for name, path in (("base", folder / "base"), ("battles", csv_path))}
    return TrainRequest(entry="tiny", **inputs, held=Held(), prompt=PROMPT, spec=spec)


def test_training_learns_the_text_and_goes_on_after_a_kill(
    tiny_llama: Path, sample_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full-text loss starts near log V, far above log 3, which must not count as divergence; 24 steps are over its window."""
    spec = SPEC.model_copy(update={"epochs": 6.0, "evals_per_epoch": 1, "gradient_checkpointing": True, "label_smoothing": 0.1})
    request = request_of(tiny_llama, sample_csv, spec, tmp_path)
    (tmp_path / "out").mkdir()

    def save_then_die(*arguments: Any, **options: Any) -> None:
        checkpoint.save_checkpoint(*arguments, **options)
        if arguments[2].step == 16:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "save_checkpoint", save_then_die)
        train.run(request, tmp_path / "out")
    result = train.run(request, tmp_path / "out")
    losses = [loss for _, loss in result.curves["train/loss"]]
    assert len(losses) == 24 and losses[0] > 5 and losses[-1] < 0.9 * losses[0]
    held_out = [loss for _, loss in result.curves["held_out/log_loss"]]
    assert len(held_out) == 1 + 6 and max(held_out) < 2  # of three labels, not of a vocabulary
    assert result.metrics["val/log_loss"] == held_out[-1] != held_out[0]


def test_divergence_is_measured_from_the_first_step_s_loss_of_text() -> None:
    rows = [examples.Example(str(i), [5], [5], 0, (1.0, 0.0, 0.0)) for i in range(2)]
    state = checkpoint.Progress(step=40)
    state.curves = {"held_out/log_loss": [(0, 1.2)], "train/loss": [(i, 5.0 if i < 20 else 6.5) for i in range(40)]}
    before = train.loss_before(state, SPEC, ties=True)
    assert before == 5.0
    with pytest.raises(ZooError, match=r"mean loss 6\.50 of the last 20 steps, 5\.00 before training, on rows 1; "):
        train.refuse_divergence(state, before, [[1]], rows)
    state.curves["train/loss"] = state.curves["train/loss"][:20]
    train.refuse_divergence(state, before, [[1]], rows)


def test_divergence_where_no_battle_is_a_tie_is_measured_by_the_objective_s_three_labels() -> None:
    """The held-out loss is of A and B alone then, and says nothing of what the objective had at first."""
    state = checkpoint.Progress(step=20)
    state.curves = {"held_out/log_loss": [(0, 0.7)], "train/loss": [(i, 2.6) for i in range(20)]}
    assert train.loss_before(state, SPEC.model_copy(update={"objective": "labels"}), ties=False) == 2.6
    state.curves["train/loss"] = [(0, 0.1)]
    labels = SPEC.model_copy(update={"objective": "labels"})
    assert train.loss_before(state, labels, ties=False) == pytest.approx(math.log(2))
    assert train.loss_before(state, labels, ties=True) == pytest.approx(math.log(3))


def test_requests_for_labels_are_what_they_were_and_text_is_another() -> None:
    labels, text = TrainSpec(), TrainSpec(objective="text")
    assert "objective" not in labels.model_dump(mode="json") and '"objective"' not in labels.model_dump_json()
    assert text.model_dump(mode="json") == {**labels.model_dump(mode="json"), "objective": "text"}
    assert TrainSpec.model_validate(text.model_dump(mode="json")) == text
