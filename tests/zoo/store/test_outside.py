"""Files that people name: an output replaces no input and nothing that is no file; an input is read within bounds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo.store import check_output


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.json").write_text("{}")
    (tmp_path / "test.csv").write_text("id\n")
    return Path("plan.json"), Path("test.csv")


def test_an_output_that_is_an_input_is_refused_by_whatever_name(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.link("test.csv", "hard.csv")
    for name in ("test.csv", "./test.csv", "folder/../test.csv", str(tmp_path / "plan.json"), "hard.csv"):
        with pytest.raises(ZooError, match=r"would replace .*(test\.csv|plan\.json), which the command reads"):
            check_output(Path(name), *inputs, None)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("", "a folder"),
        ("folder", "a folder"),
        ("fifo", "a FIFO"),
        ("/dev/null", "a device"),
        ("link", "a link to"),
        ("gone", "a link to"),
    ],
)
def test_an_output_that_is_no_file_is_refused_in_one_line(inputs: tuple[Path, Path], name: str, what: str) -> None:
    Path("folder").mkdir()
    os.mkfifo("fifo")
    Path("link").symlink_to("test.csv")
    Path("gone").symlink_to("nowhere.csv")
    with pytest.raises(ZooError, match=what) as told:
        check_output(Path(name), *inputs)
    assert "\n" not in str(told.value)


def test_a_place_where_nothing_can_be_written_is_refused_before_the_work(
    inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ZooError, match=r"^test\.csv/new/out\.csv: .*/test\.csv is no folder; give"):
        check_output(Path("test.csv/new/out.csv"))
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(ZooError, match=rf"^new/out\.csv: nothing can be written in {tmp_path}; give"):
        check_output(Path("new/out.csv"))


def test_an_earlier_output_and_a_new_one_are_fine(inputs: tuple[Path, Path]) -> None:
    Path("out.csv").write_text("before")
    check_output(Path("out.csv"), *inputs)
    check_output(Path("new/out.csv"), *inputs)
