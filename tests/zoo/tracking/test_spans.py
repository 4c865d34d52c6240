"""What is recorded of a build or a prediction: bounded, in order, and nothing where nobody records."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from zoo.tracking.kept import Spans
from zoo.tracking.spans import LEFT_OUT, MOST_EVENTS, MOST_PIECES, MOST_SPANS, PIECES, begun, open_span, recorded, span


class Ticks:
    """A clock that is a second on at each look."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_spans_are_nested_as_the_blocks_are() -> None:
    with recorded("build", clock=Ticks(), started=90.0) as recording:
        with span("search", members=3) as searching:
            with span("subsets"):
                pass
            searching.attributes["judged"] = 7
        with span("assemble"):
            open_span().event("refitted", recording.clock(), idle=1)
    found = recording.finished()
    assert [(one["name"], one["parent"]) for one in found] == [("build", None), ("search", 0), ("subsets", 1), ("assemble", 0)]
    assert found[1]["attributes"] == {"members": 3, "judged": 7}
    assert [event["name"] for event in found[3]["events"]] == ["refitted"]
    for one in found:
        assert one["start"] <= one["end"] and (one["parent"] is None or found[one["parent"]]["start"] <= one["start"])
        assert one["parent"] is None or found[one["parent"]]["end"] >= one["end"]
    assert found[1]["start"] - found[0]["start"] == pytest.approx(1e9 * (searching.start - 90.0))


def test_an_error_leaves_its_kind_and_no_text() -> None:
    with pytest.raises(ValueError), recorded("prediction") as recording, span("read battles"):
        raise ValueError("row 7: somebody's words")
    assert recording.finished()[1]["error"] == "ValueError" and "words" not in json.dumps(recording.finished())


def test_nothing_is_recorded_where_nobody_records() -> None:
    with span("search") as searching:
        searching.piece("trial", 0, 1)
    begun("job", 0.0).event("late", 1.0)
    with recorded("build") as recording:
        pass
    assert len(recording.finished()) == 1


@given(st.lists(st.integers(0, 50), min_size=1, max_size=300))
def test_pieces_are_few_and_lose_no_count(rows: list[int]) -> None:
    with recorded("prediction", clock=Ticks()) as recording:
        job = begun("member", 100.0)
        for place, count in enumerate(rows):
            job.piece("chunks", 100.0 + place, 101.0 + place, rows=count)
    pieces = recording.finished()[2:]
    assert len(pieces) <= MOST_PIECES and all(one["parent"] == 1 for one in pieces)
    assert sum(one["attributes"]["rows"] for one in pieces) == sum(rows)
    assert sum(one["attributes"][PIECES] for one in pieces) == len(rows)
    assert [one["start"] for one in pieces] == sorted(one["start"] for one in pieces)
    assert pieces[-1]["end"] - pieces[0]["start"] == len(rows) * 10**9, "together they are as long as all of them"


def test_of_too_many_it_is_said_how_many_are_left_out() -> None:
    with recorded("build") as recording:
        for _ in range(MOST_SPANS + 9):
            with span("without a fold"), span("judging"):
                pass
        for at in range(MOST_EVENTS + 5):
            open_span().event("late", float(at))
    found = recording.finished()
    assert len(found) == MOST_SPANS and found[0]["attributes"][LEFT_OUT] == 2 * (MOST_SPANS + 9) + 1 - MOST_SPANS
    assert len(found[0]["events"]) == MOST_EVENTS and found[0]["attributes"]["events_left_out"] == 5
    TypeAdapter(Spans).validate_python(json.loads(json.dumps(found)))


def test_threads_add_to_one_span() -> None:
    """A study's trials run in threads, which know of no open span."""
    with recorded("build") as recording, span("study") as study:
        threads = [
            threading.Thread(target=lambda: [study.piece("trials", 0.0, 1.0, most=1, trials=1) for _ in range(50)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    (trials,) = recording.finished()[2:]
    assert trials["attributes"]["trials"] == 200


def test_a_fault_of_the_watching_costs_nothing_else() -> None:
    with recorded("build") as recording, span("search", members=np.int64(3)) as searching:
        pass
    json.dumps(recording.finished())
    searching.start = float("nan")
    assert recording.finished() == []
