"""What is logged of a stage: its parameters, its data and what it was made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.battles import battle_frame, battles_of
from tests.helpers.manifests import finished, input_of, partial_folder
from tests.helpers.tracked import (
    BATTLES,
    PROMPT,
    all_runs,
    logged,
    merged,
    scored,
)
from zoo.contracts import (
    Held,
    Input,
    LexicalScoreRequest,
    LexicalSpec,
    LexicalTrainRequest,
    MergeRequest,
    MergeSpec,
    PromptSpec,
    QuantizeRequest,
    QuantizeSpec,
    ScoreRequest,
    ScoreSpec,
    Variant,
)
from zoo.entries.load import load_entry
from zoo.scores.metrics import log_loss_rows
from zoo.scores.tables import score_table, write_scores
from zoo.stages.lexical import stage as lexical
from zoo.store import Artifact, source_of
from zoo.tracking.facts import data_of, planned_facts, quantization_delta, stage_facts
from zoo.tracking.recipe import flatten
from zoo.tracking.sync import sync


def test_a_run_has_one_key_before_its_stage_ends_and_after(tmp_path: Path) -> None:
    """Of every stage that leaves score tables; a run that is found by another key is logged twice."""
    table = scored(tmp_path / "store", figures=True)
    battles = table.manifest.request.inputs["battles"]
    train = LexicalTrainRequest(entry="lexical", battles=battles, spec=LexicalSpec(folds=2))
    lexical.train(train, partial_folder(tmp_path / "store", train))
    model = input_of(finished(tmp_path / "store", train))
    request = LexicalScoreRequest(entry="lexical", model=model, battles=battles, target="cpu")
    lexical.score(request, partial_folder(tmp_path / "store", request))
    for artifact in (table, merged(tmp_path / "store"), finished(tmp_path / "store", request)):
        done = stage_facts(artifact.manifest, artifact.path, None)
        assert {f.key for f in planned_facts(artifact.manifest.request, None, artifact.path.parent)} == {f.key for f in done}


def test_parameters_are_flat_and_few() -> None:
    entry = load_entry("llama-3-8b")
    params = flatten(entry.model_dump(mode="json"))
    assert params["train.rank"] == "64" and params["prompt.shares"] == "0.2, 0.4, 0.4"
    assert "prompt.template" not in params and not any("{" in value for value in params.values())


def test_facts_of_a_merge_and_a_quantization(tmp_path: Path) -> None:
    artifact = merged(tmp_path)
    (fact,) = stage_facts(artifact.manifest, artifact.path, None)
    own = {"entry": "smollm2-135m", "base": "b" * 16, "adapter": fact.params["adapter"], "merge.into": "trained"}
    assert own.items() <= fact.params.items() and fact.params["train.learning_rate"] == "0.0003", "its training's too"
    request = QuantizeRequest(
        entry="smollm2-135m",
        model=input_of(artifact),
        battles=BATTLES,
        held=Held(),
        prompt=PROMPT,
        spec=QuantizeSpec(group_size=64),
    )
    quantized = logged(tmp_path, request)
    (fact,) = stage_facts(quantized.manifest, quantized.path, None)
    assert fact.params["quantize.group_size"] == "64"


def test_data_of_a_merge_are_those_of_its_training(home: Path) -> None:
    artifact = merged(home / "store")
    found = data_of(artifact.manifest, artifact.path)
    assert found is not None and found.digest == BATTLES.fingerprint and found.name == "my_battles"
    assert sync(home / "store") == 2
    assert len(all_runs("entry")) == 1 and len(all_runs("stage")) == 2


def test_quantization_delta_is_paired_with_the_merged_weights(tmp_path: Path) -> None:
    frame, rng = battle_frame(101), np.random.default_rng(1)
    battles = battles_of(frame)
    ids, data = frame["id"].tolist(), Input(path=Path("b.csv"), fingerprint="d" * 64)
    prompt = PromptSpec(template="{prompt}{response_a}{response_b}")

    def score(model: Artifact, p: np.ndarray, chosen: list[str]) -> Artifact:
        spec = ScoreSpec(variants=(Variant(order="ab", max_tokens=64),))
        request = ScoreRequest(
            entry="m", model=input_of(model), battles=data, held=Held(), prompt=prompt, spec=spec, target="cpu"
        )
        folder = partial_folder(tmp_path, request) / "ab-64"
        folder.mkdir()
        write_scores(score_table(chosen, p), folder / "scores.parquet")
        return finished(tmp_path, request)

    base = Input(path=Path("base"), fingerprint="b" * 16)
    merged = finished(tmp_path, MergeRequest(entry="m", base=base, adapter=base, spec=MergeSpec()))
    quantize = QuantizeRequest(
        entry="m", model=input_of(merged), battles=data, held=Held(), prompt=prompt, spec=QuantizeSpec(group_size=32)
    )
    quantized = finished(tmp_path, quantize)
    before, after = rng.dirichlet((2, 2, 2), size=101), rng.dirichlet((2, 2, 2), size=80)
    scored = score(quantized, after, ids[:80])
    assert quantization_delta(scored.manifest, scored.path, "ab-64", battles) == {}, "nothing to compare with yet"
    score(merged, before[::-1], ids[::-1])
    found = quantization_delta(scored.manifest, scored.path, "ab-64", battles)
    y = frame["label"].to_numpy()[:80]
    difference = log_loss_rows(after, y) - log_loss_rows(before[:80], y)
    assert found["quant/delta_log_loss"] == pytest.approx(difference.mean())
    assert found["quant/delta_log_loss_se"] == pytest.approx(difference.std(ddof=1) / np.sqrt(80))
    origin = source_of(scored.manifest, scored.path, "merge")
    assert origin is not None and origin.fingerprint == merged.fingerprint
    assert source_of(scored.manifest, scored.path, "fetch") is None
