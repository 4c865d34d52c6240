"""How a model is trained: fused passes, memory, targets, and when to stop, each against an oracle or an invariant."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from tests.helpers.tiny_models import TEMPLATE, write_tiny_gemma3
from zoo.contracts import Held, Input, PromptSpec, TrainRequest, TrainSpec, changed
from zoo.data.battles import read_battles
from zoo.data.splits import sample_rows, select_training
from zoo.data.votes import VOTES
from zoo.errors import ZooError
from zoo.models.prompts import load_codec
from zoo.scores.tables import score_table, write_scores
from zoo.stages import progress
from zoo.stages.norms import FusedNorm
from zoo.stages.train import activation_checkpoints as recompute
from zoo.stages.train import adapters, checkpoint, examples, fused, pointwise
from zoo.stages.train import stage as train
from zoo.stages.train.learner import Learner, evaluate

PROMPT = PromptSpec(template=TEMPLATE, max_tokens=160)
SPEC = TrainSpec(rank=4, alpha=8, dropout=0.0, learning_rate=5e-3, eval_rows=20, max_rows=32, batch_rows=8)

pytestmark = pytest.mark.usefixtures("float32")


@pytest.fixture(scope="module")
def base(tiny_llama: Path) -> Path:
    return tiny_llama


def learner_of(base: Path, spec: TrainSpec, *, fused: bool) -> Learner:
    torch.manual_seed(0)
    model = adapters.load_model(base, spec)
    for name, parameter in adapters.trained_parameters(model).items():
        if "lora_B" in name:  # zero at the start: then A would have no gradient to compare
            torch.nn.init.normal_(parameter, std=0.02)
    return Learner(model, load_codec(base, PROMPT), spec, fused=fused)


def gradients(learner: Learner, rows: list[list[int]]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    learner.model.train()
    loss = learner.backward(rows, [(0.2, 0.7, 0.1)] * len(rows), 1 / len(rows))
    return loss, {name: p.grad.clone() for name, p in adapters.trained_parameters(learner.model).items()}  # type: ignore[union-attr]


ROWS = [[5, 6, 7, 30, 31, 90], [9, 3, 4, 8, 20, 11, 41, 77, 12], [30, 8]]


@pytest.mark.parametrize("method", ["qlora", "lora"])
def test_fused_layers_have_the_loss_and_gradients_of_peft_s(base: Path, method: str) -> None:
    spec = SPEC.model_copy(update={"method": method})
    ours, theirs = (learner_of(base, spec, fused=f) for f in (True, False))
    assert len(ours.adapted) == 14 and not theirs.adapted
    loss, grads = gradients(ours, ROWS)
    expected_loss, expected = gradients(theirs, ROWS)
    assert torch.allclose(loss, expected_loss, rtol=1e-4)
    assert grads.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (grads[name] - gradient).norm() <= 1e-3 * gradient.norm(), name


@pytest.fixture(scope="module", params=["gemma2", "gemma3"])
def gemma(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, one of sliding attention; norms that multiply by 1 + weight; Gemma 2 with a soft-cap in its attention."""
    from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

    folder = write_tiny_gemma3(tmp_path_factory.mktemp("gemma") / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    if request.param == "gemma2":
        shape = {"vocab_size": 320, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "head_dim": 64}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "query_pre_attn_scalar": 1, "sliding_window": 4}
        torch.manual_seed(0)
        model = Gemma2ForCausalLM(Gemma2Config(**shape, **heads, attn_logit_softcapping=0.5))
    for name, parameter in model.named_parameters():
        if "norm" in name:  # zero at first, where they would multiply by 1
            parameter.data = torch.linspace(-0.5, 1, len(parameter), dtype=parameter.dtype)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("again", [0, 1, 2])
def test_fused_layers_of_gemma_have_the_loss_and_gradients_of_peft_s(gemma: Path, again: int) -> None:
    """With layers kept or computed again, and rows of several lengths."""
    spec = SPEC.model_copy(update={"method": "lora"})
    ours, theirs = (learner_of(gemma, spec, fused=f) for f in (True, False))
    recompute.checkpoint_layers(adapters.causal_model(ours.model), again)
    loss, grads = gradients(ours, ROWS)
    expected_loss, expected = gradients(theirs, ROWS)
    norms = [m for m in ours.model.modules() if isinstance(m.forward, FusedNorm)]
    assert len(norms) >= 9 and torch.allclose(loss, expected_loss, rtol=1e-4)
    for name, gradient in expected.items():
        assert (grads[name] - gradient).norm() <= 1e-3 * gradient.norm(), name


def test_fused_dropout_has_the_gradient_of_the_loss_that_it_reports(base: Path) -> None:
    """Oracle: finite differences of the same pass, drawn with the same seed. Another mask going back would not agree."""
    learner = learner_of(base, SPEC.model_copy(update={"method": "lora", "dropout": 0.4}), fused=True)

    def loss() -> float:
        torch.manual_seed(3)
        learner.model.train()
        found = float(learner.backward(ROWS, [(0.2, 0.7, 0.1)] * 3, 1.0))
        return found

    loss()
    parameters = adapters.trained_parameters(learner.model)
    for name in (n for n in parameters if "layers.0.mlp.down_proj" in n or "layers.1.self_attn.q_proj" in n):
        parameter = parameters[name]
        assert parameter.grad is not None
        direction = parameter.grad / parameter.grad.norm()
        slope, step = float(parameter.grad.norm()), 1e-2
        sides = []
        for sign in (1, -1):
            parameter.data += sign * step * direction
            fused.refresh(learner.adapted)
            sides.append(loss())
            parameter.data -= sign * step * direction
        learner.optimizer.zero_grad()
        fused.refresh(learner.adapted)
        loss()
        assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(slope, rel=0.05), name


def test_checkpointed_layers_change_no_gradient(base: Path) -> None:
    spec = SPEC.model_copy(update={"dropout": 0.3})
    found = []
    for count in (0, 1, 2):
        learner = learner_of(base, spec, fused=True)
        recompute.checkpoint_layers(adapters.causal_model(learner.model), count)
        marked = [layer.gradient_checkpointing for layer in recompute.decoder_layers(learner.model)]
        assert sum(marked) == count
        torch.manual_seed(5)
        found.append(gradients(learner, ROWS)[1])
    for other in found[1:]:
        assert all(torch.allclose(found[0][name], other[name], rtol=1e-4, atol=1e-7) for name in other)


@pytest.mark.parametrize("act", ["silu", "gelu"])
def test_gradients_of_gated_products_are_autograd_s(act: str) -> None:
    generator = torch.Generator().manual_seed(0)
    gate, up = (torch.randn(5, 7, generator=generator, requires_grad=True) for _ in range(2))
    g = torch.randn(5, 7, generator=generator)
    expected = torch.autograd.grad((pointwise.product(act, gate, up) * g).sum(), (gate, up))
    ours = pointwise.gradients(act, g, gate.detach(), up.detach())
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, expected, strict=True))


class Feedforward(torch.nn.Module):
    """By the names of Llama's: what of it is multiplied, clamped or normed in between is told by what it gives."""

    def __init__(self, between: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (torch.nn.Linear(32, 64, bias=False) for _ in range(2))
        self.down_proj, self.act_fn, self.between = torch.nn.Linear(64, 32, bias=False), torch.nn.SiLU(), between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.down_proj(self.between(self.gate_proj(x), self.up_proj(x)))
        return y


@pytest.mark.parametrize(
    ("between", "known"),
    [
        (lambda gate, up: F.silu(gate) * up, True),
        (lambda gate, up: F.silu(gate * 1.02) * up, False),  # Falcon H1
        (lambda gate, up: F.rms_norm(F.silu(gate) * up, (64,)), False),  # BitNet
        (lambda gate, up: F.silu(gate.clamp(max=10.0)) * up.clamp(-10.0, 10.0), False),  # DeepSeek V4
        (lambda gate, up: F.silu(F.relu(gate - gate.mean(-1, keepdim=True))) * up, False),  # Gemma 3n
    ],
)
def test_a_feedforward_part_is_replaced_only_by_what_gives_the_same(
    between: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import LoraConfig, get_peft_model

    notes: list[str] = []
    monkeypatch.setattr(progress, "note", notes.append)
    fused._left_alone.cache_clear()
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_dropout=0.5, target_modules=["gate_proj", "up_proj", "down_proj"], init_lora_weights=False)
    model = get_peft_model(torch.nn.Sequential(Feedforward(between)), config)
    part, x = model.base_model.model[0], torch.randn(5, 32)
    with torch.no_grad():
        expected = part.eval()(x)
        part.train()
        assert len(fused.fuse(model)) == 3 and part.training
        assert ("forward" in vars(part)) == known
        assert len(notes) == (not known) and all("Feedforward is left to transformers' own pass" in note for note in notes)
        torch.testing.assert_close(part.eval()(x), expected)


def test_a_linear_layer_with_a_pass_of_its_own_is_left_to_peft() -> None:
    from peft import LoraConfig, get_peft_model

    class Rounded(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.linear(x, self.weight.sign())

    config = LoraConfig(r=4, target_modules=["0"])
    assert fused.fuse(get_peft_model(torch.nn.Sequential(torch.nn.Linear(8, 8)), config))
    assert not fused.fuse(get_peft_model(torch.nn.Sequential(Rounded(8, 8)), config))


def test_dora_is_left_to_peft(base: Path) -> None:
    assert not learner_of(base, SPEC.model_copy(update={"dora": True}), fused=True).adapted


# --- what is learned --------------------------------------------------------------------------------------------------


def with_votes(source: Path, target: Path) -> None:
    rows = list(csv.DictReader(source.open()))
    for i, row in enumerate(rows):
        row |= {"votes_a": "", "votes_b": "", "votes_tie": ""} if i % 2 else {"votes_a": "2", "votes_b": "1", "votes_tie": "1"}
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def test_vote_shares_where_a_row_has_them_else_its_label(sample_csv: Path, tmp_path: Path) -> None:
    with_votes(sample_csv, tmp_path / "votes.csv")
    battles = read_battles(tmp_path / "votes.csv", keep=VOTES)
    frame = battles.frame
    learned = examples.learned_targets(frame, battles, TrainSpec(), votes=True)
    assert np.allclose(learned.targets[::2], [0.5, 0.25, 0.25])
    assert np.array_equal(learned.targets[1::2], np.eye(3)[frame["label"]][1::2])
    assert learned.voted == len(frame[::2])
    with pytest.raises(ZooError, match="no column votes_a"):
        examples.learned_targets(frame, read_battles(sample_csv, keep=VOTES), TrainSpec(), votes=True)


def test_a_teacher_is_softened_and_mixed_with_labels(sample_csv: Path, tmp_path: Path) -> None:
    battles = read_battles(sample_csv)
    frame = battles.frame
    p = np.random.default_rng(0).dirichlet((1, 1, 1), 40)
    write_scores(score_table(frame["id"][:40].tolist(), p, fold=0), tmp_path / "t.parquet")
    spec = TrainSpec(teacher_weight=0.75, teacher_temperature=2.0)
    learned = examples.learned_targets(frame, battles, spec, votes=False, teacher=examples.read_teacher(tmp_path / "t.parquet"))
    soft = np.sqrt(p) / np.sqrt(p).sum(axis=1, keepdims=True)
    labels = np.eye(3)[frame["label"]]
    assert np.allclose(learned.targets[:40], 0.75 * soft + 0.25 * labels[:40])
    assert np.array_equal(learned.targets[40:], labels[40:]) and learned.taught == 40


def test_verdicts_of_a_judge_teach_as_a_score_table_does(sample_csv: Path, tmp_path: Path) -> None:
    """They have neither folds nor token counts, and rows that no model could judge."""
    ids, p = read_battles(sample_csv).frame["id"][:3].tolist(), np.random.default_rng(0).dirichlet((1, 1, 1), 3)
    write_scores(score_table(ids[:2], p[:2], fold=0), tmp_path / "scores.parquet")
    table = pd.DataFrame({"id": ids, "p_a": p[:, 0], "p_b": p[:, 1], "p_tie": p[:, 2], "status": ["ok", "ok", "seen by all"]})
    table.assign(judged_by="fold 0", battle="x").to_parquet(tmp_path / "verdicts.parquet")
    scores, verdicts = (examples.read_teacher(tmp_path / f"{name}.parquet") for name in ("scores", "verdicts"))
    pd.testing.assert_frame_equal(scores, verdicts, check_dtype=False)
    table.assign(id=ids[0], judged_by="fold 0", status="ok").to_parquet(tmp_path / "twice.parquet")
    with pytest.raises(ZooError, match="an id twice"):
        examples.read_teacher(tmp_path / "twice.parquet")


def test_a_teacher_of_other_rows_is_refused(base: Path, sample_csv: Path, tmp_path: Path) -> None:
    write_scores(score_table(["other"], np.array([[0.2, 0.3, 0.5]])), tmp_path / "other.parquet")
    request = request_of(base, sample_csv, SPEC, tmp_path)
    teacher = Input(path=tmp_path / "other.parquet", fingerprint="t")
    with pytest.raises(ZooError, match="none of the rows to train on"):
        train.run(changed(request, teacher=teacher), tmp_path / "out")


def test_the_held_out_sample_is_not_the_file_s_first_rows(base: Path, sample_csv: Path, tmp_path: Path) -> None:
    """Sorted by label either way, a file gives the same held-out rows."""
    rows = sorted(csv.DictReader(sample_csv.open()), key=lambda row: (row["winner_model_a"], row["winner_model_b"]))
    before = []
    for name, ordered in (("up", rows), ("down", rows[::-1])):
        (tmp_path / name / "out").mkdir(parents=True)
        with (tmp_path / name / "b.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(ordered)
        spec = SPEC.model_copy(update={"eval_rows": 8, "max_rows": 8, "epochs": 0.1})
        result = train.run(request_of(base, tmp_path / name / "b.csv", spec, tmp_path / name), tmp_path / name / "out")
        assert result.metrics["val/rows"] == 8
        before.append(result.metrics["val/log_loss_before"])
    assert before[0] == pytest.approx(before[1], abs=1e-5)


# --- when to stop -----------------------------------------------------------------------------------------------------


def request_of(base: Path, csv_path: Path, spec: TrainSpec, folder: Path) -> TrainRequest:
    (folder / "base").mkdir(parents=True)
    (folder / "base" / "model").symlink_to(base)
    inputs = {name: Input(path=path, fingerprint="x") for name, path in (("base", folder / "base"), ("battles", csv_path))}
    return TrainRequest(entry="tiny", **inputs, held=Held(), prompt=PROMPT, spec=spec)


def test_the_best_weights_are_kept_and_training_stops(base: Path, sample_csv: Path, tmp_path: Path) -> None:
    """A rate that overshoots: the last weights are worse than the best, and few evaluations are enough to see it."""
    spec = SPEC.model_copy(
        update={"learning_rate": 0.01, "epochs": 30.0, "keep": "best", "patience": 4, "label_smoothing": 0.1}
    )
    (tmp_path / "out").mkdir()
    result = train.run(request_of(base, sample_csv, spec, tmp_path), tmp_path / "out")
    losses = [loss for _, loss in result.curves["held_out/log_loss"]]
    assert len(losses) < 30 * 4 and losses[-1] > min(losses)
    assert result.metrics["val/log_loss"] == min(losses)
    kept = Learner(adapters.load_model(base, spec), load_codec(base, PROMPT), spec)
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    checkpoint.copy_into(kept.model, {n: saved[n.replace(".default", "")] for n in adapters.trained_parameters(kept.model)})
    fused.refresh(kept.adapted)
    held = sample_rows(select_training(read_battles(sample_csv), Held())[1], spec.eval_rows)
    assert evaluate(kept, examples.examples(held, kept.codec, PROMPT)) == pytest.approx(min(losses), abs=1e-3)


def test_a_training_that_only_does_harm_leaves_the_base(
    base: Path, sample_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    losses = iter([1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7])
    monkeypatch.setattr(train, "evaluate", lambda *_: next(losses))
    spec = SPEC.model_copy(update={"keep": "best", "patience": 2})
    (tmp_path / "out").mkdir()
    result = train.run(request_of(base, sample_csv, spec, tmp_path), tmp_path / "out")
    assert [loss for _, loss in result.curves["held_out/log_loss"]] == [1.1, 1.2, 1.3], "two without a lower one"
    assert result.metrics["val/log_loss"] == result.metrics["val/log_loss_before"] == 1.1
    saved = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    assert all(not value.any() for name, value in saved.items() if "lora_B" in name)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"adapter", "base_format.json", "tokenizer.json"}


def test_divergence_names_the_step_and_the_rows(base: Path, sample_csv: Path) -> None:
    frame = read_battles(sample_csv).frame.head(8)
    learner = learner_of(base, SPEC, fused=True)
    rows = examples.examples(frame, learner.codec, PROMPT)
    state = checkpoint.Progress(step=30)
    state.curves = {"held_out/log_loss": [(0, 1.2)], "train/loss": [(i, 2.5) for i in range(30)]}
    with pytest.raises(ZooError, match=rf"diverged at step 30: mean loss 2\.50 .* on rows {rows[3].id}, "):
        train.refuse_divergence(state, train.loss_before(state, SPEC, ties=True), [[3, 1]], rows)
    next(iter(adapters.trained_parameters(learner.model).values())).data.fill_(math.nan)
    fused.refresh(learner.adapted)
    with pytest.raises(ZooError, match=rf"diverged at step 8: loss nan on rows {rows[2].id}"):
        train.train_step(learner, [[2, 0]], rows, 7, 1e-3)
    with pytest.raises(ZooError, match=rf"diverged at step 30: held-out log loss nan on rows {rows[3].id}"):
        train.held_out_loss(learner, rows, state, [[3, 1]], rows)
    with pytest.raises(ZooError, match="held-out log loss nan before training; train where there is bfloat16"):
        train.held_out_loss(learner, rows, checkpoint.Progress(), [], rows)


def test_a_teacher_s_path_is_no_part_of_a_request_s_identity(sample_csv: Path, tmp_path: Path) -> None:
    from zoo.contracts import Selection
    from zoo.entries.load import load_entry, override
    from zoo.pipeline.chain import battles_input, chain
    from zoo.store import fingerprint

    names = []
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        write_scores(score_table(["1"], np.array([[0.2, 0.3, 0.5]])), tmp_path / place / "t.parquet")
        entry = override(load_entry("smollm2-135m"), [f"train.teacher={tmp_path / place / 't.parquet'}"])
        requests = chain(entry, battles_input(sample_csv), "cpu", tmp_path, held=Held(), selection=Selection(), source="hub")
        names.append(fingerprint(requests[1]))
    assert names[0] == names[1] and json.dumps(requests[1].model_dump(mode="json")).count("teacher") >= 2


def test_votes_are_part_of_a_request_s_identity_only_where_they_are_learned_from(sample_csv: Path, tmp_path: Path) -> None:
    from zoo.contracts import Selection
    from zoo.entries.load import load_entry, override
    from zoo.pipeline.chain import battles_input, chain
    from zoo.store import fingerprint

    path = tmp_path / "votes.csv"

    def named(targets: str) -> str:
        entry = override(load_entry("smollm2-135m"), [f"train.targets={targets}"])
        requests = chain(entry, battles_input(path), "cpu", tmp_path, held=Held(), selection=Selection(), source="hub")
        assert ("votes_digest" in requests[1].model_dump(mode="json")) == (targets == "votes")
        return fingerprint(requests[1])

    with_votes(sample_csv, path)
    before = {targets: named(targets) for targets in ("hard", "votes")}
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    assert {targets: named(targets) for targets in before} == before, "the order of rows says nothing"
    path.write_text(path.read_text().replace(",2,1,1", ",2,2,1", 1))
    assert named("hard") == before["hard"] and named("votes") != before["votes"], "one corrected vote"
    path.write_bytes(sample_csv.read_bytes())
    with pytest.raises(ZooError, match="no column votes_a"):
        named("votes")
