"""Files that people have are read as what they are; others are refused by name, with the mend, within bounds."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.errors import ZooError
from zoo.pipeline.import_checks import read_table
from zoo.pipeline.table_files import number_of
from zoo.scores.tables import probabilities

IDS = [f"{i:03}" for i in range(50)]
P = np.random.default_rng(0).dirichlet((1, 1, 1), size=50)
FRAME = pd.DataFrame({"id": IDS, "p_a": P[:, 0], "p_b": P[:, 1], "p_tie": P[:, 2]})
CSV = FRAME.to_csv(index=False).encode()


def zipped(content: bytes, name: str = "scores.csv") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pyarrow.compress(content, "zstd", asbytes=True))


FILES: dict[str, bytes] = {
    "comma": CSV,
    "semicolon": FRAME.to_csv(index=False, sep=";").encode(),
    "decimal comma": FRAME.to_csv(index=False, sep=";", decimal=",").encode(),
    "tab": FRAME.to_csv(index=False, sep="\t").encode(),
    "bar": FRAME.to_csv(index=False, sep="|").encode(),
    "byte order mark": b"\xef\xbb\xbf" + CSV,
    "UTF-16": CSV.decode().encode("utf-16"),
    "Windows line ends": CSV.replace(b"\n", b"\r\n"),
    "spaces in the header": CSV.replace(b"id,p_a", b" id , p_a", 1),
    "JSON lines": FRAME.to_json(orient="records", lines=True, double_precision=15).encode(),
    "JSON": FRAME.to_json(orient="records", double_precision=15).encode(),
    "gz": gzip.compress(CSV),
    "bz2": bz2.compress(CSV),
    "xz": lzma.compress(CSV),
    "zst": zstd(CSV),
    "zip": zipped(CSV),
    "JSON lines, gz": gzip.compress(FRAME.to_json(orient="records", lines=True, double_precision=15).encode()),
}


@pytest.mark.parametrize("kind", [*FILES, "parquet", "parquet with the id as index"])
def test_every_usual_format_gives_the_same_table(tmp_path: Path, kind: str) -> None:
    """Told by what is in it: no name ends as its format would."""
    path = tmp_path / "scores"
    if kind.startswith("parquet"):
        (FRAME.set_index("id") if "index" in kind else FRAME).to_parquet(path)
    else:
        path.write_bytes(FILES[kind])
    read = read_table(path, IDS, ties=True).table
    assert read["id"].tolist() == IDS, "a zero in front stays"
    np.testing.assert_allclose(probabilities(read), P, atol=1e-12)


def test_the_same_numbers_are_read_whatever_marks_their_decimals(tmp_path: Path) -> None:
    """A comma needs no semicolons beside it where the cell is quoted."""
    path = tmp_path / "scores.csv"
    path.write_text('id,p_a,p_b,p_tie\n7,"0,25","2,5e-1", .5\n8,0.25,"0,25","0,5"\n')
    read = read_table(path, ["7", "8"], ties=True).table
    assert probabilities(read).tolist() == [[0.25, 0.25, 0.5]] * 2


@given(st.floats(allow_nan=False) | st.integers(-(10**20), 10**20))
def test_a_number_is_read_as_it_was_written(number: float) -> None:
    assert number_of(repr(number)) == number == number_of(number)
    assert number_of(f" {number!r} ".replace(".", ",")) == number


@pytest.mark.parametrize("blank", ["", " ", "NaN", "nan", "NA", "null", "None", None])
def test_blanks_are_no_numbers(blank: object) -> None:
    assert number_of(blank) != number_of(blank)


@pytest.mark.parametrize("text", ["much", "1_0", "1,2,3", "0x1", "1 2"])
def test_what_is_no_number_stays_what_it_is(text: str) -> None:
    assert number_of(text) == text


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (npy(P), "p.npy", "a NumPy array, which has no ids .*; to join rows by their place is how tables go wrong unseen"),
        (zipped(npy(P), "p.npy"), "p.npz", "a NumPy archive .* no ids .* to join rows by their place"),
        (pickle.dumps({"id": 1}), "p.pkl", "a Python pickle, which can run code and is never opened"),
        (zipped(b"<x/>", "[Content_Types].xml"), "p.docx", "an Office document"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(20), "p.xls", "an old Excel"),
        (b"SQLite format 3\0" + bytes(20), "p.db", "an SQLite database"),
        (b"\x89HDF\r\n" + bytes(20), "p.h5", "an HDF5 file"),
        (bytes(range(256)), "p.csv", "binary data of no format that is known"),
        (b"", "p.csv", "the file is empty; its first line must name the columns, as id, p_a, p_b, p_tie"),
        (gzip.compress(CSV, mtime=0)[:60], "p.csv.gz", "cannot be read .*; give a whole file"),
        (b"PAR1" + bytes(40), "p.parquet", "a parquet file that cannot be read"),
        (b"no", "p.parquet", "lacks column id; it has no"),
        (CSV.replace(b"p_tie", b"p_a", 1), "p.csv", "column p_a occurs more than once; keep one"),
        (CSV + b"050,0.2,0.3,0.5,", "p.csv", "1 row has another number of fields than the 4 of the header: 050"),
        (CSV + b"050,0.2,0.3", "p.csv", "1 row has another number of fields than the 4 of the header: 050"),
    ],
)
def test_what_is_no_table_is_refused_by_its_name_with_the_mend(tmp_path: Path, content: bytes, name: str, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ZooError, match=message) as caught:
        read_table(path, IDS, ties=True)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    "pack", [gzip.compress, bz2.compress, lzma.compress, zstd, zipped], ids=["gz", "bz2", "xz", "zst", "zip"]
)
def test_what_unpacks_without_end_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes(pack(b"id,p_a,p_b,p_tie\n" + bytes(2**26)))
    with pytest.raises(ZooError, match="unpacks to more than"):
        read_table(path, IDS, ties=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda: pyarrow.table({"id": pyarrow.array(np.zeros(2**23, dtype=np.int8))}),
        lambda: pyarrow.table({"id": pyarrow.array(["x" * 2**20]).take(pyarrow.array(np.zeros(2000, dtype=np.int32)))}),
    ],
    ids=["more rows than bytes", "a text of 2 GB"],
)
def test_a_parquet_file_of_absurd_size_is_refused_unread(tmp_path: Path, make: Callable[[], Any]) -> None:
    path = tmp_path / "scores.parquet"
    table = make()
    pyarrow.parquet.write_table(table, path, compression="zstd", use_dictionary=True)
    assert path.stat().st_size < 2**22
    with pytest.raises(ZooError, match=r"says that it holds 8,388,608 rows|unpacks to more than"):
        read_table(path, IDS, ties=True)
