"""Files are whole or absent, and no link that somebody planted is followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zoo.store import copy_file, copy_over, open_lock, replacing, write_atomic


def test_links_planted_beside_a_file_are_never_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may write into the folder plants links at names that he foresees, and at the file itself."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = tmp_path / "shared"
    folder.mkdir()
    for name in ("x.json", f".x.json.{os.getpid()}.tmp", "x.tmp"):
        (folder / name).symlink_to(victim)
    write_atomic(folder / "x.json", "new")
    assert victim.read_text() == "mine" and (folder / "x.json").read_text() == "new" and not (folder / "x.json").is_symlink()
    monkeypatch.setattr("secrets.token_hex", lambda count: "guessed")
    (folder / ".guessed.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_atomic(folder / "x.json", "newer")
    assert victim.read_text() == "mine" and (folder / "x.json").read_text() == "new"
    (folder / "lock").symlink_to(tmp_path / "made")
    with pytest.raises(OSError, match="symbolic links"):
        open_lock(folder / "lock")
    assert not (tmp_path / "made").exists()


def test_a_file_that_fails_leaves_the_old_one_and_nothing_beside_it(tmp_path: Path) -> None:
    write_atomic(tmp_path / "x", "old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "x") as file:
        file.write(b"half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["x"] and (tmp_path / "x").read_text() == "old"
    write_atomic(tmp_path / ("é" * 120), "long names too")
    mask = os.umask(0o027)
    try:
        write_atomic(tmp_path / "y", "")
    finally:
        os.umask(mask)
    assert (tmp_path / "y").stat().st_mode & 0o777 == 0o640, "as any other new file of the user's"


@pytest.mark.parametrize("shares", [True, False])
def test_a_copy_is_a_file_of_its_own(shares: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit in place of either never reaches the other, whether the file system shares blocks or not."""
    if not shares:
        monkeypatch.delattr("os.copy_file_range")
    content = os.urandom(3_000_000)
    (tmp_path / "user").write_bytes(content)
    copy_file(tmp_path / "user", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content and (tmp_path / "copy").stat().st_nlink == 1
    with (tmp_path / "user").open("r+b") as file:
        file.write(b"edited")
    assert (tmp_path / "copy").read_bytes() == content
    copy_over(tmp_path / "user", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes()[:6] == b"edited"
    (tmp_path / "link").symlink_to(tmp_path / "user")
    copy_over(tmp_path / "copy", tmp_path / "link")
    assert not (tmp_path / "link").is_symlink(), "a link at the target is replaced, not followed"
