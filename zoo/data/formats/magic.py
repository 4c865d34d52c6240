"""What a file is, by its first bytes.

The formats that are read, and names and mends of those that are not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

SAVE, GIVE = "save it as CSV, parquet or JSONL", "give CSV, parquet or JSONL"
CSV, PARQUET, JSONL, JSON_LIST = "CSV", "parquet", "JSONL", "a JSON list"


@dataclass(frozen=True)
class Unread:
    """A format that is not read, and what to do instead."""

    name: str
    mend: str = SAVE


_PACKED = "unpack it and give the file that is in it"
_PANDAS = "read it with pandas and save it by to_parquet or to_csv"
_PICKLE = Unread("a Python pickle, which can run code and is never opened", "save the data by to_parquet where it was made")
_ARRAY = Unread(
    "a NumPy array, which has no ids and no named columns",
    "to join rows by their place is how tables go wrong unseen: write a table with an id in each row (pandas: to_parquet)",
)
# Offset, bytes and what they mean: https://en.wikipedia.org/wiki/List_of_file_signatures, and the formats' own pages.
SIGNATURES: tuple[tuple[int, bytes, Unread], ...] = (
    (0, b"\x93NUMPY", _ARRAY),
    (0, b"\x80\x02", _PICKLE),
    (0, b"\x80\x03", _PICKLE),
    (0, b"\x80\x04", _PICKLE),
    (0, b"\x80\x05", _PICKLE),
    (0, b"PARE", Unread("an encrypted parquet file", "decrypt it")),
    (0, b"ARROW1", Unread("an Arrow (Feather) file", _PANDAS)),
    (0, b"FEA1", Unread("a Feather file", _PANDAS)),
    (0, b"\xff\xff\xff\xff", Unread("an Arrow stream, as data sets keep in their cache", "save it by Dataset.to_parquet")),
    (0, b"\x89HDF\r\n", Unread("an HDF5 file", _PANDAS)),
    (0, b"ORC", Unread("an ORC file", _PANDAS)),
    (0, b"Obj\x01", Unread("an Avro file", _PANDAS)),
    (0, b"SQLite format 3\0", Unread("an SQLite database", "export the table as CSV (sqlite3 -csv -header)")),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Unread("an old Excel or Office file (.xls, .doc)", "save the sheet as CSV UTF-8")),
    (0, b"%PDF", Unread("a PDF")),
    (0, b"{\\rtf", Unread("a rich text file", "save the table as CSV")),
    (0, b"7z\xbc\xaf\x27\x1c", Unread("a 7z archive", _PACKED)),
    (0, b"Rar!\x1a\x07", Unread("a RAR archive", _PACKED)),
    (257, b"ustar", Unread("a tar archive", _PACKED)),
    (0, b"PK\x05\x06", Unread("an empty zip file", GIVE)),
    (0, b"\x04\x22\x4d\x18", Unread("an lz4 file", _PACKED)),
    (0, b"\x1f\x9d", Unread("a file of compress (.Z)", _PACKED)),
    (0, b"LZIP", Unread("an lzip file", _PACKED)),
    (0, b"\xff\x06\x00\x00sNaPpY", Unread("a snappy file", _PACKED)),
    (0, b"\x1f\x8b", Unread("a gzip file inside another", "unpack it once")),
    (0, b"\x28\xb5\x2f\xfd", Unread("a zstd file inside another", "unpack it once")),
    (0, b"\xfd7zXZ\0", Unread("an xz file inside another", "unpack it once")),
    (0, b"BZh", Unread("a bzip2 file inside another", "unpack it once")),
    (0, b"PK\x03\x04", Unread("a zip file inside another", "unpack it once")),
    (0, b"\x89PNG", Unread("a PNG picture", GIVE)),
    (0, b"\xff\xd8\xff", Unread("a JPEG picture", GIVE)),
    (0, b"\x7fELF", Unread("a program", GIVE)),
    (0, b"version https://git-lfs", Unread("a Git LFS pointer, not the file itself", "fetch it with `git lfs pull`")),
)
_TEXTS = (
    (
        re.compile(rb"<(!doctype\s+html|html)\b", re.I),
        Unread("a web page, not the file", "download it signed in"),
    ),
    (re.compile(rb"<\?xml\b", re.I), Unread("an XML file")),
)
_BINARY = Unread("binary data of no format that is known", "give CSV (UTF-8 or UTF-16), parquet or JSONL")
_NOT_TEXT = re.compile(rb"[\0-\x08\x0e-\x1f]")
MOST_CONTROLS = 0.1  # share of control characters in the first line of a text; of random bytes it is as large


def format_of(head: bytes, text: bytes) -> str | Unread:
    """CSV, PARQUET, JSONL or JSON_LIST, or the name of what it is instead.

    `head`: the first bytes; `text`: the same without byte order marks, in UTF-8, where they are text.
    """
    if head.startswith(b"PAR1"):
        return PARQUET
    for offset, magic, kind in SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return kind
    start = text.lstrip()
    for pattern, kind in _TEXTS:
        if pattern.match(start):
            return kind
    first = text.partition(b"\n")[0]
    if b"\0" in first or len(_NOT_TEXT.findall(first)) > MOST_CONTROLS * len(first):
        return _BINARY
    return {b"{": JSONL, b"[": JSON_LIST}.get(start[:1], CSV)


def zip_kind(names: Sequence[str]) -> Unread | None:
    """What a zip file is that is more than packing, by the names in it."""
    if "[Content_Types].xml" in names:
        excel = any(name.startswith("xl/") for name in names)
        return Unread("an Excel workbook", "save the sheet as CSV UTF-8") if excel else Unread("an Office document")
    if "mimetype" in names and "content.xml" in names:
        return Unread("an OpenDocument file", "save the sheet as CSV")
    if names and all(name.endswith(".npy") for name in names):
        return Unread("a NumPy archive (.npz), which has no ids and no named columns", _ARRAY.mend)
    if any(name.endswith("data.pkl") for name in names):
        return Unread("a PyTorch file, which holds a pickle and is never opened")
    return None
