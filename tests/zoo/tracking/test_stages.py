"""Stages become MLflow runs once, whoever logs them and how often; nothing private gets in."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.helpers.tracked import (
    BATTLES,
    HOME,
    SECRET,
    all_runs,
    digest_of,
    logged,
    scored,
    train_request,
    trained,
)
from zoo.contracts import CapsRequest, FetchRequest, Held, Input, PricedVariant, Variant
from zoo.entries.load import load_entry
from zoo.tracking.client import connection as tracking_client
from zoo.tracking.experiments import boards
from zoo.tracking.sync import log_build, log_stage, sync


def test_a_training_becomes_a_child_of_its_entry(home: Path) -> None:
    artifact = trained(home / "store")
    assert log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    (run,), (parent,) = all_runs("stage"), all_runs("entry")
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.info.run_name == "smollm2-135m v1"
    assert run.info.status == parent.info.status == "FINISHED"
    assert run.data.metrics["val/log_loss"] == 1.05, "the final value, not a curve's point"
    assert run.data.metrics["mem/peak_gib"] == 2 and run.data.metrics["time/run_seconds"] == 10
    assert run.data.params["train.learning_rate"] == "0.0003" and run.data.params["prompt.max_tokens"] == "1024"
    assert len(run.data.params) < 60
    tags = run.data.tags
    assert (
        tags["package.vllm"] == "0.32.0" and tags["zoo.git_commit"] == "c0ffee+" and tags["zoo.machine"] == "an abacus, 2 cores"
    )
    assert tags["zoo.dataset"] == BATTLES.fingerprint and tags["mlflow.source.git.commit"] == "c0ffee"
    history = tracking_client.connect().get_metric_history(run.info.run_id, "curve/train/loss")
    assert [(m.step, m.value) for m in history] == [(0, 2.0), (1, 1.5)]
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.name == "my_battles" and data.dataset.digest == "d" * 36
    assert data.tags[0].value == "training"


def test_logging_again_adds_nothing(home: Path) -> None:
    artifact = trained(home / "store")
    for _ in range(2):
        assert log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    assert sync(home / "store") == 0
    shutil.rmtree(home / ".logged")
    assert log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    assert len(all_runs()) == 2


def test_a_run_whose_logger_was_killed_is_filled_once(home: Path) -> None:
    artifact = trained(home / "store")
    log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    client, (run,) = tracking_client.connect(), all_runs("stage")
    client.update_run(run.info.run_id, status="RUNNING")
    shutil.rmtree(home / ".logged")
    assert sync(home / "store") == 1
    assert len(all_runs()) == 2
    assert len(client.get_metric_history(run.info.run_id, "curve/train/loss")) == 2
    assert len(client.get_run(run.info.run_id).inputs.dataset_inputs) == 1


def test_each_variant_is_a_run_with_its_own_numbers(home: Path) -> None:
    artifact = scored(home / "store", figures=True)
    assert log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    runs = {r.data.tags["zoo.variant"]: r for r in all_runs("stage")}
    assert {slug: r.data.metrics["val/log_loss"] for slug, r in runs.items()} == {"ab-512": 1.0, "ba-512": 1.1}
    run = runs["ba-512"]
    assert run.data.params["variant.order"] == "ba" and run.data.tags["zoo.member"] == "smollm2-135m@ba-512"
    assert run.data.metrics["cost/seconds_per_row"] == pytest.approx(0.2)
    assert run.data.metrics["cost/hours_25k"] == pytest.approx((36 + 25000 * 0.2) / 3600)
    client = tracking_client.connect()
    files = {f.path for folder in ("scores", "figures") for f in client.list_artifacts(run.info.run_id, folder)}
    figures = {f"figures/{name}.png" for name in ("reliability", "confusion", "log_loss_by_length")}
    assert files == {"scores/scores.parquet", "scores/scores.json"} | figures
    assert {"val/log_loss_short", "val/log_loss_long", "t4x2/fits"} <= run.data.metrics.keys()
    assert (home / "artifacts").is_dir() and run.info.artifact_uri.startswith((home / "artifacts").as_uri())


def test_other_data_are_another_experiment(home: Path) -> None:
    assert boards() == []
    first = trained(home / "store")
    log_stage(first.manifest, first.path, None)
    other = train_request().model_copy(update={"battles": Input(path=Path("b.csv"), fingerprint="e" * 64)})
    second = logged(home / "store", other)
    log_stage(second.manifest, second.path, None)
    assert len({r.info.experiment_id for r in all_runs()}) == 2
    fetch = FetchRequest(entry="smollm2-135m", base=load_entry("smollm2-135m").base, source="hub")
    weights = logged(home / "store", fetch)
    assert log_stage(weights.manifest, weights.path, load_entry("smollm2-135m"))
    names = {e.name: e.experiment_id for e in tracking_client.connect().search_experiments()}
    assert names["preference-weights"] != boards()[0].experiment in names.values()


def test_a_comparison_has_its_figure_and_its_metrics_by_variant(home: Path) -> None:
    request = CapsRequest(
        entry="smollm2-135m",
        scored=Input(fingerprint="s" * 16),
        battles=BATTLES,
        held=Held(),
        priced=(PricedVariant(variant=Variant(max_tokens=256), hours=(1, 2, 3)),),
        reference=Variant(max_tokens=256),
        target="t4x2",
        rows=25_000,
    )
    artifact = logged(home / "store", request, metrics={"caps/ab-256/log_loss": 1.0, "caps/ab-256/hours": 2.0})
    (artifact.path / "caps.png").write_bytes(b"a figure")
    assert log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    (run,) = all_runs("stage")
    assert run.data.metrics["caps/ab-256/hours"] == 2.0 and run.data.tags["zoo.target"] == "t4x2"
    assert [f.path for f in tracking_client.connect().list_artifacts(run.info.run_id, "figures")] == ["figures/caps.png"]


def test_nothing_private_reaches_a_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    artifact = scored(home / "store", figures=True)
    log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    build_plan = {"dataset_digest": digest_of(artifact), "members": [artifact.manifest.request.model_dump(mode="json")]}
    log_build(build_plan, {"oof_log_loss": 1.0}, {})
    with sqlite3.connect(home / "mlflow.db") as database:
        dump = "\n".join(database.iterdump())
    for path in (home / "artifacts").rglob("*.json"):
        dump += path.read_text()
    assert "smollm2" in dump
    assert SECRET not in dump and HOME not in dump and "/private" not in dump


@pytest.mark.services
def test_processes_on_a_fresh_database_lose_and_double_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes log the same stages and one build each, on a database that none has made yet."""
    home = tmp_path / "home"
    monkeypatch.setenv("ZOO_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for seed in range(3):
        trained(home / "store", seed)
    program = textwrap.dedent("""
        import sys
        from zoo.settings import store_folder
        from zoo.store import list_artifacts
        from zoo.tracking.sync import entry_of, log_build, log_stage
        for artifact in list_artifacts(store_folder()):
            assert log_stage(artifact.manifest, artifact.path, entry_of(artifact.manifest))
        assert log_build({"dataset_digest": "d" * 64, "n": sys.argv[1]}, {"x": 1.0}, {})
    """)
    running = [subprocess.Popen([sys.executable, "-c", program, str(n)]) for n in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert (len(all_runs("entry")), len(all_runs("stage")), len(all_runs("build"))) == (1, 3, 2)
    assert all(r.info.status == "FINISHED" for r in all_runs())
