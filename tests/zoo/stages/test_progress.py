"""Progress of a stage where no terminal shows it: lines, not carriage returns."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from zoo.stages import progress


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    file = io.StringIO()
    monkeypatch.setattr(progress, "_terminal", file)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    return file


def test_a_pipe_gets_lines_that_say_how_far_and_how_fast(pipe: io.StringIO) -> None:
    with progress.bar(3, "merge", "shard") as bar:
        for _ in range(3):
            bar.update()
    lines = pipe.getvalue().splitlines()
    assert "\r" not in pipe.getvalue() and len(lines) == len(set(lines))
    assert lines[0].startswith("  merge: 0 of 3 shards") and lines[-1].startswith("  merge: 3 of 3 shards")
    assert all(line.count(" left") == 1 for line in lines)


@pytest.mark.parametrize(("rate", "told"), [(4.0, " 4.00shard/s,"), (0.25, " 4.00s/shard,")])
def test_the_rate_reads_alike_above_and_below_one_a_second(pipe: io.StringIO, rate: float, told: str) -> None:
    with progress.bar(3, "merge", "shard") as bar:
        assert told in bar.format_meter(**{**bar.format_dict, "n": 1, "rate": rate})


def test_between_two_lines_is_the_interval(pipe: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an interval that never passes, only the beginning and the end are told, whatever happens between."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 1e9)
    with progress.bar(100, "train", "step") as bar:
        for step in range(100):
            bar.set_postfix(loss=step, refresh=False)
            bar.update()
    assert [line.split(",")[0] for line in pipe.getvalue().splitlines()] == [
        "  train: 0 of 100 steps",
        "  train: 100 of 100 steps",
    ]


def test_scoring_tells_tokens_and_rows(pipe: io.StringIO) -> None:
    with progress.TokenBar(1000, 10) as bar:
        bar.begin()
        bar.update(4, 400)
        bar.update(6, 600)
    assert pipe.getvalue().splitlines()[-1].startswith("  score: 1.00k of 1.00k tokens")
    assert "10 of 10 rows" in pipe.getvalue()


def test_who_follows_a_stage_is_told_points_and_how_far_it_is(
    pipe: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress.point("train/loss", 1, 2.0)  # nobody follows: nothing happens
    monkeypatch.setattr(progress, "_live", None)  # put back afterwards
    progress.use_live(tmp_path / "live.jsonl")
    with progress.bar(3, "train", "step") as bar:
        bar.update(2)
        progress.point("train/loss", 2, 1.5)
        bar.update()  # too soon to be told again
    first, second = (json.loads(line) for line in (tmp_path / "live.jsonl").read_text().splitlines())
    bar = {"description": "train", "done": 2, "total": 3, "unit": "step"}
    assert first["bar"] == bar and re.fullmatch(r"(\d\d:\d\d left, )?train: 2 of 3 steps", first["progress"])
    assert (second["name"], second["step"], second["value"]) == ("train/loss", 2, 1.5) and second["time"] > 1e9


def test_a_link_planted_at_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "live.jsonl").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        progress.use_live(tmp_path / "live.jsonl")
    assert not (tmp_path / "victim").exists()
