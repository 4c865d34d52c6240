"""What a notebook asks of `ensemble predict`: few packages, hours that began before it, checkpoints elsewhere."""

from __future__ import annotations

import json
import shutil
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ensemble.cli import app
from tests.ensemble.predict.test_predict_lexical import trained  # noqa: F401
from tests.helpers.slim import run_slim, slim_environment
from zoo.data.battles import read_battles
from zoo.data.sample import write_sample
from zoo.errors import ZooError
from zoo.report.duration import parse_moment
from zoo.scores.tables import read_submission, score_table, write_scores

NEEDED = ("numpy", "pandas", "pyarrow", "pydantic", "typer", "psutil")
LEXICAL = ("scikit-learn", "scipy", "tqdm")


@pytest.fixture
def read_only(trained: tuple[Path, Path], tmp_path: Path) -> Iterator[tuple[Path, Path]]:  # noqa: F811
    """The store as a notebook's input is mounted."""
    store, plan = trained
    copied = Path(shutil.copytree(store, tmp_path / "input"))
    everything = [copied, *copied.rglob("*")]
    for path in everything:
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)
    yield copied, plan
    for path in everything:
        path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o700)


def test_given_tables_are_blended_with_six_packages(trained: tuple[Path, Path], tmp_path: Path) -> None:  # noqa: F811
    _, plan = trained
    write_sample(tmp_path / "test.csv", 40, 4)
    ids = read_battles(tmp_path / "test.csv").ids
    write_scores(score_table(ids, np.tile([0.5, 0.3, 0.2], (len(ids), 1))), tmp_path / "table.parquet")
    (tmp_path / "slim").mkdir()
    environment = slim_environment(tmp_path / "slim", NEEDED) | {"ZOO_HOME": str(tmp_path / "home")}
    given = ("--scores", "lexical@ab=table.parquet")
    ended = run_slim(environment, "-m", "ensemble", "predict", str(plan), "test.csv", *given, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert len(read_submission(tmp_path / "submission.csv")) == len(ids)


def test_a_lexical_member_runs_from_a_read_only_store_with_three_more(read_only: tuple[Path, Path], tmp_path: Path) -> None:
    store, plan = read_only
    write_sample(tmp_path / "test.csv", 40, 4)
    (tmp_path / "slim").mkdir()
    environment = slim_environment(tmp_path / "slim", (*NEEDED, *LEXICAL)) | {"ZOO_HOME": str(tmp_path / "home")}
    where = ("--store", str(store), "-o", "out.csv")
    ended = run_slim(environment, "-m", "ensemble", "predict", str(plan), "test.csv", *where, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = read_submission(tmp_path / "out.csv")
    assert len(found) == 40 and found["p_a"].nunique() > 20, "not the prior"


def test_hours_that_began_earlier_are_gone(read_only: tuple[Path, Path], tmp_path: Path) -> None:
    """A budget of which nothing is left writes the prior at once; the same budget from now on has the member in it."""
    store, plan = read_only
    write_sample(tmp_path / "test.csv", 40, 4)
    hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    begin = ["predict", str(plan), str(tmp_path / "test.csv"), "--store", str(store), "--budget", "50m"]
    late = CliRunner().invoke(app, [*begin, "-o", str(tmp_path / "late.csv"), "--started-at", hour_ago])
    assert late.exit_code in (1, 3), late.output
    in_time = CliRunner().invoke(app, [*begin, "-o", str(tmp_path / "in_time.csv"), "--started-at", str(time.time() - 60)])
    assert in_time.exit_code == 0, in_time.output


def test_a_moment_in_either_form() -> None:
    now = time.time()
    assert parse_moment(f"{now:.3f}") == pytest.approx(now, abs=0.01)
    assert parse_moment(datetime.fromtimestamp(now, UTC).isoformat()) == pytest.approx(now, abs=0.01)


@pytest.mark.parametrize("text", ["yesterday", "2026-11-26T08:30", "9999999999", "12", "", "-5"])
def test_what_names_no_moment_that_has_been(text: str) -> None:
    with pytest.raises(ZooError, match=r"--started-at .*Unix seconds"):
        parse_moment(text)


def test_a_store_that_is_not_there(trained: tuple[Path, Path], tmp_path: Path) -> None:  # noqa: F811
    done = CliRunner().invoke(app, ["predict", str(trained[1]), "x.csv", "--store", str(tmp_path / "nowhere")])
    assert isinstance(done.exception, ZooError) and "--store" in str(done.exception)
    assert json.loads(trained[1].read_text())["members"]
