"""What people see in MLflow: names that tell runs apart, descriptions that link, settings that compare; old stores too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.logged import add_member, log
from tests.helpers.tracked import all_runs, digest_of, scored, train_request, trained
from zoo.contracts import Held
from zoo.entries.load import load_entry
from zoo.tracking.client import connection as tracking_client
from zoo.tracking.describe import NOTE, command_of, settings_table, with_build
from zoo.tracking.experiments import boards
from zoo.tracking.naming import build_name, experiment_name
from zoo.tracking.sync import log_build, log_stage, sync
from zoo.tracking.view import settings_that_differ


def experiments() -> dict[str, Any]:
    client = tracking_client.connect()
    return {e.name: e for e in client.search_experiments() if e.name != "Default"}


def test_an_experiment_is_called_like_its_file(home: Path) -> None:
    artifact = scored(home / "store", figures=True)
    assert log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    digest = digest_of(artifact)
    (name,) = experiments()
    assert name == f"my_battles {digest[:8]}" == experiment_name("my_battles", digest)
    (board,) = boards()
    assert (board.name, board.scored) == (name, 2)
    run = next(r for r in all_runs("stage"))
    (data,) = run.inputs.dataset_inputs
    profile, schema = json.loads(data.dataset.profile), json.loads(data.dataset.schema)
    assert profile["num_rows"] == 100 and sum(profile[f"share_{x}"] for x in ("a", "b", "tie")) == pytest.approx(1, abs=1e-3)
    assert {"prompt", "response_a", "winner"} <= {column["name"] for column in schema["mlflow_colspec"]}


def test_runs_are_called_by_what_tells_them_apart(home: Path) -> None:
    """Entry, rank, fold, and settings that are not the entry's; its description says what it is and how to make it again."""
    artifact = trained(home / "store")
    assert log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    (run,) = all_runs("stage")
    rank = artifact.manifest.request.spec.rank
    assert run.info.run_name.startswith(f"smollm2-135m train r{rank} fold 0") and "learning_rate=0.0003" in run.info.run_name
    note = run.data.tags[NOTE]
    assert (
        "Training of **smollm2-135m** on the battles of `my_battles`" in note and "| `train.learning_rate` | 0.0003 |" in note
    )
    assert "zoo train smollm2-135m --data my_battles.csv.gz" in note and "--set train.learning_rate=0.0003" in note


def test_a_command_says_what_was_asked(home: Path) -> None:
    request = train_request().model_copy(update={"held": Held(n_folds=4, fold=2)})
    manifest = trained(home / "store").manifest.model_copy(update={"request": request})
    command = command_of(manifest, {"train.epochs": ("2.0", "1.0"), "train.scales": ("0.5, 0.8", "")})
    assert command.startswith("zoo train smollm2-135m --data my_battles.csv.gz --fold 2 --folds 4 --fold-rule prompts")
    assert command.endswith("--set train.epochs=2.0 --set 'train.scales=[0.5, 0.8]'")
    assert settings_table({}) == "All settings are the entry's."


def test_a_version_says_what_came_out_of_which_run(home: Path) -> None:
    artifact = scored(home / "store")
    for _ in range(2):
        assert log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    client = tracking_client.connect()
    (version,) = client.search_model_versions("name = 'smollm2-135m'")
    assert "Log loss **1.0000**" in version.description and "(#/experiments/" in version.description
    assert version.tags["val.log_loss"] == "1" and version.tags["data"] == "my_battles"
    run = next(r for r in all_runs("stage"))
    model = client.get_logged_model(client.get_run(run.info.run_id).inputs.model_inputs[0].model_id)
    assert model.params["entry"] == "smollm2-135m" and {m.value for m in model.metrics if m.key == "val/log_loss"} == {1.0, 1.1}
    client.update_model_version("smollm2-135m", version.version, "mine")
    assert sync(home / "store") == 0
    assert client.get_model_version("smollm2-135m", version.version).description == "mine"


def test_builds_and_members_link_to_each_other(home: Path) -> None:
    artifact = scored(home / "store")
    log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    member = {"name": "smollm2-135m@ab-512", "weight": 0.7, "coverage": 1.0, "oof_log_loss": 1.0}
    plan = {"dataset_digest": digest_of(artifact), "budget_seconds": 32400.0, "target": {"name": "t4x2"}, "members": [member]}
    plan |= {"oof_log_loss": 0.9419, "oof_log_loss_se": 0.01, "fitted_rows": 100}
    for _ in range(2):
        assert log_build(plan, {"val/log_loss": 0.9419}, {"smollm2-135m@ab-512": artifact.fingerprint})
    (build,) = all_runs("build")
    assert build.info.run_name == "9h t4x2: smollm2-135m (0.9419)"
    run = next(r for r in all_runs("stage") if r.data.tags["zoo.variant"] == "ab-512")
    place = f"(#/experiments/{run.info.experiment_id}/runs/"
    assert f"{place}{run.info.run_id}?" in build.data.tags[NOTE] and "| 0.700 | 1.0000 | 100% |" in build.data.tags[NOTE]
    assert run.data.tags[NOTE].count(f"{place}{build.info.run_id}?") == 1
    names = ("a@ab", "a@ba", "b@ab", "c@ab")
    assert build_name({"budget_seconds": 5400, "target": "cpu"}, names) == "1h30m cpu: a ab + a ba + b + 1 more"
    assert build_name({}, ()) == "build"
    assert with_build(with_build("x", "[b](c)"), "[b](c)") == "x\n\n**In builds:** [b](c)"


def test_what_people_write_over_a_description_stays(home: Path) -> None:
    assert log(add_member(home, "first"))
    (run,) = all_runs("stage")
    assert run.data.tags[NOTE] and not (home / "notes.json").exists(), "ours is not kept as if it were theirs"
    client = tracking_client.connect()
    client.set_tag(run.info.run_id, NOTE, "sent on Monday")
    client.update_run(run.info.run_id, name="my best")
    client.delete_tag(run.info.run_id, "zoo.layout")
    assert sync(home / "store") == 0
    (run,) = all_runs("stage")
    assert (run.data.tags[NOTE], run.info.run_name) == ("sent on Monday", "my best")


def test_a_store_of_an_earlier_version_is_brought_up_in_place(home: Path) -> None:
    """Experiments called by hashes and runs without names, settings and descriptions: found, renamed, nothing twice."""
    artifact = scored(home / "store")
    assert log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    client, digest = tracking_client.connect(), digest_of(artifact)
    (experiment,) = experiments().values()
    before = {run.info.run_id for run in all_runs()}
    client.rename_experiment(experiment.experiment_id, f"preference-{digest[:12]}")
    for tag in ("zoo.dataset", "zoo.name", "zoo.described"):
        client.delete_experiment_tag(experiment.experiment_id, tag)
    client.set_experiment_tag(experiment.experiment_id, NOTE, "A / B / tie on battles `my_battles` (digest).")
    for run in all_runs("stage"):
        for tag in ("zoo.layout", "zoo.described", NOTE):
            client.delete_tag(run.info.run_id, tag)
        client.update_run(run.info.run_id, name=run.data.tags["zoo.member"])
    for _ in range(2):
        assert sync(home / "store") == 0
        assert {run.info.run_id for run in all_runs()} == before
        (name,) = experiments()
        assert name == f"my_battles {digest[:8]}" and "Views:" in experiments()[name].tags[NOTE]
        names = {run.info.run_name for run in all_runs("stage")}
        assert names == {f"smollm2-135m {order}-512 fold 0 max_tokens=1024" for order in ("ab", "ba")}
        assert all(run.data.tags[NOTE] and run.data.params["entry"] for run in all_runs("stage"))
    client.rename_experiment(experiment.experiment_id, "what I call it")
    assert sync(home / "store") == 0 and list(experiments()) == ["what I call it"], "people's names stay"


def test_settings_that_differ_are_those_that_a_chart_can_show() -> None:
    runs = [
        {"train.rank": "16", "train.epochs": "1.0", "model.fingerprint": "a", "held.fold": "0"},
        {"train.rank": "32", "train.epochs": "1.0", "model.fingerprint": "b", "held.fold": "0"},
        {"train.rank": "32", "train.epochs": "1.0", "lexical.folds": "5", "held.fold": "0"},
    ]
    assert settings_that_differ(runs) == ["train.rank"]
