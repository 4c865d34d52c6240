"""What could not be logged costs no stage and is made up for."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.helpers.tracked import (
    BATTLES,
    SECRET,
    all_runs,
    logged,
    scored,
    train_request,
    trained,
)
from zoo.entries.load import load_entry
from zoo.errors import ZooError
from zoo.tracking.client import connection as tracking_client
from zoo.tracking.sync import log_build, log_stage, sync


def test_a_dead_server_costs_no_stage(home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    artifact = trained(home / "store")
    figure = home / "frontier.png"
    figure.write_bytes(b"png")
    plan = {"dataset_digest": BATTLES.fingerprint, "budget_seconds": 60.0}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:{SECRET}@127.0.0.1:9")
    with caplog.at_level(logging.WARNING):
        assert not log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
        assert not log_build(plan, {"oof_log_loss": 1.0}, {}, [figure])
    with pytest.raises(ZooError) as caught:
        sync(home / "store")
    said = [r.getMessage() for r in caplog.records if r.name == "zoo"]
    assert all("zoo sync" in line and "\n" not in line for line in [*said, str(caught.value)]) and len(said) == 2
    assert SECRET not in caplog.text and SECRET not in str(caught.value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    figure.unlink()
    assert sync(home / "store") == 2
    assert sync(home / "store") == 0
    assert len(all_runs("stage")) == 1
    (build,) = all_runs("build")
    assert {f.path for f in tracking_client.connect().list_artifacts(build.info.run_id)} == {"frontier.png", "plan.json"}


@pytest.mark.parametrize("uri", ["{home}/mlruns", "sqlite:////proc/none/x.db", "nonsense://x"])
def test_unusable_stores_cost_no_stage(home: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    artifact = trained(home / "store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(home=home))
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_MAX_RETRIES", "1")
    assert not log_stage(artifact.manifest, artifact.path)
    with pytest.raises(ZooError):
        sync(home / "store")


def test_what_mlflow_will_never_take_keeps_no_other_back(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It was told that everything is kept until `zoo sync`, which failed for good."""
    assert not log_build({"dataset_digest": BATTLES.fingerprint, "no\nname": "x"}, {"oof_log_loss": 1.0}, {})
    assert "; the plan is not taken there" in caplog.text and "zoo sync" not in caplog.text
    artifact = trained(home / "store")
    assert log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    assert log_build({"dataset_digest": BATTLES.fingerprint, "budget_seconds": 60.0}, {"oof_log_loss": 1.0}, {})
    assert sync(home / "store") == 0
    assert len(all_runs("stage")) == 1
    said = [record.getMessage() for record in caplog.records if record.name == "zoo"]
    (left_out,) = [line for line in said if line.startswith("left out: build-")]
    assert "MLflow refuses it" in left_out and not any("\n" in line for line in said)


def test_removed_entries_do_not_break_sync(home: Path) -> None:
    request = train_request().model_copy(update={"entry": "gone"})
    logged(home / "store", request)
    assert sync(home / "store") == 1
    (parent,) = all_runs("entry")
    assert parent.info.run_name == "gone" and parent.data.tags["zoo.entry_version"] == "unknown"


DAMAGED = [b"", b"{", b"[]", b"\xff", b'{"curves": 3}', b'{"curves": {"a": [["x", 1]]}}', b"[" * 100_000, None]


def test_damaged_results_are_told_and_the_others_are_logged(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By the stage's own logging and by `zoo sync` alike; each is named with its mend."""
    bad = [trained(home / "store", seed) for seed in range(len(DAMAGED))]
    for artifact, content in zip(bad, DAMAGED, strict=True):
        path = artifact.path / "result.json"
        path.unlink()
        path.mkdir() if content is None else path.write_bytes(content)
    good = trained(home / "store", seed=99)
    with caplog.at_level(logging.WARNING):
        assert log_stage(bad[0].manifest, bad[0].path)
    assert len(all_runs("stage")) == 1, "the good one, which was owed"
    assert sync(home / "store") == 0
    said = [r.getMessage() for r in caplog.records if r.name == "zoo"]
    for artifact in bad:
        (line,) = (text for text in said if str(artifact.path / "result.json") in text)
        assert "\n" not in line and f"`zoo rm {artifact.path.name}` removes its artifact, then run the stage again" in line
    assert not any(good.fingerprint in line for line in said)


@pytest.mark.parametrize("name", ["ab-512/scores.parquet", "ba-512/scores.json"])
def test_damaged_tables_and_cards_are_told_and_the_others_are_logged(
    name: str, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = scored(home / "store"), scored(home / "store", model="n" * 16)
    (bad.path / name).write_bytes(b"{")
    with caplog.at_level(logging.WARNING):
        assert sync(home / "store") == 1
    (line,) = (r.getMessage() for r in caplog.records if r.name == "zoo")
    assert str(bad.path / name) in line and "zoo rm" in line
    assert {run.data.tags["zoo.fingerprint"] for run in all_runs("stage")} == {good.fingerprint}
