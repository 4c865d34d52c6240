"""Builds become runs that link to their members."""

from __future__ import annotations

import time
from pathlib import Path

from tests.helpers.tracked import (
    all_runs,
    digest_of,
    scored,
)
from zoo.entries.load import load_entry
from zoo.scores.tables import CARD, read_card
from zoo.tracking.builds import build_key
from zoo.tracking.client import connection as tracking_client
from zoo.tracking.promote import members_with_alias
from zoo.tracking.spans import recorded
from zoo.tracking.sync import log_build, log_stage


def test_a_build_links_to_its_members_runs(home: Path) -> None:
    artifact = scored(home / "store")
    log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    plan = {"dataset_digest": digest_of(artifact), "budget_seconds": 300.0, "members": [{"name": "x"}]}
    members = {"smollm2-135m@ab-512": artifact.fingerprint, "elsewhere": "0" * 16}
    with recorded("build") as building:
        time.sleep(0.02)
    for _ in range(2):
        assert log_build(
            plan, {"oof_log_loss": 0.99, "seconds": 21597.14852, "bytes": 14_560_001.0}, members, spans=building.finished()
        )
    (build,) = all_runs("build")
    member = next(r for r in all_runs("stage") if r.data.tags["zoo.variant"] == "ab-512")
    assert build.data.tags["member.smollm2-135m/ab-512"] == member.info.run_id
    assert build.data.tags["member.elsewhere"] == f"fingerprint {'0' * 16}"
    assert build.data.metrics["oof_log_loss"] == 0.99 and build.data.params["budget_seconds"] == "300.0"
    assert (build.data.metrics["seconds"], build.data.metrics["bytes"]) == (21597.1, 14_560_001), "digits that people read"
    assert build.info.end_time - build.info.start_time >= 20, "from the beginning of its first span"
    (theirs,), (ours,) = member.inputs.dataset_inputs, build.inputs.dataset_inputs
    assert (ours.dataset.name, ours.dataset.digest) == (theirs.dataset.name, theirs.dataset.digest)


def test_a_build_crowns_its_members(home: Path) -> None:
    artifact = scored(home / "store")
    log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    rows = read_card(artifact.path / "ab-512" / CARD).rows
    plan = {
        "dataset_digest": digest_of(artifact),
        "target": {"name": "cpu", "gpus": 0},
        "predicted_seconds": 1800.0,
        "rows": 25_000,
        "oof_log_loss": 0.98,
        "fitted_rows": rows,
    }
    numbers = {"val/log_loss": 0.98, "cost/hours_25k": 0.5}
    assert log_build(plan, numbers, {"smollm2-135m@ab-512": artifact.fingerprint})
    assert set(members_with_alias("champion").values()) == {"m" * 16}
    (build,) = all_runs("build")
    assert build.data.metrics["cost/hours_25k"] == 0.5 and build.data.tags["zoo.scored"] == "yes"
    client = tracking_client.connect()
    (model,) = client.get_run(build.info.run_id).inputs.model_inputs
    assert client.get_logged_model(model.model_id).tags["zoo.fingerprint"] == "m" * 16
    figures = client.list_artifacts(build.info.run_id, "figures")
    assert [f.path for f in figures] == ["figures/cost_log_loss.png"]
    other = plan | {"fitted_rows": 10 * rows}
    assert log_build(other, numbers, {"smollm2-135m@ab-512": artifact.fingerprint})
    (other_build,) = (run for run in all_runs("build") if run.info.run_id != build.info.run_id)
    assert client.list_artifacts(other_build.info.run_id, "figures") == [], "losses on other rows share no axis"


def test_a_recalibrated_plan_is_of_the_build_that_made_it() -> None:
    plan = {"target": {"name": "cpu"}, "members": [{"name": "m"}]}
    assert build_key(plan | {"calibration": {"temperature": 1.3}}) == build_key(plan)
    assert build_key(plan | {"members": []}) != build_key(plan)
