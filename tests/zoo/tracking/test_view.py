"""Where the UI opens: a free port, and the runs table with its columns."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from tests.helpers.tracked import (
    all_runs,
    scored,
)
from zoo.entries.load import load_entry
from zoo.tracking.client import connection as tracking_client
from zoo.tracking.experiments import boards
from zoo.tracking.served import with_landing
from zoo.tracking.sync import log_stage
from zoo.tracking.ui import free_port
from zoo.tracking.view import experiment_page


def test_the_runs_table_opens_on_the_members(home: Path) -> None:
    artifact = scored(home / "store")
    log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
    client = tracking_client.connect()
    experiment = client.get_experiment(boards()[0].experiment)
    state = json.loads(experiment.tags["mlflow.sharedViewState.members"])
    run = next(r for r in all_runs("stage"))
    shown = {c.partition("`")[2].rstrip("`") for c in state["selectedColumns"] if c.startswith("metrics")}
    assert {"val/log_loss", "cost/hours_25k", "t4x2/fits"} <= shown & run.data.metrics.keys()
    found = client.search_runs([experiment.experiment_id], state["searchFilter"], order_by=[f"{state['orderByKey']} ASC"])
    assert [r.data.metrics["val/log_loss"] for r in found] == [1.0, 1.1]


def test_ui_opens_where_runs_compare() -> None:
    assert experiment_page(None) == "/experiments?workflowType=machine_learning"
    assert experiment_page("7").startswith("/experiments/7/runs?viewStateShareKey=members")


def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) != port


def test_a_page_of_mlflow_leads_to_the_runs_whatever_the_place_is_called() -> None:
    """The script is in the head, before MLflow's own; no place ends it early."""
    page = with_landing(b"<html><head><script src=main.js></script></head></html>", "/experiments/1/runs?x=</script>").decode()
    assert page.index("location.replace") < page.index("main.js")
    assert page.count("</script>") == 2 and '"#/experiments/1/runs?x=\\u003c/script>"' in page
    assert with_landing(b"<p>no page</p>", "/experiments") == b"<p>no page</p>"
