"""What was made in one home is used from another: by `zoo pull`, and by a stage that is asked for there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ensemble.cli import main as ensemble_main
from tests.helpers.command_lines import Done, run_command
from tests.helpers.remotes import push
from zoo.cli.main import main as zoo_main
from zoo.data.sample import write_sample
from zoo.errors import ZooError
from zoo.pipeline.runner import run_stage
from zoo.remote import known
from zoo.store import list_artifacts

Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in the home of that name, with or without the remote."""

    def command(home: str, line: str, *, remote: bool = True, code: int = 0) -> Done:
        program, *arguments = line.split()
        monkeypatch.setenv("ZOO_REMOTE", (tmp_path / "remote").as_uri() if remote else "")
        main = zoo_main if program == "zoo" else ensemble_main
        done = run_command(main, program, *arguments, home=tmp_path / home, folder=tmp_path)
        assert done.returncode == code, done.stderr
        return done

    return command


def states(done: Done) -> dict[str, str]:
    return {row["artifact"].rpartition("-")[0]: row["what"] for row in json.loads(done.stdout)}


def test_a_member_of_one_home_is_compared_blended_and_predicted_with_from_another(run: Run, tmp_path: Path) -> None:
    write_sample(tmp_path / "battles.csv", 240, 7)
    frame = pd.read_csv(tmp_path / "battles.csv", dtype=str)
    frame.drop(columns=[name for name in frame if name.startswith("winner_")]).head(40).to_csv(
        tmp_path / "test.csv", index=False
    )
    run("a", "zoo run lexical --data battles.csv", remote=False)
    assert states(run("a", "zoo push --dry-run --json")) == {
        "lexical-score": "would go",
        "lexical-train": "left out: --weights",
    }
    assert not (tmp_path / "remote").exists()
    assert states(run("a", "zoo push lexical@ab --json")) == {"lexical-score": "pushed", "lexical-train": "left out: --weights"}

    shutil.copy(tmp_path / "battles.csv", tmp_path / "theirs.csv")
    (tmp_path / "battles.csv").unlink()  # the other machine has it elsewhere
    assert states(run("b", "zoo pull lexical --json")) == {"lexical-score": "pulled"}
    (there,), (here,) = (json.loads(run(home, "zoo leaderboard --json").stdout) for home in "ab")
    assert {key: there[key] for key in ("member", "log_loss", "rows")} == {
        key: here[key] for key in ("member", "log_loss", "rows")
    }
    assert "lexical-train" in run("b", "zoo lineage lexical@ab").stdout, "what it was made from is known, not fetched"
    plan = "--budget 9h --target cpu --rows 40 --trials 0 --data theirs.csv -o plan.json"
    run("b", f"ensemble build {plan}", remote=False)
    refused = run("b", "ensemble predict plan.json test.csv -o submission.csv", remote=False, code=2)
    assert "is not in" in refused.stderr

    assert states(run("a", "zoo push lexical --weights --json")) == {"lexical-score": "is there", "lexical-train": "pushed"}
    assert states(run("b", "zoo pull lexical@ab --weights --json")) == {"lexical-score": "is here", "lexical-train": "pulled"}
    run("b", "ensemble predict plan.json test.csv -o submission.csv", remote=False)
    assert len(pd.read_csv(tmp_path / "submission.csv")) == 40
    assert run("b", "zoo verify", remote=False)

    # In a third home the same stages are asked for, and none of them is run.
    again = run("c", "zoo run lexical --data theirs.csv")
    assert again.stderr.count("taken from file://") == 2 and "fit:" not in again.stderr
    assert [a.manifest for a in list_artifacts(tmp_path / "c" / "store")] == [
        a.manifest for a in list_artifacts(tmp_path / "a" / "store")
    ]


@pytest.fixture
def scored(run: Run, tmp_path: Path) -> Any:
    """A checkpoint that was made in one home and pushed."""
    write_sample(tmp_path / "battles.csv", 60, 7)
    run("a", "zoo train lexical --data battles.csv", remote=False)
    (first,) = list_artifacts(tmp_path / "a" / "store")
    push(first, (tmp_path / "remote").as_uri())
    return first


def test_a_stage_is_made_here_where_the_remote_cannot_help_and_a_line_says_so(
    run: Run, scored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    request, home, said = scored.manifest.request, tmp_path / "home", list[str]()
    monkeypatch.setenv("ZOO_REMOTE", (tmp_path / "remote").as_uri())
    assert known.pull_known(request, home / "cost", said.append) is None, "what is measured is made here"
    sha256 = next(record.sha256 for record in scored.manifest.files.values() if record.bytes)
    path = tmp_path / "remote" / scored.path.name / sha256
    path.write_bytes(b"x" * path.stat().st_size)
    assert known.pull_known(request, home / "store", said.append) is None
    assert "is not what the manifest says" in caplog.text and f"{scored.path.name} is made here" in caplog.text
    caplog.clear()
    monkeypatch.setenv("ZOO_REMOTE", "sftp://127.0.0.1:1/zoo")
    for _ in range(2):
        assert known.pull_known(request, home / "store", said.append) is None
    assert caplog.text.count("cannot be reached") == 1, "it is not asked again"
    made = run_stage(request, home / "store", say=said.append)
    assert made.fingerprint == scored.fingerprint and not [line for line in said[1:] if "taken from" in line]
    monkeypatch.setenv("ZOO_REMOTE", "sftp://me:hunter2@host/zoo")
    with pytest.raises(ZooError, match="a password in an address"):
        known.pull_known(request, home / "store", said.append)
