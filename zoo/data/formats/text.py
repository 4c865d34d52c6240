"""Text files as lines: their encoding, and lines within bounds."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from zoo.errors import ZooError

MOST_LINE_CHARACTERS = 2**26  # far above any row; a file without line breaks is one line

# One row: its cells in the order asked for (None where it has none), and how many fields it has.
Row = tuple[list[Any], int]


@dataclass(frozen=True)
class Cells:
    """A file as cells: its columns, and its rows of those columns that are asked for.

    `rows` reads on in the file, once. `how`: the format with its particulars, for people. Cells are what the format holds:
    text in CSV; also numbers, lists, objects and None in the others.
    """

    header: list[str]
    rows: Callable[[Sequence[str]], Iterator[Row]]
    how: str


@dataclass(frozen=True)
class Encoding:
    """How bytes are text; `errors` as Python's codecs take it."""

    name: str
    codec: str
    errors: str = "surrogatepass"  # a lone surrogate is told by row later


_UTF8 = Encoding("UTF-8", "utf-8-sig", "surrogateescape")  # bytes that are not UTF-8 come out as lone surrogates
_ANSI = Encoding("Windows-1252 (not UTF-8)", "cp1252", "strict")  # what Excel's "CSV" is where Western languages are set
_UNDEFINED = re.compile("[\udc81\udc8d\udc8f\udc90\udc9d]")  # bytes that Windows-1252 has no characters for
_BROKEN, _BEYOND_ASCII = re.compile("[\udc80-\udcff]"), re.compile("[^\0-\x7f]+")
_MARKS = (
    (codecs.BOM_UTF32_LE, Encoding("UTF-32", "utf-32")),
    (codecs.BOM_UTF32_BE, Encoding("UTF-32", "utf-32")),
    (codecs.BOM_UTF16_LE, Encoding("UTF-16", "utf-16")),
    (codecs.BOM_UTF16_BE, Encoding("UTF-16", "utf-16")),
)


def encoding_of(head: bytes) -> Encoding:
    """UTF-8, unless the first bytes say UTF-16 or UTF-32.

    That is by a byte order mark, or where every other byte of an ASCII text is 0.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    even, odd = head[0:64:2], head[1:64:2]
    if len(odd) > 3 and not any(odd) and all(even):
        return Encoding("UTF-16", "utf-16-le")
    if len(odd) > 3 and not any(even) and all(odd):
        return Encoding("UTF-16", "utf-16-be")
    return _UTF8


def unless_ansi(stream: BinaryIO, encoding: Encoding) -> Encoding:
    """Windows-1252 in place of UTF-8 for a whole stream that shows it to be that.

    Its bytes are not UTF-8, all are characters of Windows-1252, and more of them are no UTF-8 than are: a damaged byte in a
    file of UTF-8 does not make another encoding of it.
    """
    if encoding is not _UTF8:
        return encoding
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    broken, whole, line = 0, 0, 0
    while piece := stream.read(2**20):
        line = 0 if b"\n" in piece or b"\r" in piece else line + len(piece)
        if line > 4 * MOST_LINE_CHARACTERS:
            return encoding  # is refused for its line, without a look at the rest
        text = decoder.decode(piece)
        if text.isascii():
            continue
        odd = len(_BROKEN.findall(text))
        broken, whole = broken + odd, whole + sum(map(len, _BEYOND_ASCII.findall(text))) - odd
        if _UNDEFINED.search(text):
            return encoding
    return _ANSI if broken > whole else encoding


def as_utf8(head: bytes, encoding: Encoding) -> bytes:
    """The first bytes of a text in UTF-8 and without a byte order mark."""
    if encoding is _UTF8:
        return head.removeprefix(codecs.BOM_UTF8)
    return codecs.decode(head[: len(head) // 4 * 4], encoding.codec, "ignore").encode("utf-8", "ignore")


def lines_of(stream: BinaryIO, path: Path, encoding: Encoding) -> Iterator[str]:
    """Lines with their line breaks; ZooError for one that is larger than any row."""
    with text_of(stream, path, encoding) as text:
        while line := text.readline(MOST_LINE_CHARACTERS + 1):
            if len(line) > MOST_LINE_CHARACTERS:
                raise ZooError(f"{path}: a line of more than {MOST_LINE_CHARACTERS:,} characters; give a row a line")
            yield line


@contextmanager
def text_of(stream: BinaryIO, path: Path, encoding: Encoding) -> Iterator[TextIO]:
    """A stream of bytes as text with its line breaks.

    ZooError where, as it is read, it proves to be none.
    """
    try:
        yield io.TextIOWrapper(stream, encoding=encoding.codec, errors=encoding.errors, newline="")
    except UnicodeError as error:
        raise ZooError(f"{path}: is not whole {encoding.name} text ({error}); save it as UTF-8") from error
