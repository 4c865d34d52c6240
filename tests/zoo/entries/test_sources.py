"""Entries from the user's folders and from other packages; old runs outlive the entries they were made from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ensemble.cli import main as ensemble_main
from tests.helpers.command_lines import Done, run_command
from zoo.cli.main import main as zoo_main
from zoo.entries.load import entry_names, load_entry
from zoo.errors import ZooError
from zoo.settings import entry_folders

LEXICAL = 'name = "{name}"\nkind = "lexical"\ndescription = "{text}"\n[lexical]\nfolds = 3\nmax_features = 512\n'


def package(folder: Path, name: str, *, entries: dict[str, str], points: str) -> None:
    """An installed package as pip leaves it: a module folder with entries, and its entry points."""
    module = folder / name / "entries"
    module.mkdir(parents=True)
    (folder / name / "__init__.py").write_text("")
    for entry, text in entries.items():
        (module / f"{entry}.toml").write_text(LEXICAL.format(name=entry, text=text))
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(points)


def test_entries_come_from_packages_and_the_user_s_own_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    points = "[preference_zoo.entries]\nlab = zoo_lab.entries\ngone = zoo_lab.no_such_folder\n"
    package(tmp_path, "zoo_lab", entries={"from-lab": "theirs", "shared": "theirs"}, points=points)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert {"from-lab", "shared", "lexical"} <= set(entry_names())
    assert load_entry("from-lab").description == "theirs"
    assert "zoo_lab.no_such_folder cannot be used" in caplog.text, "said, and it hides no other"
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "shared.toml").write_text(LEXICAL.format(name="shared", text="mine"))
    monkeypatch.setenv("ZOO_ENTRIES", str(mine))
    assert load_entry("shared").description == "mine"
    assert entry_folders()[-1] == mine


MAIN = {"zoo": zoo_main, "ensemble": ensemble_main}


def run(home: Path, program: str, *arguments: str) -> Done:
    done = run_command(MAIN[program], program, *arguments, home=home / "mlruns", folder=home)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def start(home: Path, program: str, *arguments: str) -> None:
    """As `run`, in a process of its own: one whose age counts, or whose database goes away afterwards."""
    command = [sys.executable, "-m", program, *arguments]
    done = subprocess.run(
        command, cwd=home, capture_output=True, text=True, env={**os.environ, "ZOO_HOME": str(home / "mlruns")}
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_removed_and_renamed_entries_break_no_old_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scored, then renamed: leaderboard, list, sync, promote, build, show and predict go on working."""
    (tmp_path / "entries").mkdir()
    monkeypatch.setenv("ZOO_ENTRIES", str(tmp_path / "entries"))
    path = tmp_path / "entries" / "mine.toml"
    path.write_text(LEXICAL.format(name="mine", text="to be removed"))
    assert run(tmp_path, "zoo", "data", "sample", "battles.csv", "--rows", "150").returncode == 0
    start(tmp_path, "zoo", "run", "mine", "--data", "battles.csv")
    path.rename(path.with_name("renamed.toml"))
    path.with_name("renamed.toml").write_text(LEXICAL.format(name="renamed", text="new name"))
    (tmp_path / "mlruns" / "mlflow.db").unlink()  # what sync then logs knows the entry by its name only

    rows = json.loads(run(tmp_path, "zoo", "leaderboard", "--format", "json").stdout)
    assert [row["member"] for row in rows] == ["mine@ab"]
    assert "renamed" in run(tmp_path, "zoo", "list").stdout
    assert run(tmp_path, "zoo", "sync").stdout.startswith("2 ")
    assert "is now champion" in run(tmp_path, "zoo", "promote", "mine").stdout
    built = run(tmp_path, "ensemble", "build", "--budget", "5m", "--target", "cpu", "--rows", "150")
    assert built.returncode == 0, built.stderr
    assert "mine@ab" in run(tmp_path, "ensemble", "show").stdout
    assert run(tmp_path, "ensemble", "show", "--html", "plan.html").returncode == 0
    assert "mine@ab" in (tmp_path / "plan.html").read_text()
    start(tmp_path, "ensemble", "predict", "plan.json", "battles.csv")
    assert len((tmp_path / "submission.csv").read_text().splitlines()) == 151
    gone = run(tmp_path, "zoo", "show", "mine")
    assert gone.returncode == 2 and gone.stderr.startswith("error: no entry 'mine'")


def test_an_unknown_entry_names_the_nearest_of_all_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my-model.toml").write_text(LEXICAL.format(name="my-model", text=""))
    monkeypatch.setenv("ZOO_ENTRIES", str(tmp_path))
    with pytest.raises(ZooError, match="no entry 'my-modle'; did you mean 'my-model'"):
        load_entry("my-modle")
