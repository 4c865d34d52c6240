"""Training as a stage: what it leaves, that it learns, and that a kill changes nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from tests.helpers.battles_files import as_parquet, named, write
from tests.helpers.requests import SPEC, train_request
from zoo.stages.train import stage as train


def test_an_adapter_names_no_path_and_leaves_no_checkpoint(trained: Path) -> None:
    config = json.loads((trained / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None and config["r"] == 4
    assert (trained / "adapter" / "adapter_model.safetensors").exists()
    assert not (trained / "checkpoint").exists()


def test_training_learns_its_rows(base: Path, sample_csv: Path, tmp_path: Path, float32: None) -> None:
    """Sixteen rows seen forty times: even a tiny random model must come to know them."""
    spec = SPEC.model_copy(
        update={
            "max_rows": 16,
            "epochs": 40.0,
            "learning_rate": 1e-2,
            "swap_orders": False,
            "eval_rows": 2,
            "evals_per_epoch": 1,
        }
    )
    losses = [loss for _, loss in train.run(train_request(base, sample_csv, spec), tmp_path).curves["train/loss"]]
    assert losses[-1] < 0.7 * losses[0]


def test_battles_of_which_none_is_a_tie_are_learned_from(base: Path, tmp_path: Path, float32: None) -> None:
    """A parquet file in WSDM Cup's columns: the model comes to know that there are two labels."""
    rows = [(str(i), [f"what is {i}?"], [f"it is {i}"], [f"it is {i + 1}"], i % 2) for i in range(60)]
    battles = write(tmp_path / "wsdm.parquet", as_parquet(named(rows, language="English")))
    spec = SPEC.model_copy(update={"max_rows": 48, "epochs": 6.0, "learning_rate": 1e-2})
    metrics = train.run(train_request(base, battles, spec), tmp_path).metrics
    assert metrics["train/rows"] == 48 and metrics["train/loss"] < 0.9, "of three labels"
    for name in ("val/log_loss_before", "val/log_loss"):
        assert metrics[name] == pytest.approx(math.log(2), abs=0.2), "the winners are by turns: of two, nothing can be learned"


def test_a_killed_training_run_ends_with_the_same_weights(
    base: Path, sample_csv: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    real, saved = train.save_checkpoint, []

    def save_then_die(*arguments: object, **options: bool) -> None:
        real(*arguments, **options)  # type: ignore[arg-type]
        saved.append(1)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "save_checkpoint", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        train.run(train_request(base, sample_csv), tmp_path)
    monkeypatch.setattr(train, "save_checkpoint", real)
    resumed = train.run(train_request(base, sample_csv), tmp_path)
    steps = [step for step, _ in resumed.curves["train/loss"]]
    assert steps == list(range(1, 5))  # 64 rows, 16 a step: none twice, none left out
    ours, whole = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (tmp_path, trained))
    assert all(torch.allclose(ours[name], whole[name], atol=1e-6) for name in whole)
