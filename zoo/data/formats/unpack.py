"""Compressed files as streams of what is in them, within bounds.

What unpacks without end is refused before it fills the memory.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from zoo.data.formats.magic import zip_kind
from zoo.errors import ZooError
from zoo.reading import check_ordinary

MEND = "give a whole file, as CSV, parquet or JSONL"
MOST_RATIO = 100  # bytes a compressed byte: what people wrote has 2 to 15, a bomb 1,000
LEAST_BOUND = 2**25  # bytes that any compressed file may unpack to
HEAD_BYTES = 4096  # enough to tell every format by


@contextmanager
def unpacked(path: Path) -> Iterator[tuple[BinaryIO, str]]:
    """A file's content, and what it was packed with (empty: nothing).

    Compression is told by the first bytes, whatever the name. ZooError for what is no file, is damaged, or unpacks to more than
    text would.
    """
    check_ordinary(path, mend=MEND)
    try:
        with path.open("rb") as file:
            head = file.read(8)
            file.seek(0)
            packing, opener = _packing(head)
            if opener is None:
                yield file, ""
                return
            with opener(file, path) as inner:
                most = max(LEAST_BOUND, MOST_RATIO * path.stat().st_size)
                yield cast(BinaryIO, io.BufferedReader(Bounded(inner, path, most), 2**16)), packing
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ZooError(f"{path}: cannot be read ({reason}); {MEND}") from error


class Bounded(io.RawIOBase):
    """A stream that may give at most so many bytes."""

    def __init__(self, inner: Any, path: Path, most: int) -> None:
        self._inner, self._path, self._left, self._most = inner, path, most, most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._inner.read(len(buffer))
        self._left -= len(piece)
        if self._left < 0:
            raise ZooError(
                f"{self._path}: unpacks to more than {self._most:,} bytes, which is no text; "
                "if it is one, unpack it and give the file itself"
            )
        buffer[: len(piece)] = piece
        return len(piece)


def _zstd(file: IO[bytes], _: Path) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")  # unlike zstandard, it says where a file is cut off


@contextmanager
def _zip(file: IO[bytes], path: Path) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(file) as archive:
        names = [
            info.filename for info in archive.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX/")
        ]
        if kind := zip_kind(names):
            raise ZooError(f"{path}: {kind.name}; {kind.mend}")
        if len(names) != 1:
            raise ZooError(
                f"{path}: a zip file of {len(names)} files ({', '.join(names)[:200]}); unpack it and give one of them"
            )
        try:
            inner = archive.open(names[0])
        except NotImplementedError as error:  # a RuntimeError too; Deflate64
            raise ZooError(f"{path}: a zip file of a method that is not read ({error}); unpack it and give that") from error
        except RuntimeError as error:  # zipfile's word for what it has no password of
            raise ZooError(f"{path}: an encrypted zip file; unpack it and give what is in it") from error
        with inner:
            yield inner


_OPENERS: dict[bytes, tuple[str, Callable[[Any, Path], Any]]] = {
    b"\x1f\x8b": ("gzip", lambda file, _: gzip.GzipFile(fileobj=file)),
    b"BZh": ("bzip2", lambda file, _: bz2.BZ2File(file)),
    b"\xfd7zXZ\0": ("xz", lambda file, _: lzma.LZMAFile(file)),  # noqa: SIM115
    b"\x28\xb5\x2f\xfd": ("zstd", _zstd),
    b"PK\x03\x04": ("zip", _zip),
}


def _packing(head: bytes) -> tuple[str, Callable[[Any, Path], Any] | None]:
    return next((found for magic, found in _OPENERS.items() if head.startswith(magic)), ("", None))
