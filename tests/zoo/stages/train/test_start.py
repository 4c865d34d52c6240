"""Training that starts from an adapter goes on from its weights, and from nothing else of the training that left it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.requests import PROMPT, SPEC, given, train_request
from zoo.contracts import ExtraBattles, TrainSpec, changed
from zoo.data.battles import read_battles
from zoo.errors import ZooError
from zoo.models.prompts import load_codec
from zoo.stages.train import adapters
from zoo.stages.train import stage as train
from zoo.stages.train.learner import Learner
from zoo.stages.train.rows import read_examples

pytestmark = pytest.mark.usefixtures("float32")
SMALL = changed(SPEC, max_rows=24, batch_rows=8, eval_rows=12, evals_per_epoch=1)


def trained_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_it_equals_going_on_by_hand_with_a_fresh_optimizer(base: Path, sample_csv: Path, tmp_path: Path, method: str) -> None:
    """Oracle: the saved tensors copied by name into a new model, a new optimizer, the same batches."""
    spec = changed(SMALL, method=method, seed=3)
    for name in ("first", "second", "by hand"):
        (tmp_path / name).mkdir()
    first = train.run(train_request(base, sample_csv, changed(spec, seed=1)), tmp_path / "first")
    request = changed(train_request(base, sample_csv, spec), start=given(tmp_path / "first"))
    second = train.run(request, tmp_path / "second")
    assert second.metrics["val/log_loss_before"] == pytest.approx(first.metrics["val/log_loss"], abs=1e-5)

    codec = load_codec(base / "model", PROMPT)
    model = adapters.load_model(base / "model", spec)
    saved = trained_tensors(tmp_path / "first")
    for name, parameter in adapters.trained_parameters(model).items():
        parameter.data.copy_(saved[name.replace(".default", "")])
    rows = read_examples(request, codec, read_battles(sample_csv))
    learner = Learner(model, codec, spec)
    assert not learner.optimizer.state
    train.fit(learner, rows.train, rows.held, tmp_path / "by hand")
    ours, start = trained_tensors(tmp_path / "second"), saved
    for name, parameter in adapters.trained_parameters(model).items():
        key = name.replace(".default", "")
        assert torch.allclose(ours[key], parameter.data, atol=1e-6), name
        assert not torch.equal(ours[key], start[key]), name


@pytest.mark.parametrize("form", [{"rslora": True}, {"dora": True}])
def test_every_form_of_adapter_is_started_from(base: Path, sample_csv: Path, tmp_path: Path, form: dict[str, bool]) -> None:
    spec = changed(SMALL, method="lora", max_rows=8, **form)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first = train.run(train_request(base, sample_csv, spec), tmp_path / "first")
    second = train.run(changed(train_request(base, sample_csv, spec), start=given(tmp_path / "first")), tmp_path / "second")
    assert second.metrics["val/log_loss_before"] == pytest.approx(first.metrics["val/log_loss"], abs=1e-5)
    assert first.metrics["val/log_loss"] != first.metrics["val/log_loss_before"]


def test_tensors_that_do_not_fit_are_named(base: Path, trained: Path, tmp_path: Path) -> None:
    """The pipeline refuses other settings by name; an adapter from elsewhere may still hold anything."""
    for spec, expected in (
        (changed(SPEC, rank=2), "not an adapter to start from"),
        (changed(SPEC, target_modules=("q_proj",)), "its tensors are not those that are trained here, first"),
        (changed(SPEC, dora=True), "its tensors are not those that are trained here, first .*lora_magnitude_vector"),
    ):
        with pytest.raises(ZooError, match=expected) as error:
            adapters.start_from(adapters.load_model(base / "model", spec), trained / "adapter")
        assert "\n" not in str(error.value)
    shutil.copytree(trained / "adapter", tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(ZooError, match="not an adapter to start from"):
        adapters.start_from(adapters.load_model(base / "model", SPEC), tmp_path / "adapter")


def test_extra_battles_alone_are_learned_from(base: Path, sample_csv: Path, tmp_path: Path) -> None:
    """The main file, which has no votes, only says what is held out."""
    lines = sample_csv.read_text().splitlines(keepends=True)
    (tmp_path / "main.csv").write_text("".join(lines[:121]))
    (tmp_path / "made.csv").write_text("".join([lines[0], *lines[121:]]))
    (tmp_path / "out").mkdir()
    spec: TrainSpec = changed(SMALL, only_extra=True, targets="votes", extra_targets="hard")
    request = changed(
        train_request(base, tmp_path / "main.csv", spec),
        more_extra=(ExtraBattles(battles=given(tmp_path / "made.csv"), weight=0.5),),
        extra_rule="near-prompts-1",
    )
    result = train.run(request, tmp_path / "out")
    main, made = (set(read_battles(tmp_path / name).frame["id"]) for name in ("main.csv", "made.csv"))
    rows = read_examples(request, load_codec(base / "model", PROMPT), read_battles(tmp_path / "main.csv"))
    assert {row.id for row in rows.train} <= made and {row.id for row in rows.held} <= main and not rows.apart
    assert result.metrics["train/rows"] == len(rows.train) == rows.counts["train/extra_rows"] > 0
    assert all(sum(row.target) == pytest.approx(0.5) for row in rows.train)
