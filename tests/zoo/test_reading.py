"""Files that people hand over: ordinary ones of a possible size are read, whatever else lies there is one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo.reading import check_ordinary, parse_json, read_bytes, read_json_object


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("fifo", "neither a file"),
        ("/dev/zero", "neither a file"),
        (".", "Is a directory"),
        ("gone", "No such file"),
        ("loop", "links"),
    ],
)
def test_what_is_no_file_is_refused_and_never_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    Path("loop").symlink_to("loop")
    for read in (lambda path: read_bytes(path, 10, mend="give a file"), lambda path: check_ordinary(path, mend="give a file")):
        with pytest.raises(ZooError, match=what) as told:
            read(Path(name))
        assert str(told.value).endswith("give a file") and "\n" not in str(told.value)


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "three"
    path.write_bytes(b"id\n")
    assert read_bytes(path, 3, mend="") == b"id\n"
    with pytest.raises(ZooError, match="larger than"):
        read_bytes(path, 2, mend="")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"3", b'{"a": ' + b"1" * 5000 + b"}"])
def test_what_is_no_json_object_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ZooError, match="config") as told:
        read_json_object(path, mend="copy it again")
    assert "\n" not in str(told.value)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    assert parse_json(b"\xef\xbb\xbf{}", tmp_path, mend="") == {}
