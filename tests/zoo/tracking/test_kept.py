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
MANY = [  # files of which a home has many
    *[("predictions/{}.json", USE | bad) for bad in ({"at": "nonsense"}, {"at": 7}, {"seconds": "long"}, {"numbers": [1]})],
    *[("predictions/{}.json", USE | bad) for bad in ({"numbers": {"a\nb": 1.0}}, {"kind": "else"}, {"params": None})],
    ("predictions/{}.json", [USE]),
    ("predictions/{}.json", NEST),
    *[("builds/{}/build.json", BUILD | bad) for bad in ({"plan": [1]}, {"members": ["a"]}, {"built_at": "then"})],
    *[("builds/{}/build.json", BUILD | {"plan": bad}) for bad in ({"target": {}}, {"fitted_rows": "many"}, {"members": [1]})],
    *[("removed/{}.json", bad) for bad in ({}, [], {"artifact": "a", "fingerprint": "f", "cards": [1]}, NEST)],
]
NOTES = [[1], {"a": 1}, {"a": {"b": []}}, NEST]
ALIASES = [[1], {"first": 1}, {"first": {"champion": {}}}, []]


def bad_files(part: int) -> dict[str, object]:
    """Name -> content: one of four homes that share the bad files."""
    many = {name.format(f"x{n}"): content for n, (name, content) in enumerate(MANY) if n % len(NOTES) == part}
    return {**many, "notes.json": NOTES[part], "aliases.json": ALIASES[part]}


@pytest.mark.parametrize("part", range(len(NOTES)))
def test_each_bad_small_file_is_one_line_and_hides_no_other(part: int, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = bad_files(part)
    for name, content in bad.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(content if isinstance(content, str) else json.dumps(content))
    assert log_build({"dataset_digest": "d" * 64}, {"val/log_loss": 1.0}, {})
    keep_use("prediction", {"dataset_digest": "d" * 64}, seconds=1.0, numbers={}, params={})
    assert log(add_member(home, "first")) and log_removals()
    assert [len(all_runs(kind)) for kind in ("stage", "build", "prediction")] == [1, 1, 1]
    assert sync(home / "store") == 0
    lines = {record.getMessage() for record in caplog.records if record.name == "zoo"}
    assert not any("\n" in line for line in lines) and len(lines) == len(bad)
    assert [name for name in bad if sum(str(home / name) in line for line in lines) != 1] == []
