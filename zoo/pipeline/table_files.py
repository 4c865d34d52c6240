"""Score tables as files: CSV, JSON lines and parquet, told by first bytes, within bounds.

What has no ids (an array) or needs a program to be opened (a pickle, a workbook) is refused by its name. A compressed file may
not unpack to more than a table of its size ever does.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from zoo.data.formats.unpack import LEAST_BOUND, MOST_RATIO
from zoo.errors import ZooError

if TYPE_CHECKING:
    import pandas as pd

MEND = "give CSV, parquet or JSON lines with the columns id, p_a, p_b, p_tie"
NO_IDS = "a NumPy array has no ids, and to join rows by their place is how blends go wrong unseen; write the ids beside it"
REFUSED = {  # first bytes -> what such a file is, and why it is no score table
    b"\x93NUMPY": f"a NumPy array: {NO_IDS}",
    b"\x89HDF": "an HDF5 file",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3": "an SQLite database",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    **{bytes([0x80, version]): "a pickle, which can run code when it is opened" for version in range(2, 6)},
}
SEPARATORS = (",", ";", "\t", "|")
BLANKS = ("", "nan", "NaN", "NA", "null", "None")
MOST_ROWS = 2**22  # of a parquet file of any size; above, each row takes at least a byte, since its id is its own
MOST_TEXT = 10_000  # characters of an id or a status
PIECE = 2**20
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    ImportError,
    MemoryError,
    RecursionError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)


def read_frame(path: Path, texts: Callable[[str], bool] = lambda _: False) -> pd.DataFrame:
    """The columns of a table as they are called in the file, stripped of white space.

    `texts`: whether a column is text whatever it looks like, as ids are in a CSV. Columns of a parquet file that no table can
    use (nested ones) are left out. ZooError names the format and the mend.
    """
    import pyarrow

    try:
        with path.open("rb") as file:
            start = file.read(16)
        if start.startswith(b"PAR1"):
            return _parquet(path)
        if path.suffix == ".parquet":
            raise ZooError(f"{path}: cannot be read as a table: it is called .parquet and is none; {MEND}")
        text = _text(path, start)
        frame = _json_lines(text) if text.lstrip()[:1] in ("{", "[") else _csv(text, texts)
    except (*UNREADABLE, pyarrow.ArrowException) as error:
        raise ZooError(f"{path}: cannot be read as a table ({(str(error).splitlines() or ['empty'])[0]}); {MEND}") from error
    frame.columns = [str(name).strip() for name in frame.columns]
    return frame


def _text(path: Path, start: bytes) -> str:
    """The text of a plain or compressed file. ZooError for what is none."""
    content = start
    if opener := _compressed(start):
        most = max(LEAST_BOUND, MOST_RATIO * path.stat().st_size)
        with opener(path) as file:
            content = _bounded(file, path, most)
    refused = next((what for first, what in REFUSED.items() if content.startswith(first)), "")
    if refused or path.suffix in (".npz", ".xlsx"):
        what = refused or {".npz": f"NumPy arrays: {NO_IDS}", ".xlsx": "an Excel workbook"}[path.suffix]
        raise ZooError(f"{path}: {what}; {MEND}")
    if content.startswith(b"PAR1"):
        raise ZooError(f"{path}: a compressed parquet file, which is compressed already; unpack it")
    if content is start:
        content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise ZooError(f"{path}: holds bytes that are no text; {MEND}") from None
    if not text.strip():
        raise ZooError(f"{path}: the file is empty; {MEND}")
    if "\0" in text:
        raise ZooError(f"{path}: holds bytes that are no text; {MEND}")
    return text


def _compressed(start: bytes) -> Callable[[Path], IO[bytes]] | None:
    """What opens a compressed file with these first bytes; None where they are no compression's."""
    import pyarrow

    openers: dict[bytes, Callable[[Path], Any]] = {
        b"\x1f\x8b": gzip.open,
        b"BZh": bz2.open,
        b"\xfd7zXZ\x00": lzma.open,
        b"\x28\xb5\x2f\xfd": lambda path: pyarrow.CompressedInputStream(str(path), "zstd"),
        b"PK\x03\x04": _only_member,
    }
    return next((opener for first, opener in openers.items() if start.startswith(first)), None)


def _only_member(path: Path) -> IO[bytes]:
    """The one file in a zip archive."""
    archive = zipfile.ZipFile(path)
    names = [name for name in archive.namelist() if not name.endswith("/")]
    if "[Content_Types].xml" in names:
        raise ZooError(f"{path}: an Excel workbook; {MEND}")
    if names and all(name.endswith(".npy") for name in names):
        raise ZooError(f"{path}: NumPy arrays: {NO_IDS}; {MEND}")
    if len(names) != 1:
        raise ZooError(f"{path}: a zip archive of {len(names)} files; give one with the table alone")
    return archive.open(names[0])


def _bounded(file: IO[bytes], path: Path, most: int) -> bytes:
    """All of a file that is unpacked as it is read, up to a bound."""
    whole = io.BytesIO()
    while piece := file.read(PIECE):
        whole.write(piece)
        if whole.tell() > most:
            raise ZooError(f"{path}: unpacks to more than {most:,} bytes, which no table of its size does; {MEND}")
    return whole.getvalue()


def _csv(text: str, texts: Callable[[str], bool]) -> pd.DataFrame:
    """A table with any usual separator; where that is a semicolon, numbers may have decimal commas."""
    import pandas as pd

    header, _, rest = text.lstrip("\n\r").partition("\n")
    separator = max(SEPARATORS, key=header.count)
    decimal = "," if separator == ";" and re.search(r"(^|;)\d*,\d", rest[:1000]) else "."
    names = pd.read_csv(io.StringIO(header), sep=separator, header=None, dtype=str, keep_default_na=False).iloc[0].tolist()
    as_text = {name: "str" for name in names if texts(str(name).strip())}
    # An id may well be "NA".
    blanks = {name: list(BLANKS) for name in names if name not in as_text}
    options: dict[str, Any] = {"keep_default_na": False, "na_values": blanks, "decimal": decimal}
    frame: pd.DataFrame = pd.read_csv(io.StringIO(text), sep=separator, dtype=as_text, float_precision="round_trip", **options)
    return frame


def _json_lines(text: str) -> pd.DataFrame:
    import pandas as pd

    if text.lstrip().startswith("["):
        return pd.read_json(io.StringIO(text), orient="records", dtype=False, convert_dates=False, precise_float=True)
    return pd.read_json(io.StringIO(text), lines=True, dtype=False, convert_dates=False, precise_float=True)


def _parquet(path: Path) -> pd.DataFrame:
    """A parquet file's flat columns. Its counts are looked at before anything is unpacked."""
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    size = path.stat().st_size
    most_rows, most_bytes = max(MOST_ROWS, size), max(LEAST_BOUND, MOST_RATIO * size)
    unpacked = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
    if file.metadata.num_rows > most_rows or unpacked > most_bytes:
        raise ZooError(
            f"{path}: says that it holds {file.metadata.num_rows:,} rows in {unpacked:,} bytes, which no table of its size does"
        )
    schema = file.schema_arrow
    kept = [field.name for field in schema if not pyarrow.types.is_nested(field.type)]
    texts = [name for name in kept if _is_text(schema.field(name).type)]
    table = pyarrow.parquet.read_table(path, columns=kept, read_dictionary=texts)
    for name in texts:  # one long text that every row refers to is small here, and is not in a frame
        longest = (pyarrow.compute.max(pyarrow.compute.binary_length(chunk.dictionary)).as_py() for chunk in table[name].chunks)
        if max((length or 0 for length in longest), default=0) > MOST_TEXT:
            table = table.drop_columns([name])
    frame: pd.DataFrame = table.to_pandas()
    if not isinstance(frame.index.name, str) and "index" not in kept:
        return frame.rename(columns=str.strip)
    return frame.reset_index().rename(columns=str.strip)


def _is_text(kind: Any) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_binary(kind))
