"""A small file of the home that holds something else is one line, and keeps nothing from being logged, now or later."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.logged import add_member, log
from tests.helpers.tracked import all_runs
from zoo.tracking.sync import log_build, log_removals, sync
from zoo.tracking.uses import keep_use

USE = {"kind": "prediction", "build": "b", "dataset_digest": "d", "at": "2026-01-01T00:00:00+00:00", "seconds": 1.0}
USE |= {"numbers": {}, "params": {}}
BUILD = {"plan": {"dataset_digest": "d"}, "numbers": {}, "members": {}}
NEST = "[" * 100_000
BAD = [
    *[("predictions/x.json", USE | bad) for bad in ({"at": "nonsense"}, {"at": 7}, {"seconds": "long"}, {"numbers": [1]})],
    *[("predictions/x.json", USE | bad) for bad in ({"numbers": {"a\nb": 1.0}}, {"kind": "else"}, {"params": None})],
    ("predictions/x.json", [USE]),
    ("predictions/x.json", NEST),
    *[("builds/x/build.json", BUILD | bad) for bad in ({"plan": [1]}, {"members": ["a"]}, {"built_at": "then"})],
    *[("builds/x/build.json", BUILD | {"plan": bad}) for bad in ({"target": {}}, {"fitted_rows": "many"}, {"members": [1]})],
    *[("notes.json", bad) for bad in ([1], {"a": 1}, {"a": {"b": []}}, NEST)],
    *[("aliases.json", bad) for bad in ([1], {"first": 1}, {"first": {"champion": {}}})],
    *[("removed/x.json", bad) for bad in ({}, [], {"artifact": "a", "fingerprint": "f", "cards": [1]}, NEST)],
]


@pytest.mark.parametrize(("name", "content"), BAD, ids=range(len(BAD)))
def test_a_bad_small_file_is_one_line_and_hides_no_other(
    name: str, content: object, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (home / name).parent.mkdir(parents=True, exist_ok=True)
    (home / name).write_text(content if isinstance(content, str) else json.dumps(content))
    assert log_build({"dataset_digest": "d" * 64}, {"val/log_loss": 1.0}, {})
    keep_use("prediction", {"dataset_digest": "d" * 64}, seconds=1.0, numbers={}, params={})
    assert log(add_member(home, "first")) and log_removals()
    assert [len(all_runs(kind)) for kind in ("stage", "build", "prediction")] == [1, 1, 1]
    assert sync(home / "store") == 0
    (line,) = {record.getMessage() for record in caplog.records if record.name == "zoo"}
    assert str(home / name) in line and "\n" not in line
