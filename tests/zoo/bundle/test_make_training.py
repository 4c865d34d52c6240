"""Bundles that train: what is in them, and what is refused before anything is downloaded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.ensemble.bundle.conftest import kept_wheels, product, store  # noqa: F401
from tests.helpers.manifests import finished, partial_folder
from tests.helpers.model_folders import model
from zoo.bundle.assemble import JOB, NOTEBOOK, NOTEBOOK_AGAIN
from zoo.bundle.check import check_folder, read_bundle
from zoo.bundle.make_training import Asked, commands_of, make_training_bundle
from zoo.bundle.notebook_file import KERNEL
from zoo.bundle.training import TRAINING, Training
from zoo.contracts import FetchRequest
from zoo.entries.load import load_entry, override
from zoo.errors import ZooError

COMPETITION = "llm-classification-finetuning"


@pytest.fixture
def asked(store: Path) -> Asked:  # noqa: F811
    """An entry whose base weights are in the store."""
    entry = load_entry("smollm2-135m")
    assert entry.base
    request = FetchRequest(entry=entry.name, base=entry.base, source="hub")
    model(partial_folder(store, request) / "model", hidden_size=128, intermediate_size=256, num_attention_heads=2)
    finished(store, request)
    return Asked(entry, COMPETITION, "me", store, "t4x2", 5, range(5), "near-prompts-1", 9.0)


def test_a_bundle_that_trains(asked: Asked, tmp_path: Path) -> None:
    made = make_training_bundle(asked, tmp_path / "bundle", print)
    assert read_bundle(tmp_path / "bundle") == made and made.prior is None and made.budget_seconds == 9 * 3600
    findings = list(check_folder(tmp_path / "bundle", made))
    assert {f.verdict for f in findings} <= {"ok", "info"}, findings
    job = tmp_path / "bundle" / JOB
    training = Training.model_validate_json((job / TRAINING).read_text())
    assert training.folds == (0, 1, 2, 3, 4) and training.entry == asked.entry
    assert made.parts[1].artifact == training.base
    assert made.parts[1].files[0].licence == "apache-2.0" or made.parts[1].files[0].licence
    first, again = (json.loads((tmp_path / "bundle" / name / KERNEL).read_text()) for name in (NOTEBOOK, NOTEBOOK_AGAIN))
    assert first["kernel_sources"] == [] and again["kernel_sources"] == [first["id"]]
    assert first["competition_sources"] == [COMPETITION] and first["enable_internet"] is False
    commands = commands_of(made, tmp_path / "bundle")
    assert any(command.startswith("zoo unbundle") for command in commands)


def test_an_encoder_is_trained_without_vllm(asked: Asked, tmp_path: Path) -> None:
    entry = load_entry("deberta-v3-base")
    assert entry.base
    request = FetchRequest(entry=entry.name, base=entry.base, source="hub")
    model(partial_folder(asked.store, request) / "model")
    finished(asked.store, request)
    made = make_training_bundle(replace(asked, entry=entry), tmp_path / "bundle", print)
    assert {f.verdict for f in check_folder(tmp_path / "bundle", made)} <= {"ok", "info"}
    wheels = {file.path.partition("-")[0] for file in made.part("wheels").files}
    assert {"torch", "transformers", "peft", "bitsandbytes", "accelerate"} <= wheels and "vllm" not in wheels
    assert made.image.driver == 580 and made.part("model-1").files[0].licence == "MIT"


def test_a_data_set_is_attached_as_one(asked: Asked, tmp_path: Path) -> None:
    made = make_training_bundle(replace(asked, data="somebody/battles"), tmp_path / "bundle", print)
    metadata = json.loads((tmp_path / "bundle" / NOTEBOOK / KERNEL).read_text())
    assert metadata["competition_sources"] == [] and "somebody/battles" in metadata["dataset_sources"]
    assert {f.verdict for f in check_folder(tmp_path / "bundle", made)} <= {"ok", "info"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"user": "Me!"}, "--user"),
        ({"data": "a/b/c"}, "--data"),
        ({"data": ""}, "--data"),
        ({"target": "cpu"}, "--target cpu"),
        ({"target": "a10g"}, "a10g"),
        ({"entry": load_entry("lexical")}, "zoo run lexical"),
        ({"entry": load_entry("gemma-3-270m")}, "zoo fetch gemma-3-270m"),
        ({"entry": override(load_entry("smollm2-135m"), ["train.extra=more.csv"])}, r"train\.extra"),
    ],
)
def test_what_cannot_be_bundled(asked: Asked, tmp_path: Path, change: dict[str, object], told: str) -> None:
    with pytest.raises(ZooError, match=told):
        make_training_bundle(replace(asked, **change), tmp_path / "bundle", print)  # type: ignore[arg-type]
    assert not (tmp_path / "bundle").exists()
