"""Ceilings: how far a request goes, whichever answers end first; a larger one goes on and makes nothing again."""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.asking import Asking
from zoo.data.prompts import by_chance, prompt_id, read_prompts
from zoo.errors import ZooError
from zoo.stages.generate import ceilings
from zoo.stages.generate.ceilings import Reach, is_usable, rows_reached, usable_before
from zoo.stages.score import engines
from zoo.stages.score.engines import EngineError

STATUSES = st.lists(st.sampled_from(["ok", "cut", "loop", "too long: turn 1", None]), min_size=1, max_size=40)


@given(STATUSES, st.integers(1, 20))
def test_rows_end_at_the_first_unknown_one_and_at_so_many_usable_ones(statuses: list[str | None], accept: int) -> None:
    whole, ended = rows_reached(statuses, None), rows_reached(statuses, accept)
    assert None not in statuses[:whole] and (whole == len(statuses) or statuses[whole] is None)
    usable = sum(map(is_usable, statuses[:ended]))
    assert ended <= whole and usable == min(accept, sum(map(is_usable, statuses[:whole])))
    if usable == accept:
        assert is_usable(statuses[ended - 1])  # no row behind the last that was wanted
    else:
        assert ended == whole


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40),
    st.integers(1, 15),
    st.integers(1, 8),
    st.integers(0, 2**32),
)
def test_the_rows_that_begin_are_the_shortest_run_whatever_ends_first(
    rows: list[tuple[bool, bool]], accept: int, room: int, seed: int
) -> None:
    """Rows (usable, known before), of which `room` are under way at once, and any of those may end next."""
    random = Random(seed)
    reach = Reach(accept, usable_before([("ok" if usable else "loop") if known else None for usable, known in rows]))
    todo, held, begun = [row for row, (_, known) in enumerate(rows) if not known], [], []
    while True:
        while todo and len(held) < room and reach.may_begin(todo[0]):
            held.append(todo.pop(0))
            begun.append(held[-1])
            reach.begin(held[-1])
        if not held:
            break
        row = held.pop(random.randrange(len(held)))
        if random.random() < 0.2:  # its engine ended
            reach.take_back(row)
            todo = sorted([*todo, row])
            begun.remove(row)
        else:
            reach.end(row, usable=rows[row][0])
    statuses = [("ok" if usable else "loop") if known or row in begun else None for row, (usable, known) in enumerate(rows)]
    every = ["ok" if usable else "loop" for usable, _ in rows]
    assert rows_reached(statuses, accept) == rows_reached(every, accept)
    assert all(row < rows_reached(every, accept) for row in begun)


def test_nothing_begins_that_would_not_end_in_the_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(ceilings.time, "monotonic", lambda: clock[0])
    reach = Reach(None, [0] * 9, lambda: 100 - clock[0])
    assert reach.may_begin(0)
    reach.begin(0)
    clock[0] = 30.0
    reach.end(0, usable=True)
    assert reach.may_begin(1)
    clock[0] = 69.0
    assert reach.may_begin(1)
    reach.begin(1)
    clock[0] = 71.0
    assert not reach.may_begin(2)
    reach.take_back(1)  # its engine ended: rows behind it may be whole already
    assert reach.may_begin(1) and not reach.may_begin(2)


@pytest.fixture(autouse=True)
def engines_start_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "process_age_seconds", lambda: 0.0)  # of the process that runs the tests


PROMPTS = [["loop " + str(n)] if n % 3 == 0 else [f"say {n}", "and then"] if n % 5 == 0 else [f"say {n}"] for n in range(90)]
IDS = {prompt_id(turns): turns for turns in PROMPTS}


def asked(rows: list[dict[str, Any]]) -> list[str]:
    return [row["prompt_id"] for row in rows]


def in_order(asking: Asking) -> list[str]:
    return [prompt.id for prompt in by_chance(read_prompts(asking.root / "p.jsonl").prompts, 0)]


def made_once(asking: Asking) -> bool:
    """No question was answered twice, in whichever run."""
    return max(Counter(json.dumps(context) for *_, context in asking.answered()).values()) == 1


def test_so_many_usable_rows_and_a_larger_number_goes_on(asking: Asking) -> None:
    first, rows = asking.run(asking.request("p", PROMPTS, accept=10), "a")
    assert [row["status"] for row in rows].count("ok") == 10 and rows[-1]["status"] == "ok"
    assert asked(rows) == in_order(asking)[: len(rows)] and first["generate/not_asked_rows"] == 90 - len(rows)
    assert len(asking.answered()) == first["generate/made"]  # nothing is made that is not wanted
    more, rest = asking.run(asking.request("p", PROMPTS, accept=25), "b")
    assert [row["status"] for row in rest].count("ok") == 25 and asked(rest)[: len(rows)] == asked(rows)
    assert more["generate/reused"] == first["generate/made"] and made_once(asking)
    fewer, again = asking.run(asking.request("p", PROMPTS, accept=10), "c")
    assert asked(again) == asked(rows) and fewer["generate/made"] == 0
    whole, every = asking.run(asking.request("p", PROMPTS, accept=1000), "d")
    assert len(every) == 90 and "generate/not_asked_rows" not in whole and made_once(asking)


def test_a_killed_run_goes_on_to_the_same_rows(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "RUN_RESTARTS", 0)
    request = asking.request("p", PROMPTS, accept=20, chunk_answers=1)
    with pytest.raises(EngineError):
        asking.run(request, "a", DIE_AFTER="7")
    _, rows = asking.run(request, "a")
    assert made_once(asking) and asked(rows) == in_order(asking)[: len(rows)]
    assert [row["status"] for row in rows].count("ok") == 20 and rows[-1]["status"] == "ok"


def test_an_engine_that_dies_changes_no_row(asking: Asking) -> None:
    _, rows = asking.run(asking.request("p", PROMPTS, accept=20, chunk_answers=1), "a", DIE_AFTER="7")
    assert made_once(asking) and asked(rows) == in_order(asking)[: len(rows)]
    assert [row["status"] for row in rows].count("ok") == 20 and rows[-1]["status"] == "ok"


def test_after_the_hours_nothing_begins_and_more_hours_go_on(asking: Asking) -> None:
    prompts = [[f"say {n}"] for n in range(400)]
    first, rows = asking.run(asking.request("p", prompts, gpu_hours=4 / 3600), "a", ANSWER_SECONDS="0.05")
    assert 0 < len(rows) < 400 and first["generate/not_asked_rows"] == 400 - len(rows)
    assert asked(rows) == in_order(asking)[: len(rows)] and {row["status"] for row in rows} == {"ok"}
    same, again = asking.run(asking.request("p", prompts, gpu_hours=4 / 3600), "b")  # they are spent
    assert asked(again) == asked(rows) and same["generate/made"] == 0
    _, both = asking.run(asking.request("p", prompts, gpu_hours=1.0, accept=len(rows) + 9), "c")
    assert asked(both) == in_order(asking)[: len(rows) + 9]
    whole, every = asking.run(asking.request("p", prompts, gpu_hours=2.0), "d")
    assert len(every) == 400 and made_once(asking) and "generate/not_asked_rows" not in whole


def test_hours_too_few_for_a_row_are_told(asking: Asking) -> None:
    with pytest.raises(ZooError, match=r"--gpu-hours 1e-05: 0.000 are spent, and no row is answered; give more"):
        asking.run(asking.request("p", PROMPTS, gpu_hours=1e-5), "a")


def test_a_ceiling_leaves_other_requests_as_they_were(asking: Asking) -> None:
    plain = asking.request("p", PROMPTS)
    assert not {"accept", "gpu_hours"} & json.loads(plain.model_dump_json()).keys()
    _, rows = asking.run(plain, "a")
    assert [IDS[one] for one in asked(rows)] == PROMPTS  # in the file's order
