"""`train.max_hours`: training stops with the best weights, and one with more hours goes on as if it had never stopped."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.manifests import finished
from tests.helpers.requests import SPEC, train_request
from zoo.contracts import TrainRequest, changed
from zoo.pipeline.starts import CHECKPOINT, stopped_earlier
from zoo.scores.metric_names import HELD_OUT_LOSS, LOG_LOSS, TRAIN_LOSS, TRAIN_SHARE
from zoo.stages.train import hours
from zoo.stages.train import stage as train
from zoo.stages.train.data_parallel import ALONE


def test_the_hours_end_a_training_that_more_hours_take_to_the_same_end(
    base: Path, sample_csv: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of four steps fit. The oracle of the end is the training that was never stopped."""
    clock = iter(range(0, 10**9, 1000))  # each look at the time is 1,000 s later
    monkeypatch.setattr(hours, "process_age_seconds", lambda: float(next(clock)))
    request = train_request(base, sample_csv, changed(SPEC, max_hours=1500 / 3600))
    stopped = train.run(request, tmp_path)
    steps = [step for step, _ in stopped.curves[TRAIN_LOSS]]
    assert 1 <= len(steps) < 4 and stopped.metrics[TRAIN_SHARE] == len(steps) / 4
    assert stopped.metrics[LOG_LOSS] == min(loss for _, loss in stopped.curves[HELD_OUT_LOSS])
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists() and (tmp_path / CHECKPOINT).is_dir()
    more = tmp_path / "more"
    more.mkdir()
    shutil.copytree(tmp_path / CHECKPOINT, more / CHECKPOINT)
    ended = train.run(train_request(base, sample_csv), more)
    assert [step for step, _ in ended.curves[TRAIN_LOSS]] == [1, 2, 3, 4] and ended.metrics[TRAIN_SHARE] == 1
    assert not (more / CHECKPOINT).exists()
    ours, whole = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (more, trained))
    assert all(torch.allclose(ours[name], whole[name], atol=1e-6) for name in whole)


def test_the_end_is_counted_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more step and the last evaluation must fit, and earlier runs' time counts."""
    now = 0.0
    monkeypatch.setattr(hours, "process_age_seconds", lambda: now)
    monkeypatch.setattr(hours.time, "monotonic", lambda: now)
    budget = hours.Hours(1.0, 600.0, ALONE)
    with budget.timing("step"):
        now = 100.0
    with budget.timing("evaluation"):
        now = 400.0
    now = 3600 - 600 - 400.0
    assert not budget.over()
    now += 1
    assert budget.over() and not hours.Hours(None, 1e9, ALONE).over()


def test_only_the_same_training_with_fewer_hours_is_gone_on_from(tmp_path: Path) -> None:
    csv = tmp_path / "b.csv"

    def request(**spec: object) -> TrainRequest:
        return train_request(tmp_path, csv, changed(SPEC, **spec))

    def made(of: TrainRequest, *, checkpoint: bool = True) -> str:
        artifact = finished(tmp_path, of)
        if checkpoint:
            (artifact.path / CHECKPOINT).mkdir()
        return artifact.path.name

    two, four = made(request(max_hours=2.0)), made(request(max_hours=4.0))
    made(request(max_hours=8.0), checkpoint=False)  # it had ended before
    other = made(request(max_hours=9.0, seed=1))
    made(request())

    def start(**spec: object) -> str | None:
        found = stopped_earlier(request(**spec), tmp_path)
        return found.path.name if found else None

    assert start() == start(max_hours=12.0) == four and start(max_hours=3.0) == two
    assert start(max_hours=2.0) is None and start(seed=2) is None and start(seed=1) == other
