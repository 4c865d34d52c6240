"""A classifier is trained as label tokens are: a kill changes nothing, the orders are alike, a teacher is followed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.battles_files import mirrored
from tests.helpers.requests import SPEC, train_request
from tests.helpers.tiny_models import TINY_ENTRY, write_tiny_llama
from zoo.contracts import Entry, Held, Input, TrainRequest, TrainSpec, changed
from zoo.data.battles import read_battles
from zoo.experiments.run import RunOptions, run_entry
from zoo.models.prompts import load_codec
from zoo.scores.tables import score_table, write_scores
from zoo.stages.compare.in_transformers import adapted_model
from zoo.stages.train import adapters
from zoo.stages.train import label_head as labels
from zoo.stages.train import stage as train
from zoo.stages.train.learner import held_probabilities
from zoo.stages.train.rows import read_examples

pytestmark = pytest.mark.usefixtures("float32")


def request_of(base: Path, csv: Path, **spec: Any) -> TrainRequest:
    return changed(train_request(base, csv, changed(SPEC, **{"method": "lora", **spec})), head="classifier")


def trained(request: TrainRequest, out: Path) -> dict[str, torch.Tensor]:
    out.mkdir()
    train.run(request, out)
    return weights(out)


def weights(out: Path) -> dict[str, torch.Tensor]:
    (path,) = out.glob("*/*.safetensors")
    return load_file(path)


@pytest.mark.parametrize("method", ["qlora", "lora", "full"])
def test_a_killed_training_ends_with_the_same_bytes(
    untied: Path, sample_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """At each of its checkpoints: the head with its moments of AdamW, and dropout, go on as they were."""
    request = request_of(untied, sample_csv, method=method, dropout=0.1, epochs=1.0)
    whole = trained(request, tmp_path / "whole")
    real, saved = train.save_checkpoint, [0]

    def save_then_die(*arguments: Any, **options: bool) -> None:
        real(*arguments, **options)
        saved[0] += 1
        raise KeyboardInterrupt

    (tmp_path / "killed").mkdir()
    monkeypatch.setattr(train, "save_checkpoint", save_then_die)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            train.run(request, tmp_path / "killed")
    monkeypatch.setattr(train, "save_checkpoint", real)
    train.run(request, tmp_path / "killed")
    assert saved == [4], "64 rows, 16 a step, a checkpoint after each"
    resumed = weights(tmp_path / "killed")
    assert resumed.keys() == whole.keys() and any("score" in name for name in whole)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    files = [{path.name for path in out.rglob("*")} for out in (tmp_path / "whole", tmp_path / "killed")]
    assert files[0] == files[1]


def test_battles_shown_the_other_way_round_are_the_mirrored_battles(
    untied: Path, sample_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order is which answer is shown first, and what is learned of it: nothing else in a training knows of it."""
    plain = request_of(untied, sample_csv, swap_orders=False)
    own = trained(plain, tmp_path / "own")
    monkeypatch.setattr(train, "draw_swaps", lambda spec, step, batch: [True] * len(batch))
    other = trained(request_of(untied, mirrored(sample_csv, tmp_path / "mirrored.csv")), tmp_path / "other")
    assert own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)
    way = trained(plain, tmp_path / "way")
    assert not all(torch.equal(own[name], way[name]) for name in own), "the order is seen"


def said_of_held_out(base: Path, trained: Path, csv: Path) -> np.ndarray:
    """Probabilities (rows, 3) by an adapter of the rows that it does not learn from."""
    request = request_of(base, csv)
    codec = load_codec(base / "model", request.prompt)
    model = adapted_model(base / "model", trained / "adapter", TrainSpec(method="lora"))
    held = read_examples(request, codec, read_battles(csv)).held

    def logits(rows: Sequence[list[int]]) -> torch.Tensor:
        with torch.no_grad():
            return labels.label_logits(adapters.causal_model(model), *labels.pad(rows, "cpu"), codec.label_ids)

    return held_probabilities(logits, held, 4096, model)


def test_a_teacher_is_followed_and_not_the_labels(untied: Path, sample_csv: Path, tmp_path: Path) -> None:
    """Distillation: the teacher says of every battle what no label says."""
    said = np.array([0.15, 0.6, 0.25])
    ids = read_battles(sample_csv).frame["id"].tolist()
    write_scores(score_table(ids, np.tile(said, (len(ids), 1)), fold=0), tmp_path / "teacher.parquet")
    teacher = Input(path=tmp_path / "teacher.parquet", fingerprint="t")
    fields: dict[str, Any] = {"epochs": 6.0, "swap_orders": False, "learning_rate": 1e-2, "teacher_weight": 1.0}
    away = {}
    for name, one in (("taught", teacher), ("labels", None)):
        request = changed(request_of(untied, sample_csv, **fields), teacher=one)
        (tmp_path / name).mkdir()
        result = train.run(request, tmp_path / name)
        away[name] = np.abs(said_of_held_out(untied, tmp_path / name, sample_csv) - said).mean()
        if one is not None:
            assert result.metrics["train/rows_with_teacher"] == result.metrics["train/rows"] == 64
            entropy = -float((said * np.log(said)).sum())
            assert result.metrics["train/loss"] == pytest.approx(entropy, abs=0.02), "cross-entropy can be no lower"
    assert away["taught"] < 0.05 < away["labels"]


@pytest.mark.chain
@pytest.mark.timeout(900)
def test_the_average_of_folds_is_the_mean_of_their_classifiers(sample_csv: Path, tmp_path: Path) -> None:
    """`zoo run --folds 2 --average`, up to the merge: body and head are the mean of what each fold's merge holds."""
    source = write_tiny_llama(tmp_path / "base", tie_word_embeddings=False)
    settings = {**TINY_ENTRY["train"], "method": "lora", "max_rows": 32, "eval_rows": 8}  # type: ignore[dict-item]
    entry = Entry.model_validate({**TINY_ENTRY, "head": "classifier", "train": settings})
    options = RunOptions("merge", sample_csv, "cpu", Held(n_folds=2), every_fold=True, average=True, source=str(source))
    made = run_entry(entry, options, tmp_path / "store", say=lambda _: None)
    assert len(made.artifacts) == 2
    folds = [load_file(artifact.path / "model" / "model.safetensors") for artifact in made.artifacts]
    (mean_of,) = [path for path in (tmp_path / "store").glob("merge-*") if path not in {one.path for one in made.artifacts}]
    mean = load_file(mean_of / "model" / "model.safetensors")
    assert mean["score.weight"].shape == (3, 128) and not torch.equal(folds[0]["score.weight"], folds[1]["score.weight"])
    for name, tensor in mean.items():
        expected = (folds[0][name].float() + folds[1][name].float()) / 2
        assert torch.allclose(tensor.float(), expected, atol=2e-3), name
