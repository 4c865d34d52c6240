"""What of a prediction is traced: every member's process, load and chunks, what became of them, and no texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ensemble.predict.traced import JobTrace
from ensemble.report.record import record_prediction
from tests.helpers.clocks import Clock
from tests.helpers.predictions import ROWS, make_plan, member, run
from zoo.tracking.home import kept_uses
from zoo.tracking.spans import MOST_PIECES, Span, recorded


def named(spans: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [span for span in spans if span["name"] == name]


def test_a_prediction_keeps_what_took_how_long(place: Path, clock: Clock) -> None:
    clock.passes = lambda: list(place.rglob("job-01/**/*.parquet")) and not list(place.rglob("job-02"))
    names = ("mortal@ab-512", "hung@ab-512", "good@ab-512")
    done = run(place, make_plan(place, [member(place, name) for name in names]))
    record_prediction(place / "battles.csv", done)
    (kept,) = kept_uses().glob("prediction-*.json")
    spans = json.loads(kept.read_text())["spans"]
    root, parent = spans[0], {place: span["parent"] for place, span in enumerate(spans)}
    assert (root["name"], root["parent"]) == ("prediction", None)
    for one in spans[1:]:
        assert root["start"] <= one["start"] <= one["end"] <= root["end"]
    assert {
        "start and check",
        "read battles",
        "wait for the work folder",
        "members",
        "last look and write",
        "pool",
        "write",
    } <= {span["name"] for span in spans}
    assert len(named(spans, "mortal@ab-512")) == 2, "it died once and was started once more"
    assert named(spans, "mortal@ab-512")[0]["error"] == "its process ended by itself"
    (hung,), (good,) = named(spans, "hung@ab-512"), named(spans, "good@ab-512")
    (event,) = hung["events"]
    assert event["name"] == "asked to end" and "taken for hung" in event["attributes"]["why"]
    assert good["attributes"]["rows"] == ROWS - 1 and good["error"] == ""
    for name, rows in (("mortal@ab-512", ROWS - 1), ("hung@ab-512", 10), ("good@ab-512", ROWS - 1)):
        pieces = named(spans, f"{name}: chunks")
        assert sum(piece["attributes"]["rows"] for piece in pieces) == rows and len(pieces) <= MOST_PIECES
        assert {spans[parent[spans.index(piece)]]["name"] for piece in pieces} == {name}
    members = named(spans, "members")[0]
    assert [event["name"] for event in members["events"]] == ["started once more"]
    assert "why why" not in json.dumps(spans), "that is of the battles"
    assert "spans" not in json.loads(done.report.read_text()), "they are kept once"


def test_loading_is_what_the_stage_measured_and_chunks_begin_after_it(tmp_path: Path) -> None:
    (tmp_path / "tally.json").write_text(json.dumps({"load_seconds": 30.0}))
    with recorded("prediction", clock=lambda: 200.0, started=0.0) as recording:
        trace = JobTrace(["good@ab"])
        trace.started(100.0, tmp_path, rows=20)
        trace.took("good@ab", 140.0, 10)
        trace.took("good@ab", 150.0, 10)
        trace.ended(151.0)
    job: Span = next(span for span in recording._spans if span.name == "good@ab")
    assert [(piece.name, piece.start, piece.end) for piece in job.pieces()] == [
        ("load", 100.0, 130.0),
        ("good@ab: chunks", 130.0, 140.0),
        ("good@ab: chunks", 140.0, 150.0),
    ]


def test_a_tally_of_an_earlier_start_is_no_load_of_this_one(tmp_path: Path) -> None:
    """Nothing was loaded where rows came sooner than that."""
    (tmp_path / "tally.json").write_text(json.dumps({"load_seconds": 30.0}))
    with recorded("prediction", clock=lambda: 200.0, started=0.0) as recording:
        trace = JobTrace(["good@ab"])
        trace.started(100.0, tmp_path)
        trace.took("good@ab", 110.0, 10)
        trace.ended(111.0)
    assert "load" not in [span["name"] for span in recording.finished()]
