"""Training in float16 with loss scaling: the loss of float32, overflow, resuming, and what cannot be stood in for.

The arithmetic is float16's own, on a CPU: weights, activations and gradients of all products. A T4's kernels sum in float32
as a CPU's do; speed and attention kernels are of a GPU alone.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.lifelike_models import write_lifelike
from tests.helpers.requests import PROMPT, SPEC, train_request
from tests.helpers.tiny_models import write_tiny_gemma3
from zoo.contracts import TrainSpec, changed
from zoo.errors import ZooError
from zoo.models.prompts import load_codec
from zoo.scores.metric_names import FLOAT16, HELD_OUT_LOSS, LOSS_SCALE, SKIPPED_STEPS, TRAIN_LOSS
from zoo.stages import device, gemma_float16
from zoo.stages.norms import FusedNorm
from zoo.stages.train import adapters
from zoo.stages.train import stage as train
from zoo.stages.train.checkpoint import Progress, resume, save_checkpoint
from zoo.stages.train.label_head import hidden_states
from zoo.stages.train.learner import Learner
from zoo.targets import load_target

ROWS = [[5, 6, 7, 30, 31, 90], [9, 3, 4, 8, 20, 11, 41, 77, 12], [30, 8]]
TARGETS = [(0.2, 0.7, 0.1)] * 3
MODULES = ("zoo.stages.device", "zoo.stages.train.learner", "zoo.stages.train.fused", "zoo.stages.train.adapters")


@pytest.fixture
def float16(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's code computes in float16, as on a GPU before Ampere."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for module in MODULES:
        monkeypatch.setattr(f"{module}.compute_dtype", lambda: torch.float16)


def learner_of(folder: Path, spec: TrainSpec = SPEC, *, fused: bool = True) -> Learner:
    torch.manual_seed(0)
    model = adapters.load_model(folder, spec)
    for name, parameter in adapters.trained_parameters(model).items():
        if "lora_B" in name:  # zero at the start: then A would have no gradient to compare
            torch.nn.init.normal_(parameter, std=0.02)
    return Learner(model, load_codec(folder, PROMPT), spec, fused=fused)


def losses(base: Path, csv: Path, out: Path, seed: int) -> np.ndarray:
    """Held-out log loss at each evaluation of a training."""
    out.mkdir()
    result = train.run(train_request(base, csv, changed(SPEC, seed=seed, max_rows=48, eval_rows=20)), out)
    assert result.metrics[FLOAT16] == ("float16" in out.name)
    return np.array([loss for _, loss in result.curves[HELD_OUT_LOSS]])


def test_float16_trains_to_the_loss_of_float32_within_what_a_seed_moves(
    base: Path, sample_csv: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seeds = (0, 1)
    request.getfixturevalue("float32")
    wide = [losses(base, sample_csv, tmp_path / f"float32-{seed}", seed) for seed in seeds]
    request.getfixturevalue("float16")
    narrow = [losses(base, sample_csv, tmp_path / f"float16-{seed}", seed) for seed in seeds]
    moved = np.abs(wide[0] - wide[1])[1:].mean()
    for ours, exact in zip(narrow, wide, strict=True):
        assert np.abs(ours - exact)[1:].mean() < moved, "another seed moves it more"
        assert np.abs(exact[1:] - exact[0]).max() > np.abs(ours - exact).max(), "training moves it more"


def test_a_step_whose_gradients_overflow_is_left_out_and_halves_the_scale(tiny_llama: Path, float16: None) -> None:
    learner = learner_of(tiny_llama)
    learner.restore_scaler(2.0**40, 5, 0)  # no float16 holds gradients so large
    before = {name: p.detach().clone() for name, p in adapters.trained_parameters(learner.model).items()}
    learner.model.train()
    learner.backward(ROWS, TARGETS, 1 / 3)
    assert not torch.isfinite(learner.update(1e-2))
    assert learner.skipped_steps == 1 and learner.scaler.get_scale() == 2.0**39
    assert all(torch.equal(before[name], p) for name, p in adapters.trained_parameters(learner.model).items())
    learner.restore_scaler(2.0**10, 0, learner.skipped_steps)
    learner.backward(ROWS, TARGETS, 1 / 3)
    assert torch.isfinite(learner.update(1e-2)) and learner.skipped_steps == 1
    assert not all(torch.equal(before[name], p) for name, p in adapters.trained_parameters(learner.model).items())


@pytest.mark.usefixtures("float16")
def test_overflow_is_told_and_logged(base: Path, sample_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("zoo.stages.progress.note", said.append)
    real = Learner.__init__

    def start_high(self: Learner, *arguments: object, **options: object) -> None:
        real(self, *arguments, **options)  # type: ignore[arg-type]
        self.restore_scaler(2.0**32, 0, 0)

    monkeypatch.setattr(Learner, "__init__", start_high)
    result = train.run(
        train_request(base, sample_csv, changed(SPEC, max_rows=32, epochs=5.0, eval_rows=4, evals_per_epoch=1)), tmp_path
    )
    scales = [scale for _, scale in result.curves[LOSS_SCALE]]
    skipped = int(result.metrics[SKIPPED_STEPS])
    assert skipped >= 1 and scales[skipped - 1] == 2.0 ** (32 - skipped) == result.metrics[LOSS_SCALE]
    assert sum("overflowed float16" in line for line in said) == skipped
    assert len(result.curves[TRAIN_LOSS]) == 10, "a step that is left out counts as a step of the schedule"


@pytest.mark.usefixtures("float16")
def test_gradients_that_overflow_at_every_scale_end_the_training(
    base: Path, sample_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learner, "update", lambda self, rate: torch.tensor(float("nan")))
    monkeypatch.setattr(torch.amp.GradScaler, "get_scale", lambda self: train.LEAST_SCALE)
    with pytest.raises(ZooError, match="step 1: gradient norm nan"):
        train.run(train_request(base, sample_csv), tmp_path)


@pytest.mark.usefixtures("float16")
def test_a_resumed_run_has_the_scaler_bit_for_bit(tiny_llama: Path, tmp_path: Path) -> None:
    """Scale, steps since it was changed, and what was left out: the next steps are those of a run that was not killed."""
    ours = learner_of(tiny_llama)
    ours.scaler.set_growth_interval(3)
    ours.restore_scaler(2.0**12, 1, 4)
    state = Progress()
    ours.model.train()
    ours.backward(ROWS, TARGETS, 1 / 3)
    ours.update(1e-3)
    train.note_loss_scale(ours, state)
    save_checkpoint(ours.model, ours.optimizer, state, tmp_path)
    theirs = learner_of(tiny_llama)
    theirs.scaler.set_growth_interval(3)
    found = resume(theirs.model, theirs.optimizer, tmp_path)
    assert found is not None and found.loss_scale is not None
    assert dataclasses.asdict(found) == dataclasses.asdict(state)
    theirs.restore_scaler(found.loss_scale, found.growth_tracker, found.skipped_steps)
    assert theirs.scaler.state_dict() == ours.scaler.state_dict() and theirs.skipped_steps == 4
    for learner in (ours, theirs):
        train.refresh(learner.adapted)
        learner.model.train()
        learner.backward(ROWS, TARGETS, 1 / 3)
        learner.update(1e-3)
    assert ours.scaler.get_scale() == theirs.scaler.get_scale() == 2.0**13, "grown after the third step"
    pairs = zip(ours.parameters, theirs.parameters, strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_gemma_s_norms_and_stream_hold_what_float16_does_not(
    method: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A residual stream beyond 65504: oracle is float32; without float32 norms there is no finite loss."""
    folder = write_tiny_gemma3(tmp_path / "gemma")
    enlarge(folder, 6e4)
    spec = changed(SPEC, method=method)
    request.getfixturevalue("float32")
    exact = learner_of(folder, spec)
    exact.model.eval()
    wanted = exact.logits(ROWS).detach()
    loss = exact.backward(ROWS, TARGETS, 1 / 3)
    request.getfixturevalue("float16")
    ours = learner_of(folder, spec)
    ours.model.eval()
    assert torch.allclose(ours.logits(ROWS), wanted, atol=2e-2), "logits are float32's within float16's rounding"
    assert torch.allclose(ours.backward(ROWS, TARGETS, 1 / 3), loss, atol=2e-2)
    tries = 0
    while not torch.isfinite(ours.update(1e-3)) and tries < 30:  # weights of 60,000 make large gradients, too
        tries += 1
        ours.backward(ROWS, TARGETS, 1 / 3)
    assert ours.skipped_steps == tries < 30
    plain = adapters.causal_model(adapters.load_model(folder, spec))
    row = torch.tensor([ROWS[0]])
    assert not torch.isfinite(hidden_states(plain, row)).all(), "as it is, it overflows"
    assert gemma_float16.widen(plain) == 2 and torch.isfinite(hidden_states(plain, row)).all()


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gemma3"])
def test_what_float16_trains_is_the_model_that_is_served(family: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Norms with weights near 60, heads that share keys, a window shorter than a row; the oracle computes in float32."""
    folder = write_lifelike(tmp_path / "model", family)
    spec = changed(SPEC, method="lora")
    request.getfixturevalue("float32")
    exact = learner_of(folder, spec, fused=False)
    wanted = exact.logits(ROWS).detach()
    request.getfixturevalue("float16")
    ours = learner_of(folder, spec)
    norms = [module for module in ours.model.modules() if "Norm" in type(module).__name__]
    assert norms and all(isinstance(module.forward, FusedNorm) for module in norms)
    assert (ours.logits(ROWS).detach() - wanted).norm() <= 5e-3 * wanted.norm()


def enlarge(folder: Path, size: float) -> None:
    """Make the outputs of a Gemma's post-norms so large."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if "post_" in name and name.endswith("layernorm.weight"):
            tensor.fill_(size)
    save_file(tensors, path, metadata={"format": "pt"})


def test_efficient_attention_is_attention(tiny_llama: Path, float32: None) -> None:
    """Oracle: transformers' eager attention, whose heads share keys; outputs and the gradient of the input."""
    from transformers import AutoModelForCausalLM

    found = []
    for name in (device.efficient_attention(), "eager"):
        model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32, attn_implementation=name).eval()
        assert model.config.num_attention_heads > model.config.num_key_value_heads
        inputs = model.get_input_embeddings()(torch.tensor([ROWS[1]])).detach().requires_grad_()
        out = model(inputs_embeds=inputs).logits
        out.square().mean().backward()
        found.append((out.detach(), inputs.grad))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5) and torch.allclose(found[0][1], found[1][1], atol=1e-7)


@pytest.mark.parametrize(("target", "message"), [("cpu", "has no GPU"), ("t4", "no GPU is visible")])
def test_what_cannot_be_stood_in_for_is_refused(target: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ZooError, match=message), device.emulating(load_target(target)):
        pass
    assert device.capability() is None
