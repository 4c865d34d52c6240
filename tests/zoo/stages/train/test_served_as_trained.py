"""What is trained is what is served: the trainer's own answers are those of plain transformers with the files that it leaves.

A training that computes something else than the model is consistent with itself: its loss falls, and what it saves is of no
use. Oracle: transformers and peft as they are, in float32, a row at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.lifelike_models import WINDOW, write_lifelike
from tests.helpers.requests import PROMPT, SPEC
from zoo.contracts import TrainSpec, changed
from zoo.models.prompts import load_codec
from zoo.stages.norms import FusedNorm
from zoo.stages.train import activation_checkpoints as recompute
from zoo.stages.train import adapters
from zoo.stages.train.classifier import LabelIds
from zoo.stages.train.examples import Example
from zoo.stages.train.host_matrices import movable
from zoo.stages.train.label_head import final_softcap
from zoo.stages.train.learner import Learner, held_probabilities

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3")
ROWS = [torch.randint(3, 300, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (3 * WINDOW, 5, 2 * WINDOW)]
TARGETS = [(0.2, 0.7, 0.1), (1.0, 0.0, 0.0), (0.0, 0.1, 0.9)]
HELD = [Example(str(i), row, row, 0, TARGETS[0]) for i, row in enumerate(ROWS)]

pytestmark = [pytest.mark.usefixtures("float32"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lifelike(tmp_path_factory.mktemp(family) / "model", family)


def learner_of(folder: Path, spec: TrainSpec, start: LabelIds | None = None, *, fused: bool = True) -> Learner:
    torch.manual_seed(0)
    model = adapters.load_model(folder, spec, start)
    for name, parameter in adapters.trained_parameters(model).items():
        if "lora_B" in name:  # zero at the start: then A would have no gradient
            torch.nn.init.normal_(parameter, std=0.02)
    return Learner(model, load_codec(folder, PROMPT), spec, fused=fused)


def head_start(folder: Path, head: str) -> LabelIds | None:
    return load_codec(folder, PROMPT).label_ids if head == "classifier" else None


@pytest.mark.parametrize(
    ("method", "head", "objective"),
    [
        ("lora", "labels", "labels"),
        ("lora", "labels", "text"),
        ("lora", "classifier", "labels"),
        ("qlora", "labels", "labels"),
        ("full", "labels", "labels"),
    ],
)
def test_what_is_saved_answers_as_the_trainer_does(
    folder: Path, family: str, method: str, head: str, objective: str, place: str, tmp_path: Path
) -> None:
    """After two steps, with a layer computed again and embedding and head on the host."""
    spec = changed(SPEC, method=method, objective=objective, dropout=0.0 if method == "full" else 0.1)
    learner = learner_of(folder, spec, head_start(folder, head))
    model = adapters.causal_model(learner.model)
    recompute.checkpoint_layers(model, 1)
    movable(model, learner.codec.label_ids, whole_head=objective == "text").move()
    untrained = answers_of(learner)
    for _ in range(2):
        learner.model.train()
        learner.backward(ROWS, TARGETS, 1 / len(ROWS))
        assert torch.isfinite(learner.update(5e-3))
    ours = answers_of(learner)
    adapters.save_weights(learner.model, spec, folder, tmp_path)
    served = plain_answers(folder, tmp_path, spec, head, learner.codec.label_ids)
    near = {"full": 2e-2}.get(method, 1e-5)  # all weights are saved as the base has them, in bfloat16
    assert np.abs(ours - served).max() < near
    assert np.abs(ours - untrained).max() > 5 * near, "else nothing was learned that could be lost"


def answers_of(learner: Learner) -> np.ndarray:
    """Probabilities (rows, 3) as training evaluates them, two rows in a batch."""
    with torch.no_grad():
        return held_probabilities(learner.logits, HELD, 4 * WINDOW, learner.model)


def plain_answers(base: Path, trained: Path, spec: TrainSpec, head: str, label_ids: LabelIds) -> np.ndarray:
    """Probabilities (rows, 3) by transformers and peft alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BitsAndBytesConfig

    options: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager"}
    if spec.method == "qlora":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
        )
    if head == "classifier":
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, **options)
    else:
        model = AutoModelForCausalLM.from_pretrained(trained / "model" if spec.method == "full" else base, **options)
    if spec.method != "full":
        model = PeftModel.from_pretrained(model, trained / "adapter")
    answers = []
    for row in ROWS:
        logits = model.eval()(torch.tensor([row], device=model.device)).logits[0].detach()
        if head == "classifier":  # transformers applies no cap to its outputs, training and serving do
            cap = final_softcap(adapters.causal_model(model))
            answers.append(cap * torch.tanh(logits / cap) if cap else logits)
        else:
            answers.append(logits[-1, list(label_ids)])
    p: np.ndarray = torch.stack(answers).softmax(-1).cpu().numpy()
    return p


@pytest.mark.parametrize("objective", ["labels", "text"])
@pytest.mark.parametrize("again", [0, 1, 2])
def test_loss_and_gradients_are_those_of_peft_s_layers(folder: Path, family: str, again: int, objective: str) -> None:
    """With rows of several lengths, layers kept or computed again, and embedding and head on the host."""
    spec = changed(SPEC, method="lora", objective=objective)
    found = []
    for fused in (True, False):
        learner = learner_of(folder, spec, fused=fused)
        if fused:
            model = adapters.causal_model(learner.model)
            recompute.checkpoint_layers(model, again)
            movable(model, learner.codec.label_ids, whole_head=objective == "text").move()
            norms = [m for m in model.modules() if "Norm" in type(m).__name__]
            assert all(isinstance(m.forward, FusedNorm) and m.forward.wide == family.startswith("gemma") for m in norms)
        learner.model.train()
        loss = learner.backward(ROWS, TARGETS, 1 / len(ROWS))
        gradients = {n: p.grad for n, p in adapters.trained_parameters(learner.model).items() if p.grad is not None}
        found.append((loss.cpu(), gradients))
    (loss, ours), (expected, theirs) = found
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert gradient.norm() > 0 and (ours[name] - gradient).norm() <= 1e-3 * gradient.norm(), name
