"""A build and a prediction as traces of their runs: one each however often they are logged, gone with their runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.helpers.logged import add_member, log
from tests.helpers.tracked import all_runs
from zoo.store import read_manifest
from zoo.tracking.client.connection import connect
from zoo.tracking.garbage import collect_tracking, tracking_garbage
from zoo.tracking.spans import begun, open_span, recorded, span
from zoo.tracking.sync import log_build, sync
from zoo.tracking.uses import keep_use


def recorded_prediction(home: Path) -> list[dict[str, Any]]:
    with recorded("prediction") as recording, span("members"):
        job = begun("first@ab", recording.clock(), rows=30)
        job.piece("first@ab: chunks", job.start, job.start + 1, rows=30)
        job.event("asked to end", job.start + 1, why=f"{home}/private is full")
        open_span().event("started once more", job.start + 1, members="first@ab")
    return recording.finished()


def traces() -> dict[str, Any]:
    """Traces of all experiments, by the run that they belong to."""
    client = connect()
    places = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_traces(locations=places)
    assert len({trace.info.trace_metadata["mlflow.sourceRun"] for trace in found}) == len(found)
    return {trace.info.trace_metadata["mlflow.sourceRun"]: trace for trace in found}


def test_runs_have_their_traces_and_logging_again_adds_none(home: Path) -> None:
    member = add_member(home, "first")
    assert log(member)
    plan = {"dataset_digest": read_manifest(member).request.inputs["battles"].fingerprint, "members": [{"name": "first"}]}
    with recorded("build") as building, span("search", judged=3), span("subsets"):
        pass
    assert log_build(plan, {}, {"first": read_manifest(member).fingerprint}, spans=building.finished())
    kept = keep_use("prediction", plan, seconds=1.0, numbers={}, params={}, spans=recorded_prediction(home))
    assert sync(home / "store") == 1
    ((build,), (prediction,)), found = (all_runs("build"), all_runs("prediction")), traces()
    assert set(found) == {build.info.run_id, prediction.info.run_id}
    trace = found[prediction.info.run_id]
    names = {one.span_id: one.name for one in trace.data.spans}
    assert {one.name: names.get(one.parent_id) for one in trace.data.spans} == {
        "prediction": None,
        "members": "prediction",
        "first@ab": "members",
        "first@ab: chunks": "first@ab",
    }
    spans = {one.name: one for one in trace.data.spans}
    assert spans["first@ab: chunks"].attributes["rows"] == 30 and spans["first@ab"].attributes["rows"] == 30
    assert [(event.name, event.attributes) for event in spans["first@ab"].events] == [
        ("asked to end", {"why": "private is full"})
    ]
    assert spans["prediction"].inputs == {"command": "ensemble predict"} and "run" in spans["prediction"].outputs
    assert trace.info.request_preview == "ensemble predict" and trace.info.response_preview == "prediction"
    (first, *_) = json.loads(kept.read_text())["spans"]
    assert (spans["prediction"].start_time_ns, spans["prediction"].end_time_ns) == (first["start"], first["end"])
    assert sync(home / "store") == 0 and len(traces()) == 2

    client = connect()
    client.update_run(prediction.info.run_id, status="RUNNING")  # as a logger leaves it that was killed
    assert sync(home / "store") == 1 and len(traces()) == 2 and len(traces()[prediction.info.run_id].data.spans) == 4


def test_a_run_that_is_removed_for_good_takes_its_trace_along(home: Path) -> None:
    keep_use("prediction", {"dataset_digest": "d" * 64}, seconds=1.0, numbers={}, params={}, spans=recorded_prediction(home))
    keep_use("prediction", {"dataset_digest": "d" * 64}, seconds=2.0, numbers={}, params={}, spans=recorded_prediction(home))
    assert sync(home / "store") == 2 and len(traces()) == 2
    gone, stays = all_runs("prediction")
    connect().delete_run(gone.info.run_id)
    collect_tracking(tracking_garbage(days=0), days=0)
    assert set(traces()) == {stays.info.run_id}
