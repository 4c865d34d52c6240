"""What is removed from the store goes from MLflow too: its runs, its models, its version, and nobody else's."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest

from tests.helpers.command_lines import run_command
from tests.helpers.logged import add_member, log
from tests.helpers.tracked import all_runs, scored
from zoo.cli.home import _remove
from zoo.cli.main import main
from zoo.errors import ZooError
from zoo.store import remove_artifact
from zoo.tracking.client import connection as tracking_client
from zoo.tracking.garbage import collect_tracking, tracking_garbage
from zoo.tracking.models import kept_aliases
from zoo.tracking.promote import promote
from zoo.tracking.removed import is_removal_owed, note_removal
from zoo.tracking.sync import log_removals, sync


def remove(folder: Path, home: Path) -> None:
    remove_artifact(folder, home, before=lambda: note_removal(folder))


def names() -> set[str]:
    return {run.info.run_name for run in all_runs("stage")}


def test_runs_versions_aliases_and_files_go(home: Path) -> None:
    first, other = add_member(home, "first"), add_member(home, "other")
    assert log(first) and log(other)
    promote("first")
    remove(first, home)
    assert log_removals() and not is_removal_owed()
    client = tracking_client.connect()
    assert names() == {"other"}
    assert {model.name for model in client.search_registered_models()} == {"other"}
    assert "first" not in kept_aliases()

    assert tracking_garbage(days=1) == []
    items = tracking_garbage(days=0)
    assert [item.why for item in items] == ["files of a deleted run"] and items[0].bytes > 0
    listed = json.loads(run_command(main, "zoo", "du", "--days", "0", "--json", home=home, folder=home.parent).stdout)
    assert sum(row["reclaimable_bytes"] for row in listed) == items[0].bytes, "du and gc agree"
    collect_tracking(items, days=0)
    assert tracking_garbage(days=0) == [] and not items[0].path.exists()
    assert collect_tracking(items, days=0) == [], "another command was first"
    assert names() == {"other"} and sync(home / "store") == 0
    assert log(add_member(home, "first")) and names() == {"first", "other"}, "it can come back"


def test_a_stage_of_two_members_takes_both_and_their_version_with_it(home: Path) -> None:
    table = scored(home / "store").path
    assert sync(home / "store") == 1
    (version,) = tracking_client.connect().search_model_versions("name = 'smollm2-135m'")
    assert len(version.tags["zoo.members"].split(",")) == 2
    remove(table, home)
    assert log_removals()
    assert tracking_client.connect().search_model_versions("name = 'smollm2-135m'") == []
    assert all_runs("stage") == []


def test_a_removal_waits_for_a_dead_server_and_is_made_up_for(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = add_member(home, "first")
    assert log(first)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        remove(first, home)
        assert not log_removals() and is_removal_owed()
    assert "the removal is kept" in caplog.text and names() == {"first"}
    assert log(add_member(home, "other"))
    assert names() == {"other"} and not is_removal_owed()


def test_a_removal_that_its_disk_refuses_is_not_noted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = add_member(home, "first")

    def refused(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(ZooError, match=f"{first.name}: Read-only file system"):
        _remove(first)
    assert not is_removal_owed() and (first / "manifest.json").exists()


def test_what_was_made_again_before_the_removal_was_told_stays(home: Path) -> None:
    first = add_member(home, "first")
    assert log(first)
    remove(first, home)
    add_member(home, "first")
    assert log_removals() and names() == {"first"}


def test_files_of_runs_that_no_database_has_are_garbage(home: Path) -> None:
    assert log(add_member(home, "first"))
    shutil.copytree(next((home / "artifacts").glob("preference-*/*")), home / "artifacts" / "preference-x" / ("0f" * 16))
    assert tracking_garbage(days=1) == []
    (item,) = tracking_garbage(days=0)
    assert item.path.name == "0f" * 16 and "does not have" in item.why


def test_one_broken_build_or_alias_file_keeps_nothing_from_being_logged(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    (home / "builds" / "b").mkdir(parents=True)
    (home / "builds" / "b" / "build.json").write_text("{")
    (home / "aliases.json").write_text("{")
    assert log(add_member(home, "first")) and names() == {"first"}
    assert promote("first") == "1"
    assert "not a kept build" in caplog.text
    (aside,) = home.glob("aliases.json.broken-*")
    assert aside.read_text() == "{" and "first" in kept_aliases()
