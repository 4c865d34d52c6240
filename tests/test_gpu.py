"""The stages on an NVIDIA GPU, each in a process of its own, with a tiny model: what a CPU cannot show."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.helpers.tiny_models import TEMPLATE
from tests.helpers.waiting import wait_until
from zoo.contracts import Entry, Held, QuantizeRequest, Request, ScoreRequest, Selection, TrainRequest
from zoo.data.battles import read_battles
from zoo.experiments.run import run_chain
from zoo.models.prompts import encode_battles, load_codec
from zoo.pipeline.chain import battles_input, chain
from zoo.pipeline.runner import start_stage
from zoo.scores.tables import label_probabilities, probabilities, read_scores
from zoo.store import REQUEST, write_atomic
from zoo.targets import load_target

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]

STEPS = 32
TRAIN = {
    "learning_rate": 2e-3,
    "eval_rows": 30,
    "max_rows": 32,
    "batch_rows": 8,
    "epochs": 8,
    "evals_per_epoch": 1,
    "dropout": 0,
}
ENTRY = {
    "name": "tiny",
    "base": {"hub_id": "test/tiny", "architecture": "LlamaForCausalLM", "parameters": 300_000, "licence": "none"},
    "prompt": {"template": TEMPLATE, "max_tokens": 160},
    # Rank 64: adapters large enough for 8-bit optimizer states, which start at 4096 weights.
    "train": {**TRAIN, "rank": 64, "alpha": 64, "optimizer": "adamw8bit"},
    "quantize": {"group_size": 32, "calibration_rows": 4, "calibration_tokens": 64},
    "score": {
        "variants": [{"order": "ab", "max_tokens": 160}, {"order": "ba", "max_tokens": 160}],
        "chunk_rows": 4,
        "max_seqs": 4,
        "max_batched_tokens": 512,
    },
}


@pytest.fixture(scope="module")
def finished(tiny_llama: Path, sample_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list]:
    """The whole chain in a store of its own: (store, artifacts)."""
    store = tmp_path_factory.mktemp("gpu") / "store"
    entry = Entry.model_validate(ENTRY)
    requests = chain(
        entry, battles_input(sample_csv), "h200", store, held=Held(), selection=Selection(), source=str(tiny_llama)
    )
    return store, run_chain(requests, entry, store, say=lambda _: None, track=False)


def request_of(finished: tuple[Path, list], stage: type[Request]) -> Request:
    manifests = {artifact.manifest.stage: artifact.manifest for artifact in finished[1]}
    return stage.model_validate(manifests[stage.model_fields["stage"].default].request)


def start(request: Request, out: Path) -> subprocess.Popen[bytes]:
    out.mkdir(exist_ok=True)
    write_atomic(out / REQUEST, request.model_dump_json())
    return start_stage(request, out)


def kill_once(request: Request, out: Path, ready: Callable[[], bool]) -> None:
    """Run a stage until `ready()` and end it with SIGKILL."""
    process = start(request, out)
    wait_until(ready, "what it is to be killed after", process)
    process.kill()
    process.wait()
    assert not (out / "result.json").exists()


def test_stages_record_gpu_memory_not_the_process_s(finished: tuple[Path, list]) -> None:
    measured = {a.manifest.stage: a.manifest.measurements for a in finished[1]}
    for stage in ("train", "quantize", "score"):
        assert 0 < measured[stage].peak_bytes < 2**30  # a tiny model: the process itself takes more


def test_what_training_learned_is_kept_to_the_engine(finished: tuple[Path, list]) -> None:
    metrics = {a.manifest.stage: a.manifest.metrics for a in finished[1]}
    assert metrics["merge"]["merge/largest_weight_change"] > 0.01
    assert abs(metrics["score"]["ab-160:val/log_loss"] - metrics["train"]["val/log_loss"]) < 0.1
    assert metrics["score"]["ab-160:rows/failed"] == 0
    assert 0.03 < metrics["quantize"]["quant/weight_error_mean"] < 0.15


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_vllm_agrees_with_dequantized_weights_in_float32(
    finished: tuple[Path, list], sample_csv: Path, tmp_path: Path, order: str
) -> None:
    """Oracle: the AWQ checkpoint's weights, dequantized by our own reading, in transformers at float32 on the CPU."""
    from transformers import AutoModelForCausalLM

    from zoo.stages.quantize.awq_format import write_dequantized
    from zoo.stages.train.label_head import label_logits, pad

    request = request_of(finished, ScoreRequest)
    assert isinstance(request, ScoreRequest)
    source = request.model.path / "model"
    write_dequantized(source, tmp_path / "plain")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.float32).eval()
    codec = load_codec(source, request.prompt)
    table = read_scores(finished[1][-1].path / f"{order}-160" / "scores.parquet")
    rows = read_battles(sample_csv).frame.set_index("id", drop=False).loc[table["id"]]
    turns = list(zip(rows["prompt"], rows["response_a"], rows["response_b"], strict=True))
    encoded = encode_battles(turns, codec, request.prompt, order, 160)  # type: ignore[arg-type]
    with torch.no_grad():
        logits = torch.cat([label_logits(model, *pad([e.ids], "cpu"), codec.label_ids) for e in encoded]).numpy()
    assert np.abs(label_probabilities(logits, order) - probabilities(table)).max() < 0.01  # type: ignore[arg-type]


def test_a_killed_training_run_goes_on_with_its_8_bit_optimizer(finished: tuple[Path, list], tmp_path: Path) -> None:
    """The same batches and optimizer state after a kill: losses as close as those of two runs that nobody killed."""
    request = request_of(finished, TrainRequest)
    killed, again = tmp_path / "killed", tmp_path / "again"
    kill_once(request, killed, lambda: (killed / "checkpoint").exists())
    state = json.loads((killed / "checkpoint" / "state.json").read_text())
    assert 0 < state["progress"]["step"] < STEPS
    for out in (killed, again):
        assert start(request, out).wait() == 0
    whole, resumed = (dict(json.loads((out / "result.json").read_text())["curves"]["train/loss"]) for out in (again, killed))
    assert list(resumed) == list(whole) == list(range(1, STEPS + 1))
    assert max(abs(resumed[step] - whole[step]) for step in whole) < 2e-3


def test_8_bit_optimizer_state_survives_a_checkpoint_to_the_bit(tmp_path: Path) -> None:
    from zoo.contracts import TrainSpec
    from zoo.stages.train.checkpoint import Progress, flatten, resume, save_checkpoint
    from zoo.stages.train.learner import make_optimizer

    def model_after(steps: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.Linear(512, 8)).cuda()  # paged, 8-bit and 32-bit states
        optimizer = make_optimizer(model, TrainSpec(optimizer="adamw8bit"))
        for step in range(steps):
            one_step(model, optimizer, step)
        return model, optimizer

    def one_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        torch.manual_seed(step)
        model(torch.randn(16, 512, device="cuda")).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    model, optimizer = model_after(3)
    save_checkpoint(model, optimizer, Progress(step=3), tmp_path)
    other, restored = model_after(0)
    assert resume(other, restored, tmp_path).step == 3  # type: ignore[union-attr]
    ours, theirs = (flatten(o.state_dict()["state"]) for o in (restored, optimizer))
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        same = torch.equal(value.cpu(), ours[key].cpu()) if isinstance(value, torch.Tensor) else value == ours[key]
        assert same, key
    for step in (3, 4):
        one_step(model, optimizer, step)
        one_step(other, restored, step)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_a_killed_scoring_run_ends_with_the_same_numbers(finished: tuple[Path, list], tmp_path: Path) -> None:
    out = tmp_path / "again"
    request = request_of(finished, ScoreRequest)
    kill_once(request, out, lambda: len(list(out.glob("*/chunks/*.parquet"))) >= 3)
    assert start(request, out).wait() == 0
    for slug in ("ab-160", "ba-160"):
        again, whole = (read_scores(folder / slug / "scores.parquet") for folder in (out, finished[1][-1].path))
        pd.testing.assert_frame_equal(again, whole)


@pytest.mark.parametrize("objective", ["labels", "text"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_other_methods_train_and_keep_the_base_s_dtype(
    finished: tuple[Path, list], tmp_path: Path, method: str, objective: str
) -> None:
    from safetensors.torch import load_file

    request = request_of(finished, TrainRequest)
    assert isinstance(request, TrainRequest)
    changes = {"method": method, "objective": objective, "learning_rate": 1e-4, "gradient_checkpointing": True}
    spec = request.spec.model_copy(update=changes)
    out = tmp_path / method
    assert start(request.model_copy(update={"spec": spec}), out).wait() == 0, (out / "stage.log").read_text()[-2000:]
    metrics = json.loads((out / "result.json").read_text())["metrics"]
    assert np.isfinite(metrics["val/log_loss"]) and metrics["val/log_loss"] != metrics["val/log_loss_before"]
    if method == "full":
        assert {t.dtype for t in load_file(out / "model" / "model.safetensors").values()} == {torch.bfloat16}


def test_quantizing_twice_gives_the_same_checkpoint(finished: tuple[Path, list], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    request = request_of(finished, QuantizeRequest)
    assert start(request, tmp_path / "again").wait() == 0
    for path in sorted((finished[1][3].path / "model").glob("*.safetensors")):
        first, second = (load_file(file) for file in (tmp_path / "again" / "model" / path.name, path))
        assert all(torch.equal(first[name], second[name]) for name in second)


def test_a_smaller_card_s_memory_is_kept_to(finished: tuple[Path, list], tmp_path: Path) -> None:
    """Emulating a T4: what loading and serving took is told and is within its memory, and beyond a limit there is none."""
    request = request_of(finished, ScoreRequest).model_copy(update={"emulates": "t4"})
    assert isinstance(request, ScoreRequest)
    assert start(request, tmp_path / "t4").wait() == 0, (tmp_path / "t4" / "stage.log").read_text()[-2000:]
    result = json.loads((tmp_path / "t4" / "result.json").read_text())
    metrics = result["metrics"]
    assert 0 < metrics["engine/loading_bytes"] < metrics["engine/card_bytes"]
    assert 0 < metrics["engine/allocated_bytes"] < metrics["engine/card_bytes"]
    assert result["measurements"]["peak_bytes"] == metrics["engine/card_bytes"] < (load_target("t4").device_bytes or 0)
    small = request.model_copy(update={"serve": request.serve.model_copy(update={"gpu_memory_bytes": 2**28})})
    assert start(small, tmp_path / "small").wait() != 0  # a context alone takes more
    assert "out of memory" in (tmp_path / "small" / "stage.log").read_text()
