"""A real tracking server on PostgreSQL: runs arrive from several processes, outages are made up for, nothing is doubled."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.helpers.logged import add_member, log
from tests.helpers.postgres import free_port, postgres
from tests.helpers.waiting import wait_until
from zoo.data.battles import read_battles
from zoo.data.sample import write_sample
from zoo.entries.load import load_entry
from zoo.errors import ZooError
from zoo.pipeline.import_table import import_scores
from zoo.store import list_artifacts
from zoo.tracking import stages
from zoo.tracking.client import connection as tracking_client
from zoo.tracking.client.writing import write_batch
from zoo.tracking.experiments import boards, experiment_of
from zoo.tracking.promote import members_with_alias, promote
from zoo.tracking.spans import recorded, span
from zoo.tracking.sync import log_build, log_stage, sync
from zoo.tracking.ui import serve
from zoo.tracking.view import experiment_page

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

PROCESSES, RUNS = 4, int(os.environ.get("ZOO_TEST_RUNS", "8"))  # 50 runs each: benchmarks/tracking.md
LOGGER = """
import sys
from zoo.tracking.sync import log_build
number, runs = map(int, sys.argv[1:])
for run in range(runs):
    assert log_build({"dataset_digest": "d" * 64, "process": number, "run": run}, {"val/log_loss": 1 + run / 100}, {})
"""


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres() as address:
        yield address.replace("zoo@", "zoo:hunter2@")


class Server:
    """`mlflow server` as people run it, which can be stopped and started again."""

    def __init__(self, database: str, folder: Path) -> None:
        self.port, self.database, self.folder = free_port(), database, folder
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", self.database, "--artifacts-destination", (self.folder / "artifacts").as_uri()]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until(self.answers, "the server's first answer", self.process)
        except AssertionError as error:
            raise AssertionError((self.folder / "server.log").read_text()[-2000:]) from error

    def answers(self) -> bool:
        """Whether it is up."""
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=60):
                return True
        except OSError:
            return False

    def stop(self) -> None:
        from zoo.tracking.ui import stop

        if self.process is not None:
            stop(self.process)
            self.process = None


@pytest.fixture(scope="module")
def server(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(database, tmp_path_factory.mktemp("server"))
    found.start()
    yield found
    found.stop()


@pytest.fixture
def members(tmp_path: Path) -> Callable[[int], list[str]]:
    """Puts that many imported members into the store of the test's home, named by the test's folder; their names."""

    def make(count: int) -> list[str]:
        battles = tmp_path / "battles.csv"
        write_sample(battles, 40, seed=abs(hash(tmp_path.name)) % 1000)
        names = [f"{tmp_path.name[:20].strip('_-').replace('_', '-')}-{n}" for n in range(count)]
        for n, name in enumerate(names):
            rows = [f"{i},{0.3 + n / 100},0.3,{0.4 - n / 100}" for i in read_battles(battles).frame["id"]]
            (tmp_path / f"{name}.csv").write_text("\n".join(["id,p_a,p_b,p_tie", *rows]))
            price = {"target": "t4x2", "load_seconds": 1.0, "seconds_per_row": 0.1, "store": tmp_path / "home" / "store"}
            import_scores(name, tmp_path / f"{name}.csv", battles, **price)
        return names

    return make


def runs_of(kind: str) -> list[str]:
    client = tracking_client.connect()
    experiments = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.`zoo.kind` = '{kind}'", max_results=1000)
    assert all(run.info.status == "FINISHED" for run in found)
    return sorted(run.info.run_name for run in found)


def test_runs_models_and_aliases_on_a_server(
    server: Server, members: Callable[[int], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    names, store = members(2), tmp_path / "home" / "store"
    for artifact in list_artifacts(store):
        assert log_stage(artifact.manifest, artifact.path, load_entry("lexical"))
    assert set(names) <= set(runs_of("stage"))
    assert promote(names[0]) == "1"
    assert set(members_with_alias("champion")) == {names[0]}
    client = tracking_client.connect()
    run = next(r for r in client.search_runs([boards()[0].experiment]) if r.info.run_name == names[0])
    assert [f.path for f in client.list_artifacts(run.info.run_id, "figures")], "figures reach the server"
    said: list[str] = []
    serve(say=said.append, browse=False)
    page = f"{server.uri}/#{experiment_page(boards()[0].experiment)}"
    assert said == [f"opening MLflow on {server.uri}", f"{boards()[0]}: {page}", f"MLflow runs elsewhere: {page}"]
    assert not (tmp_path / "home" / "artifacts").exists() and not (tmp_path / "home" / "mlflow.db").exists()


def test_an_outage_is_made_up_for_without_doubling(
    server: Server,
    members: Callable[[int], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    names, store = members(3), tmp_path / "home" / "store"
    first, *others = list_artifacts(store)
    assert log_stage(first.manifest, first.path)
    plan = {"dataset_digest": first.manifest.request.inputs["battles"].fingerprint, "budget_seconds": 60.0}
    with recorded("build") as building, span("search"):
        pass
    server.stop()
    try:
        assert not any(log_stage(artifact.manifest, artifact.path) for artifact in others)
        assert not log_build(plan, {"val/log_loss": 1.0}, {names[1]: others[0].fingerprint}, spans=building.finished())
        assert caplog.text.count("run `zoo sync` when it is back") == 3
        with pytest.raises(ZooError, match="the server cannot be reached; start the server or mend"):
            sync(store)
    finally:
        server.start()
    assert sync(store) == 3
    assert sync(store) == 0
    client = tracking_client.connect()
    places = [experiment.experiment_id for experiment in client.search_experiments()]
    (trace,) = client.search_traces(locations=places)
    assert [one.name for one in trace.data.spans] == ["build", "search"], "its trace reaches the server, once"
    assert [run for run in runs_of("stage") if run in names] == names
    with pytest.raises(ZooError, match="no scored checkpoint"):
        promote("absent")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["server", "sqlite"])
def test_processes_that_log_at_once_lose_nothing(
    where: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process has a home of its own on the server; on SQLite they share the one that holds the database."""
    if where == "server":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue("server").uri)
    running = []
    started = time.monotonic()
    for number in range(PROCESSES):
        home = tmp_path / (f"home{number}" if where == "server" else "home")
        command = [sys.executable, "-c", LOGGER, str(number), str(RUNS)]
        running.append(subprocess.Popen(command, env={**os.environ, "ZOO_HOME": str(home)}))
    assert [process.wait() for process in running] == [0] * PROCESSES
    print(f"{where}: {PROCESSES} processes x {RUNS} runs in {time.monotonic() - started:.0f} s")
    client = tracking_client.connect()
    experiment = client.get_experiment_by_name(f"battles {'d' * 8}")
    found = client.search_runs([experiment.experiment_id], "tags.`zoo.kind` = 'build'", max_results=1000)
    logged = [(run.data.params["process"], run.data.params["run"], run.data.metrics["val/log_loss"]) for run in found]
    expected = [(str(n), str(k), pytest.approx(1 + k / 100)) for n in range(PROCESSES) for k in range(RUNS)]
    assert sorted(logged) == sorted(expected, key=lambda row: (row[0], row[1]))


def test_tags_that_several_clients_set_first_at_the_same_moment_are_set(
    server: Server, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow asks for the tag and then inserts it: without another attempt all but one of the clients fail now and then."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    clients = [tracking_client.connect() for _ in range(PROCESSES)]
    experiment = clients[0].create_experiment("set at once")
    run = clients[0].create_run(experiment).info.run_id
    barrier, errors, keys = threading.Barrier(PROCESSES), list[Exception](), [f"key{number}" for number in range(10)]

    def write(client: Any) -> None:
        for key in keys:
            barrier.wait(60)
            try:
                client.set_experiment_tag(experiment, key, "same")
                write_batch(client, run, tags={key: "same"})
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=write, args=[client]) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert {key: "same" for key in keys}.items() <= clients[0].get_experiment(experiment).tags.items()
    assert {key: "same" for key in keys}.items() <= clients[0].get_run(run).data.tags.items()


@pytest.mark.services
def test_a_database_that_stops_answering_costs_a_stage_a_line(
    database: str, own_home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is stopped right after it has answered that it is there: no setting of the client or the server ends such a wait."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database.replace("postgresql://", "postgresql+psycopg://"))
    monkeypatch.setattr(tracking_client, "SECONDS", 2.0)
    assert log(add_member(own_home, "before"))
    postmaster = psutil.Process(int(Path(f"/tmp/zoo-postgres-{os.getpid()}/data/postmaster.pid").read_text().split()[0]))
    real, stopped = experiment_of, list[psutil.Process]()

    def stop_then_ask(*arguments: Any) -> str:
        stopped.extend([*postmaster.children(), postmaster])
        for process in stopped:
            with suppress(psutil.NoSuchProcess):  # a worker of the database's own may end meanwhile
                process.suspend()
        return real(*arguments)

    artifact, answers = add_member(own_home, "hung"), list[bool]()
    with monkeypatch.context() as patch:
        patch.setattr(stages, "experiment_of", stop_then_ask)
        asking = threading.Thread(target=lambda: answers.append(log(artifact)), daemon=True)
        asking.start()
        asking.join(120)
    for process in stopped:
        with suppress(psutil.NoSuchProcess):
            process.resume()
    assert answers == [False], "given up, and not waited for"
    (said,) = [record.getMessage() for record in caplog.records if record.name == "zoo"]
    assert "run `zoo sync`" in said and "\n" not in said and "hunter2" not in said
    assert log(artifact), "it is back"
