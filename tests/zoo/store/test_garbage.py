"""Garbage and disk use: what nobody goes on with is found with its reason, what anybody needs never, shared bytes once."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.manifests import finished, partial_folder
from tests.helpers.requests import merge_request
from zoo.store import Ledger, collect, disk_use, find_garbage, locked
from zoo.store.usage import overlap_and_add

DAY = 86_400


def age(path: Path, days: float) -> None:
    """Everything in a folder, and the folder, as old as that."""
    for each in (*path.rglob("*"), path):
        os.utime(each, (time.time() - days * DAY,) * 2)


def reasons(home: Path, **options: float) -> dict[str, str]:
    return {item.path.relative_to(home).as_posix(): item.why for item in find_garbage(home, **options)}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a finished artifact, a database that was kept aside, kept builds, and no garbage."""
    store = tmp_path / "store"
    (partial_folder(store, merge_request(tmp_path)) / "model").write_text("x" * 10_000)
    finished(store, merge_request(tmp_path))
    (tmp_path / "mlflow.db.broken-20260101T000000Z").write_text("runs of last year")
    (tmp_path / "builds" / "b").mkdir(parents=True)
    (tmp_path / "builds" / "b" / "build.json").write_text("{}")
    age(tmp_path, 1000)
    return tmp_path


def unfinished(home: Path, name: str, files: dict[str, str], days: float = 0) -> Path:
    folder = partial_folder(home / "store", merge_request(home, fingerprint=name))
    for file, content in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(content)
    age(folder, days)
    return folder


def test_what_lasts_is_never_garbage(home: Path) -> None:
    assert find_garbage(home, days=0) == []


def test_lists_of_judged_pairs_are_told_and_go_when_nobody_asks_again(home: Path) -> None:
    """The same command writes them again."""
    lists = home / "judged"
    lists.mkdir()
    for name, days in (("ids-old.txt", 20), ("pairs-new.parquet", 1)):
        (lists / name).write_text("p1")
        age(lists / name, days)
    assert {path: why for path, why in reasons(home).items() if "judged" in path} == {
        "judged/ids-old.txt": "a list of judged pairs, unused for 20 days"
    }
    assert [use.items for use in disk_use(home, days=14) if use.kind == "lists of judged pairs"] == [1]
    for item in find_garbage(home):
        assert collect(item, home)
    assert [path.name for path in lists.iterdir()] == ["pairs-new.parquet"]


def test_unfinished_work_is_garbage_when_nobody_went_on_with_it(home: Path) -> None:
    refused = json.dumps({"message": "no", "known": True})
    failed = json.dumps({"message": "out of memory", "known": False})
    unfinished(home, "fresh", {"request.json": "{}"})
    unfinished(home, "failed", {"error.json": failed})
    unfinished(home, "late", {"error.json": refused, "checkpoint/state.json": "{}"})
    old = unfinished(home, "old", {"checkpoint/state.json": "{}"}, days=20)
    nothing = unfinished(home, "nothing", {"error.json": refused})
    assert reasons(home, days=14) == {
        f"store/.partial/{old.name}": "unfinished for 20 days",
        f"store/.partial/{nothing.name}": "refused settings: nothing was made",
    }
    assert len(reasons(home, days=0)) == 5


def test_what_a_process_holds_stays_also_where_it_takes_it_up_later(home: Path) -> None:
    folder = unfinished(home, "old", {"work": "x"}, days=20)
    (item,) = find_garbage(home)
    with locked(home / "store", folder.name):
        assert find_garbage(home) == []
        assert not collect(item, home) and folder.exists()
    assert collect(item, home) and not folder.exists()


def test_what_somebody_went_on_with_since_it_was_found_stays(home: Path) -> None:
    folder = unfinished(home, "old", {"work": "x"}, days=20)
    work = home / "predict" / "p"
    work.mkdir(parents=True)
    (work / "lock").touch()
    age(work, 20)
    items = find_garbage(home)
    assert len(items) == 2
    (folder / "work").write_text("more")
    (work / "predict.json").write_text("{}")
    assert [collect(item, home) for item in items] == [False, False]
    assert (folder / "work").read_text() == "more" and (work / "predict.json").exists()


def test_predictions_temporary_files_and_what_was_set_aside(home: Path) -> None:
    for name, days in (("old", 20), ("fresh", 0)):
        (home / "predict" / name).mkdir(parents=True)
        (home / "predict" / name / "lock").touch()
        (home / "predict" / name / "predict.json").write_text("{}")
        (home / "predict" / name / "plan_path.json").write_text(json.dumps({"path": "/a/plan/that/was/moved.json"}))
        age(home / "predict" / name, days)
    (home / f".{'0f' * 8}.tmp").write_text("half")
    age(home / f".{'0f' * 8}.tmp", 1)
    (home / f".{'1f' * 8}.tmp").write_text("being written")
    (home / "store" / ".aside" / "merge-x").mkdir(parents=True)
    assert reasons(home) == {
        "predict/old": "a prediction's work, unused for 20 days",
        f".{'0f' * 8}.tmp": "temporary file of a killed process",
        "store/.aside/merge-x": "set aside: it had no manifest",
    }
    items = find_garbage(home)
    assert [collect(item, home) for item in items] == [True] * 3
    assert [collect(item, home) for item in items] == [False] * 3, "another `gc` was first"
    assert not (home / "predict" / "old").exists()
    assert find_garbage(home) == [] and (home / "predict" / "fresh").exists()


def test_disk_use_has_every_byte_once_and_says_what_gc_frees(home: Path) -> None:
    folder = unfinished(home, "old", {"work": "x" * 50_000}, days=20)
    os.link(folder / "work", home / "store" / "also")
    blocks = {(s.st_dev, s.st_ino): s.st_blocks * 512 for p in home.rglob("*") if p.is_file() for s in [p.stat()]}
    uses = disk_use(home, days=14)
    assert sum(use.bytes for use in uses) == sum(blocks.values())
    kinds = {use.kind: use for use in uses}
    assert (kinds["artifact"].entry, kinds["artifact"].stage, kinds["artifact"].items) == ("tiny", "merge", 1)
    assert kinds["unfinished"].reclaimable == kinds["unfinished"].bytes >= 50_000
    assert kinds["broken database, kept aside"].reclaimable == 0
    assert sum(use.reclaimable for use in uses) == kinds["unfinished"].bytes


def test_a_hard_link_counts_once_and_a_link_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(os.urandom(100_000))
    os.link(tmp_path / "one", tmp_path / "two")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    assert Ledger().bytes_of(tmp_path) == (tmp_path / "one").stat().st_blocks * 512


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=12))
def test_spans_of_shared_blocks_count_each_byte_once(spans: list[tuple[int, int]]) -> None:
    known: list[tuple[int, int]] = []
    seen: set[int] = set()
    for begin, length in spans:
        own = set(range(begin, begin + length))
        assert overlap_and_add(known, begin, length) == len(own & seen)
        seen |= own
        assert {byte for left, right in known for byte in range(left, right)} == seen and known == sorted(known)
