"""Stages become MLflow runs once, whoever logs them and how often; nothing private gets in; a dead server costs no stage."""

from __future__ import annotations

import datetime
import json
import logging
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.contracts import (
    Cost,
    FetchRequest,
    Held,
    Input,
    Manifest,
    Measurements,
    MergeRequest,
    MergeSpec,
    PromptSpec,
    QuantizeRequest,
    QuantizeSpec,
    Request,
    ScoreCard,
    ScoreRequest,
    ScoreSpec,
    TrainRequest,
    TrainSpec,
    Variant,
)
from zoo.data.battles import dataset_digest, read_battles
from zoo.data.sample import write_sample
from zoo.entries.load import load_entry
from zoo.errors import ZooError
from zoo.report.figures import reliability_points, score_figures
from zoo.scores.tables import score_table, write_card, write_scores
from zoo.store import Artifact, artifact_name, commit, fingerprint
from zoo.tracking import client as tracking_client
from zoo.tracking.builds import log_build
from zoo.tracking.facts import data_of, flatten, stage_facts
from zoo.tracking.home import mask, tracking_uri
from zoo.tracking.promote import members_with_alias, promote
from zoo.tracking.stages import log_stage
from zoo.tracking.sync import sync

SECRET = "hunter2"
HOME = "/home/somebody/private"
PROMPT = PromptSpec(template="{prompt}{response_a}{response_b}")
BATTLES = Input(path=Path(f"{HOME}/my_battles.csv.gz"), fingerprint="d" * 64)
CREATED = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


@pytest.fixture(scope="session")
def fresh_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, made once: its tables take seconds."""
    path = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("ZOO_HOME", str(path))
        tracking_client.ensure_store()
    return path / "mlflow.db"


@pytest.fixture
def home(tmp_path: Path, fresh_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    shutil.copy(fresh_database, tmp_path / "home" / "mlflow.db")
    return tmp_path / "home"


def finished(
    store: Path,
    request: Request,
    *,
    metrics: dict[str, float] | None = None,
    curves: dict[str, Any] | None = None,
    created: datetime.datetime = CREATED,
) -> Artifact:
    """A finished artifact of a request, as the runner leaves it."""
    partial = store / ".partial" / artifact_name(request)
    partial.mkdir(parents=True, exist_ok=True)
    (partial / "result.json").write_text(json.dumps({"curves": curves or {}}))
    return commit(
        partial,
        store / artifact_name(request),
        lambda files: Manifest(
            stage=request.stage,
            fingerprint=fingerprint(request),
            request=request.model_dump(mode="json"),
            files=files,
            metrics=metrics or {},
            measurements=Measurements(load_seconds=2, run_seconds=10, rows=5, tokens=50, peak_bytes=2**31),
            hardware={"machine": "an abacus, 2 cores"},
            packages={"torch": "2.13.0", "vllm": "0.32.0"},
            git_commit="c0ffee+",
            argv=("zoo", f"--token={SECRET}"),
            created_at=created,
        ),
    )


def train_request(seed: int = 0) -> TrainRequest:
    base = Input(path=Path(f"{HOME}/base"), fingerprint="b" * 16)
    return TrainRequest(
        entry="smollm2-135m",
        base=base,
        battles=BATTLES,
        held=Held(),
        prompt=PROMPT,
        spec=TrainSpec(seed=seed, learning_rate=3e-4),
    )


def trained(store: Path, seed: int = 0) -> Artifact:
    curves = {"train/loss": [[0, 2.0], [1, 1.5]], "val/log_loss": [[0, 1.2], [5, 1.05]]}
    return finished(store, train_request(seed), metrics={"val/log_loss": 1.05, "train/loss": 1.5}, curves=curves)


def merged(store: Path) -> Artifact:
    """A merge whose data are known only through the training it comes from."""
    adapter = trained(store)
    base = Input(path=Path("base"), fingerprint="b" * 16)
    source = Input(path=adapter.path, fingerprint=adapter.fingerprint)
    return finished(store, MergeRequest(entry="smollm2-135m", base=base, adapter=source, spec=MergeSpec()))


def scored(store: Path, model: str = "m" * 16, created: datetime.datetime = CREATED, *, figures: bool = False) -> Artifact:
    """A score stage of two variants on 100 labelled battles, whose file lies in a folder of the user's.

    Without `figures` the file is gone when the stage is logged: drawing takes seconds.
    """
    battles = store.parent / "private" / "my_battles.csv"
    if not battles.exists():
        battles.parent.mkdir(parents=True, exist_ok=True)
        write_sample(battles, 100, 3)
    frame = read_battles(battles)
    digest, ids = dataset_digest(frame), frame.frame["id"].tolist()
    variants = (Variant(order="ab", max_tokens=512), Variant(order="ba", max_tokens=512))
    request = ScoreRequest(
        entry="smollm2-135m",
        model=Input(path=Path(f"{HOME}/model"), fingerprint=model),
        battles=Input(path=battles, fingerprint=digest),
        held=Held(),
        prompt=PROMPT,
        spec=ScoreSpec(variants=variants),
        target="cpu",
    )
    partial = store / ".partial" / artifact_name(request)
    rng = np.random.default_rng(0)
    metrics: dict[str, float] = {}
    for number, variant in enumerate(variants):
        (partial / variant.slug).mkdir(parents=True, exist_ok=True)
        table = score_table(ids, rng.dirichlet((1, 1, 1), size=len(ids)), fold=0, n_tokens=100)
        write_scores(table, partial / variant.slug / "scores.parquet")
        card = ScoreCard(
            member=f"smollm2-135m@{variant.slug}",
            entry="smollm2-135m",
            variant=variant,
            target="cpu",
            engine="vllm 0.32.0",
            dataset_digest=digest,
            rows=len(ids),
            failed_rows=0,
            checkpoint=model,
            cost=Cost(target="cpu", load_seconds=36, seconds_per_row=0.1, seconds_per_token=0.001),
            request=request.model_dump(mode="json"),
        )
        write_card(card, partial / variant.slug / "scores.json")
        metrics |= {f"{variant.slug}:val/log_loss": 1.0 + number / 10, f"{variant.slug}:rows/failed": 0}
    if not figures:
        battles.unlink()
    return finished(store, request, metrics=metrics, created=created)


def digest_of(artifact: Artifact) -> str:
    return str(artifact.manifest.request["battles"]["fingerprint"])


def all_runs(kind: str | None = None) -> list[Any]:
    client = tracking_client.connect()
    experiments = [e.experiment_id for e in client.search_experiments(filter_string="name LIKE 'preference-%'")]
    runs = client.search_runs(experiments, max_results=1000) if experiments else []
    return [r for r in runs if kind is None or r.data.tags["zoo.kind"] == kind]


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


def test_data_of_a_merge_are_those_of_its_training(home: Path) -> None:
    artifact = merged(home / "store")
    found = data_of(artifact.manifest, artifact.path)
    assert found is not None and found.digest == BATTLES.fingerprint and found.name == "my_battles"
    assert sync(home / "store") == 2
    assert len(all_runs("entry")) == 1 and len(all_runs("stage")) == 2


def test_other_data_are_another_experiment(home: Path) -> None:
    assert tracking_client.latest_experiment() is None
    first = trained(home / "store")
    log_stage(first.manifest, first.path, None)
    other = train_request().model_copy(update={"battles": Input(path=Path("b.csv"), fingerprint="e" * 64)})
    second = finished(home / "store", other)
    log_stage(second.manifest, second.path, None)
    assert len({r.info.experiment_id for r in all_runs()}) == 2
    fetch = FetchRequest(entry="smollm2-135m", base=load_entry("smollm2-135m").base, source="hub")
    weights = finished(home / "store", fetch)
    assert log_stage(weights.manifest, weights.path, load_entry("smollm2-135m"))
    names = {e.name: e.experiment_id for e in tracking_client.connect().search_experiments()}
    assert names["preference-weights"] != tracking_client.latest_experiment() in names.values()


def test_nothing_private_reaches_a_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    artifact = scored(home / "store", figures=True)
    log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    build_plan = {"dataset_digest": digest_of(artifact), "members": [artifact.manifest.request]}
    log_build(build_plan, {"oof_log_loss": 1.0}, {})
    with sqlite3.connect(home / "mlflow.db") as database:
        dump = "\n".join(database.iterdump())
    for path in (home / "artifacts").rglob("*.json"):
        dump += path.read_text()
    assert "smollm2" in dump
    assert SECRET not in dump and HOME not in dump and "/private" not in dump


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


def test_a_build_links_to_its_members_runs(home: Path) -> None:
    artifact = scored(home / "store")
    log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    plan = {"dataset_digest": digest_of(artifact), "budget_seconds": 300.0, "members": [{"name": "x"}]}
    members = {"smollm2-135m@ab-512": artifact.fingerprint, "elsewhere": "0" * 16}
    for _ in range(2):
        assert log_build(plan, {"oof_log_loss": 0.99}, members)
    (build,) = all_runs("build")
    member = next(r for r in all_runs("stage") if r.data.tags["zoo.variant"] == "ab-512")
    assert build.data.tags["member.smollm2-135m/ab-512"] == member.info.run_id
    assert build.data.tags["member.elsewhere"] == f"fingerprint {'0' * 16}"
    assert build.data.metrics["oof_log_loss"] == 0.99 and build.data.params["budget_seconds"] == "300.0"


def test_checkpoints_are_models_and_scored_ones_are_registered(home: Path) -> None:
    """A scored checkpoint is a version whose alias is `candidate`; the files stay in the store; logging again adds none."""
    training, first = trained(home / "store"), scored(home / "store")
    later = scored(home / "store", model="n" * 16, created=CREATED + datetime.timedelta(days=1))
    for artifact in (training, later, first):  # out of order: the candidate is the one scored last, not logged last
        assert log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    shutil.rmtree(home / ".logged")
    assert sync(home / "store") == 0
    client = tracking_client.connect()
    (adapter,) = [r for r in all_runs("stage") if r.data.tags["zoo.stage"] == "train"]
    (output,) = adapter.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert model.name == "smollm2-135m-adapter" and model.tags["mlflow.model.isExternal"] == "true"
    assert not any(path.is_file() for path in (home / "artifacts").rglob("models/**/*")), "nothing is copied"
    versions = client.search_model_versions("name = 'smollm2-135m'")
    assert {v.tags["zoo.checkpoint"] for v in versions} == {"m" * 16, "n" * 16}
    assert {v.tags["zoo.members"] for v in versions} == {"smollm2-135m@ab-512,smollm2-135m@ba-512"}
    expected = {"smollm2-135m@ab-512": "n" * 16, "smollm2-135m@ba-512": "n" * 16}
    assert members_with_alias("candidate") == expected


def test_promote_makes_champions(home: Path) -> None:
    for model, day in (("m" * 16, 0), ("n" * 16, 1)):
        artifact = scored(home / "store", model=model, created=CREATED + datetime.timedelta(days=day))
        log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    with pytest.raises(ZooError, match="no scored entry has the alias 'champion'; give it with `zoo promote"):
        members_with_alias("champion")
    assert promote("smollm2-135m") == "2"
    assert set(members_with_alias("champion").values()) == {"n" * 16}
    assert promote("smollm2-135m", version="1") == "1"
    assert set(members_with_alias("champion").values()) == {"m" * 16}
    assert promote("smollm2-135m", version="2", alias="submitted") == "2"
    assert set(members_with_alias("submitted").values()) == {"n" * 16}
    for arguments, message in (
        ({"name": "absent"}, r"no scored checkpoint of 'absent' .*registered: smollm2-135m"),
        ({"name": "smollm2-135m", "version": "7"}, "no version 7; it has 1, 2"),
        ({"name": "smollm2-135m", "alias": "v1"}, "--alias v1: use letters"),
        ({"name": "o'b"}, "no scored checkpoint"),
    ):
        with pytest.raises(ZooError, match=message):
            promote(**arguments)


def test_a_build_crowns_its_members(home: Path) -> None:
    artifact = scored(home / "store")
    log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    plan = {
        "dataset_digest": digest_of(artifact),
        "target": {"name": "cpu", "gpus": 0},
        "predicted_seconds": 1800.0,
        "rows": 25_000,
        "oof_log_loss": 0.98,
    }
    assert log_build(plan, {"val/log_loss": 0.98}, {"smollm2-135m@ab-512": artifact.fingerprint})
    assert set(members_with_alias("champion").values()) == {"m" * 16}
    (build,) = all_runs("build")
    assert build.data.metrics["cost/hours_25k"] == 0.5 and build.data.tags["zoo.scored"] == "yes"
    client = tracking_client.connect()
    (model,) = client.get_run(build.info.run_id).inputs.model_inputs
    assert client.get_logged_model(model.model_id).tags["zoo.fingerprint"] == "m" * 16
    figures = client.list_artifacts(build.info.run_id, "figures")
    assert [f.path for f in figures] == ["figures/cost_log_loss.png"]


def test_the_runs_table_opens_on_the_members(home: Path) -> None:
    artifact = scored(home / "store")
    log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    client = tracking_client.connect()
    experiment = client.get_experiment(tracking_client.latest_experiment())
    state = json.loads(experiment.tags["mlflow.sharedViewState.members"])
    run = next(r for r in all_runs("stage"))
    shown = {c.partition("`")[2].rstrip("`") for c in state["selectedColumns"] if c.startswith("metrics")}
    assert {"val/log_loss", "cost/hours_25k", "t4x2/fits"} <= shown & run.data.metrics.keys()
    found = client.search_runs([experiment.experiment_id], state["searchFilter"], order_by=[f"{state['orderByKey']} ASC"])
    assert [r.data.metrics["val/log_loss"] for r in found] == [1.0, 1.1]


def test_removed_entries_do_not_break_sync(home: Path) -> None:
    request = train_request().model_copy(update={"entry": "gone"})
    finished(home / "store", request)
    assert sync(home / "store") == 1
    (parent,) = all_runs("entry")
    assert parent.info.run_name == "gone" and parent.data.tags["zoo.entry_version"] == "unknown"


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
        from zoo.tracking.builds import log_build
        from zoo.tracking.stages import log_stage
        for artifact in list_artifacts(store_folder()):
            assert log_stage(artifact.manifest, artifact.path)
        assert log_build({"dataset_digest": "d" * 64, "n": sys.argv[1]}, {"x": 1.0}, {})
    """)
    running = [subprocess.Popen([sys.executable, "-c", program, str(n)]) for n in range(2)]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    assert (len(all_runs("entry")), len(all_runs("stage")), len(all_runs("build"))) == (1, 3, 2)
    assert all(r.info.status == "FINISHED" for r in all_runs())


def test_default_store_is_sqlite_in_the_home_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking_uri() == f"sqlite:///{home / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    assert tracking_uri() == "http://elsewhere:5000"


@pytest.mark.parametrize(
    "text",
    [
        f"http://user:{SECRET}@host:5000/path",
        f"postgresql://user:p/w{SECRET}@host/db",
        f"https://host?access_token={SECRET}&x=1",
        f"FATAL: password={SECRET} refused",
        f"the token is {SECRET}",
    ],
)
def test_credentials_are_masked(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    assert SECRET not in mask(text) and "***" in mask(text)
    assert mask("http://host:5000 is down; mail me@example.org") == "http://host:5000 is down; mail me@example.org"


def test_parameters_are_flat_and_few() -> None:
    entry = load_entry("llama-3-8b")
    params = flatten(entry.model_dump(mode="json"))
    assert params["train.rank"] == "64" and params["prompt.shares"] == "0.2, 0.4, 0.4"
    assert "prompt.template" not in params and not any("{" in value for value in params.values())


def test_facts_of_a_merge_and_a_quantization(tmp_path: Path) -> None:
    artifact = merged(tmp_path)
    (fact,) = stage_facts(artifact.manifest, artifact.path, None)
    assert fact.params == {"base": "b" * 16, "adapter": fact.params["adapter"], "merge.into": "trained"}
    source = Input(path=artifact.path, fingerprint=artifact.fingerprint)
    request = QuantizeRequest(
        entry="smollm2-135m", model=source, battles=BATTLES, held=Held(), prompt=PROMPT, spec=QuantizeSpec(group_size=64)
    )
    quantized = finished(tmp_path, request)
    (fact,) = stage_facts(quantized.manifest, quantized.path, None)
    assert fact.params["quantize.group_size"] == "64"


def test_figures_hold_every_row() -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet((1, 1, 1), size=997)
    y = np.array([rng.choice(3, p=row) for row in p])
    points = reliability_points(p[:, 0], y == 0)
    assert points[:, 2].sum() == 997
    assert np.allclose((points[:, 0] * points[:, 2]).sum(), p[:, 0].sum())
    assert np.abs(points[:, 0] - points[:, 1]).max() < 0.15, "drawn from p itself: calibrated"
    lengths = rng.integers(1, 9999, size=997)
    figures = score_figures(p, y, lengths)
    assert figures == score_figures(p, y, lengths)
    assert all(content.startswith(b"\x89PNG") and len(content) > 5000 for content in figures.values())
    assert score_figures(p[:1], y[:1], lengths[:1]), "one row is enough"
