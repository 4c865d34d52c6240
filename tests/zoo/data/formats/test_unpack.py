"""What unpacks without end is refused before it fills the memory."""

from __future__ import annotations

import gzip
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.data.battles import read_battles
from zoo.data.formats import unpack
from zoo.errors import ZooError

HEADER = b"id,prompt,response_a,response_b\n"
ADDRESS_SPACE = 4 * 2**30


def bomb(path: Path, piece: bytes, times: int) -> Path:
    """A gzip file of a header and `times` pieces, each a member of its own: 64 GiB are packed in a moment."""
    path.write_bytes(gzip.compress(HEADER) + gzip.compress(piece) * times)
    return path


@pytest.mark.parametrize("piece", [b"\0" * 2**24, b'1,"' + b"x" * 2**24], ids=["zeros", "a field without end"])
def test_a_gzip_bomb_ends_in_one_line(tmp_path: Path, piece: bytes) -> None:
    """64 GiB as one line, read by a process that may have 4 GiB of addresses."""
    path = bomb(tmp_path / "b.csv.gz", piece, 4096)

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))

    done = subprocess.run(
        [sys.executable, "-m", "zoo", "data", "validate", str(path)],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        preexec_fn=small,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr[-500:]
    assert done.stderr.startswith(f"error: {path}: ")


def test_a_bomb_of_rows_is_refused_and_names_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "LEAST_BOUND", 2**20)
    path = bomb(tmp_path / "b.csv.gz", b'1,"[]","[]","[]"\n' * 2**15, 4)
    with pytest.raises(ZooError, match=r"unpacks to more than 1,048,576 bytes.*unpack it and give the file"):
        read_battles(path)


def test_a_device_without_end_is_refused() -> None:
    with pytest.raises(ZooError, match=r"^/dev/zero: neither a file nor a link to one"):
        read_battles(Path("/dev/zero"))


def test_what_people_packed_is_read_whatever_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "LEAST_BOUND", 1)
    rows = b"".join(b'%d,"[""why is %d odd?""]","[""it is""]","[""it is not""]"\n' % (i, i * i) for i in range(2000))
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(HEADER + rows))
    assert len(read_battles(tmp_path / "b.csv.gz").frame) == 2000
