"""Installed entry points against the tree's: a stale installation is told in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from zoo.cli import installed

PROJECT = (ROOT / "pyproject.toml").read_text()


def test_this_installation_is_of_this_tree() -> None:
    assert installed.stale_entry_points() == []


@pytest.mark.parametrize(
    ("now", "then", "name"),
    [
        ('zoo = "zoo.cli.main:main"', 'zoo = "zoo.cli:main"', "zoo"),
        ("zoo.stages.score.vllm.plugin:register", "zoo.stages.vllm_plugin:register", "preference_zoo"),
    ],
)
def test_what_differs_is_named(tmp_path: Path, capsys, monkeypatch, now: str, then: str, name: str) -> None:
    assert now in PROJECT
    (tmp_path / "pyproject.toml").write_text(PROJECT.replace(now, then))
    assert installed.stale_entry_points(tmp_path) == [name]
    monkeypatch.setattr(installed, "TREE", tmp_path)
    installed.check_installed()
    (line,) = capsys.readouterr().err.splitlines()
    assert name in line and "`make setup`" in line


def test_a_package_without_its_tree_has_nothing_to_compare(tmp_path: Path) -> None:
    assert installed.stale_entry_points(tmp_path) == []


def test_a_script_of_an_older_tree_says_what_to_do() -> None:
    """What such a script does: `from zoo.cli import main; main()`."""
    done = subprocess.run([sys.executable, "-c", "from zoo.cli import main; main()"], capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "make setup" in done.stderr
