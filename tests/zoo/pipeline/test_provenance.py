"""Which code made an artifact: this project's commit where it runs from its checkout, else its version alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import zoo
from tests.helpers.paths import ROOT
from zoo.pipeline.provenance import PROJECT, package_versions

ASK = "import json; from zoo.pipeline.provenance import git_commit; print(json.dumps(git_commit()))"


def commit_of(root: Path, package: Path) -> str | None:
    """What the package says when it lies in `package`, which is in the repository at `root`."""
    shutil.copytree(Path(zoo.__file__).parent, package / "zoo", ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(root)]
    for arguments in (["init", "-q"], ["add", "pyproject.toml"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=package,
        env={"PYTHONPATH": str(package), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said: str | None = json.loads(done.stdout)
    return said


def test_this_checkouts_commit_is_told(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    head = commit_of(tmp_path, tmp_path)
    assert head is not None and len(head) == 40


def test_the_commit_of_a_repository_around_an_installation_is_not(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "somebody-elses"\n')
    assert commit_of(tmp_path, tmp_path / "site-packages") is None


def test_nor_is_that_of_a_checkout_which_another_copy_runs_in(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert commit_of(tmp_path, tmp_path / ".venv" / "site-packages") is None


def test_a_repository_with_a_broken_pyproject_is_not(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project\n")
    assert commit_of(tmp_path, tmp_path) is None


def test_the_packages_version_is_told() -> None:
    assert package_versions()[PROJECT]
