"""Embedding and head on the host: what may go there, and that no number changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers.requests import PROMPT, SPEC
from tests.helpers.tiny_models import write_tiny_gemma3, write_tiny_llama
from zoo.contracts import TrainSpec, changed
from zoo.models.prompts import load_codec
from zoo.stages.device import compute_dtype
from zoo.stages.train import activation_checkpoints as recompute
from zoo.stages.train import adapters
from zoo.stages.train.classifier import LabelIds
from zoo.stages.train.examples import Example
from zoo.stages.train.host_matrices import HostEmbedding, HostMatrices, movable
from zoo.stages.train.label_head import place_of_ids
from zoo.stages.train.learner import Learner, evaluate

ROWS = [[5, 6, 7, 30, 31, 90], [9, 3, 4, 8, 20, 11, 41, 77, 12], [30, 8]]
TARGETS = [(0.2, 0.7, 0.1)] * 3
MATRIX = 320 * 128  # values of the tiny models' embedding

pytestmark = pytest.mark.usefixtures("float32")


@pytest.fixture(scope="module", params=["llama", "untied llama", "gemma 3"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "model"
    if request.param == "gemma 3":
        return write_tiny_gemma3(path)
    return write_tiny_llama(path, tie_word_embeddings=request.param == "llama", pad_token_id=300)


def learner_of(folder: Path, spec: TrainSpec = SPEC, start: LabelIds | None = None) -> Learner:
    torch.manual_seed(0)
    model = adapters.load_model(folder, spec, start)
    for name, parameter in adapters.trained_parameters(model).items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return Learner(model, load_codec(folder, PROMPT), spec)


def host_of(learner: Learner) -> HostMatrices:
    model = adapters.causal_model(learner.model)
    return movable(model, learner.codec.label_ids, whole_head=learner.spec.objective == "text")


def step_of(learner: Learner) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Loss and gradients of a pass, as training makes it."""
    learner.model.train()
    learner.optimizer.zero_grad()
    torch.manual_seed(1)
    loss = learner.backward(ROWS, TARGETS, 1 / 3)
    return loss, [p.grad.clone() for p in learner.parameters if p.grad is not None]


@pytest.mark.parametrize("objective", ["labels", "text"])
def test_no_number_changes_on_the_host(folder: Path, objective: str, place: str, tmp_path: Path) -> None:
    """Loss, gradients, evaluation and what is saved, with layers computed again."""
    learner = learner_of(folder, changed(SPEC, objective=objective, method="qlora"))
    recompute.checkpoint_layers(adapters.causal_model(learner.model), 1)
    host = host_of(learner)
    held = [Example(str(i), row, row, 0, TARGETS[0]) for i, row in enumerate(ROWS)]
    before, evaluated = step_of(learner), evaluate(learner, held)
    host.move()
    assert all(module.weight.device.type == "cpu" for module in host.modules)
    model = adapters.causal_model(learner.model)
    assert place_of_ids(model).type == ("cpu" if any(isinstance(m, torch.nn.Embedding) for m in host.modules) else place)
    after = step_of(learner)
    torch.testing.assert_close(after[0], before[0])
    assert len(after[1]) == len(before[1]) == len(learner.parameters)
    torch.testing.assert_close(after[1], before[1])
    assert evaluate(learner, held) == pytest.approx(evaluated, abs=1e-6)
    adapters.save_weights(learner.model, learner.spec, folder, tmp_path)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists() and "lm_head" not in adapters.nf4_names(model)


def test_of_the_head_only_what_no_pass_reads_goes(folder: Path) -> None:
    tied = "lm_head.weight" not in [name for name, _ in adapters.load_base(folder, SPEC).named_parameters()]
    size = MATRIX * compute_dtype().itemsize
    assert host_of(learner_of(folder)).bytes == size * (1 if tied else 2)
    assert host_of(learner_of(folder, changed(SPEC, objective="text"))).bytes == size * (not tied)
    assert host_of(learner_of(folder, changed(SPEC, method="full"))).modules == ()
    classifier = host_of(learner_of(folder, start=(5, 6, 7)))
    assert [type(module) for module in classifier.modules if not isinstance(module, torch.nn.Embedding)] == []
    assert classifier.bytes == size


def test_a_head_with_an_adapter_stays_and_so_does_an_embedding_tied_to_it(folder: Path) -> None:
    learner = learner_of(folder, changed(SPEC, target_modules=("q_proj", "lm_head"), method="lora"))
    model = adapters.causal_model(learner.model)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert [type(module) for module in host_of(learner).modules] == ([] if tied else [type(model.get_input_embeddings())])


def test_only_the_rows_of_a_batch_are_sent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, sent = learner_of(folder), []
    embedding = adapters.causal_model(learner.model).get_input_embeddings()
    ids = torch.tensor([[5, 5, 9, 5]])
    expected = embedding(ids.to(embedding.weight.device))
    host_of(learner).move()
    real = type(embedding).forward
    monkeypatch.setattr(type(embedding), "forward", lambda self, ids: sent.append(self.weight) or real(self, ids))
    assert isinstance(embedding.forward, HostEmbedding) and torch.equal(embedding(ids), expected)
    assert [len(weight) for weight in sent] == [2]
