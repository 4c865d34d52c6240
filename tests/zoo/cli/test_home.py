"""`zoo verify`, `rm`, `gc` and `du` as people use them: on a home with members, damage and leftovers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.command_lines import Done, run_command
from tests.helpers.logged import add_member
from zoo.cli.main import main
from zoo.store import list_artifacts


@pytest.fixture
def home(own_home: Path) -> Path:
    """A home with two imported members; MLflow was never asked."""
    add_member(own_home, "first")
    add_member(own_home, "other")
    return own_home


def zoo(home: Path, *arguments: str) -> Done:
    return run_command(main, "zoo", *arguments, home=home, folder=home.parent)


def members(home: Path) -> list[str]:
    return sorted(row["member"] for row in json.loads(zoo(home, "leaderboard", "--json").stdout))


def folder_of(home: Path, name: str) -> Path:
    return next(a.path for a in list_artifacts(home / "store") if a.manifest.request.entry == name)


def test_verify_says_what_is_wrong_and_ends_with_1(home: Path) -> None:
    done = zoo(home, "verify")
    assert (done.returncode, done.stdout) == (0, "2 of 2 artifacts are as their manifests say\n")
    broken = folder_of(home, "first")
    (broken / "ab" / "scores.json").write_text("{}")
    done = zoo(home, "verify", "--json")
    (fault,) = json.loads(done.stdout)
    assert done.returncode == 1 and fault["artifact"] == broken.name and f"zoo rm {broken.name}" in fault["mend"]
    assert zoo(home, "verify", "other").returncode == 0
    assert zoo(home, "verify", broken.name[-16:-6]).returncode == 1
    assert "no artifact of" in zoo(home, "verify", "nobody").stderr


@pytest.mark.parametrize("content", [b"", b"PAR1 no parquet", None])
def test_a_damaged_table_or_manifest_hides_no_other_member(content: bytes | None, home: Path) -> None:
    broken = folder_of(home, "first")
    table = broken / "ab" / "scores.parquet"
    table.unlink() if content is None else table.write_bytes(content)
    assert members(home) == ["other"]
    other = folder_of(home, "other")
    (other / "manifest.json").write_text('{"schema_version": 99}')
    assert members(home) == []
    assert zoo(home, "list").returncode == 0
    done = zoo(home, "rm", broken.name, other.name, "--yes")
    assert done.returncode == 0 and list((home / "store").glob("[!.]*")) == []


def test_rm_asks_lists_and_removes(home: Path) -> None:
    first = folder_of(home, "first")
    done = zoo(home, "rm", "first")
    assert done.returncode == 2 and "add --yes" in done.stderr and first.exists()
    done = zoo(home, "rm", "first", "--dry-run")
    assert done.returncode == 0 and first.name in done.stdout and first.exists()
    done = zoo(home, "rm", "first", "--yes")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"removed {first.name}")
    assert members(home) == ["other"]
    assert zoo(home, "rm", "first", "--yes").returncode == 2


def test_gc_and_du_agree(home: Path) -> None:
    assert zoo(home, "gc", "--yes").stdout == "nothing to remove\n"
    left = home / "store" / ".partial" / folder_of(home, "first").name
    left.mkdir()
    (left / "weights").write_bytes(b"x" * 40_000)
    freed = sum(row["reclaimable_bytes"] for row in json.loads(zoo(home, "du", "--json").stdout))
    assert freed >= 40_000
    assert "left over: its artifact is finished" in zoo(home, "gc", "--dry-run").stdout and left.exists()
    assert zoo(home, "gc", "--yes").stdout.endswith("removed 1 items\n") and not left.exists()
    assert sum(row["reclaimable_bytes"] for row in json.loads(zoo(home, "du", "--json").stdout)) == 0
