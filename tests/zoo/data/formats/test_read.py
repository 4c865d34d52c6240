"""One frame of battles in every format reads the same and has the same digest; what is not read is named with the mend."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import pickle
import sqlite3
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.battles_files import (
    ENCODINGS,
    ONE_HOT,
    PACKINGS,
    SEPARATORS,
    Row,
    arena,
    as_csv,
    as_jsonl,
    as_parquet,
    competition,
    named,
    write,
    zipped,
    zstd,
)
from zoo.data.battles import dataset_digest, read_battles
from zoo.data.formats import jsonl, unpack
from zoo.data.formats.text import encoding_of
from zoo.errors import ZooError

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
TURNS = st.lists(st.none() | TEXT, min_size=1, max_size=3)
ROW = st.tuples(TURNS, TURNS, TURNS, st.integers(0, 2))
LISTS = [("3", ["a"], ["b", None], ["c"], 0), ("4", ["q\n;\t,"], ['"x"'], ["é"], 1), ("5", ["z"], [None], ["w"], 2)]
PLAIN: list[Row] = [(str(i), [f"why {i}; or\tnot?"], [f"since {i},\nso"], [f"[{i}] never"], i % 2) for i in range(30)]


def ways(rows: list[Row]) -> Iterator[tuple[str, bytes]]:
    """Every format, separator, encoding and packing once, and lists as JSON and as they are."""
    frame, native = competition(rows), competition(rows, native=True)
    numbered = native.assign(id=native["id"].astype(int), **{name: native[name] == 1 for name in ONE_HOT})
    yield from ((f"{name}.csv", as_csv(frame, separator)) for name, separator in SEPARATORS.items())
    yield from ((f"{encoding}.csv", as_csv(frame, encoding=encoding)) for encoding in ENCODINGS)
    yield from ((f"b.csv.{name}", pack(as_csv(frame))) for name, pack in PACKINGS.items())
    for name, given_frame in (("text", frame), ("lists", native), ("numbers", numbered)):
        yield f"{name}.parquet", as_parquet(given_frame)
        yield f"{name}.jsonl", as_jsonl(given_frame)
        yield f"{name}.json", as_json_list(given_frame)
    yield from ((f"b.jsonl.{name}", pack(as_jsonl(native))) for name, pack in PACKINGS.items())
    yield "b.parquet.gz", gzip.compress(as_parquet(frame))
    yield "floats.parquet", as_parquet(numbered.assign(id=numbered["id"].astype(float)))
    yield "16.jsonl", as_jsonl(native).decode().encode("utf-16")
    yield "16.json.gz", gzip.compress(as_json_list(native).decode().encode("utf-16"))


def as_json_list(frame: pd.DataFrame) -> bytes:
    """One list, indented as people's tools write it."""
    return json.dumps(list(map(json.loads, as_jsonl(frame).decode().splitlines())), indent=1, ensure_ascii=False).encode()


@settings(max_examples=15, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=5))
def test_a_frame_reads_the_same_from_every_format(tmp_path_factory, drawn):
    rows: list[Row] = [(str(30_192 + i), *row) for i, row in enumerate(drawn)]
    folder = tmp_path_factory.mktemp("formats")
    seen = set()
    for name, content in ways(rows):
        battles = read_battles(write(folder / name, content))
        frame = battles.frame
        texts = (frame[column] for column in ("id", "prompt", "response_a", "response_b", "label"))
        assert list(zip(*texts, strict=True)) == rows, name
        assert battles.labelled and not battles.errors and not battles.plain, name
        seen.add(dataset_digest(battles))
    assert len(seen) == 1


def test_the_digest_of_a_file_in_the_competitions_columns_is_what_it_always_was(tmp_path):
    """Stores made before know their data by it."""
    battles = read_battles(write(tmp_path / "b.csv", as_csv(competition(LISTS))))
    known = "1efa6371d6d4edd64aacf87c99ea17d516faedd7d538ab1a906497df0d7ec2e6"  # pragma: allowlist secret
    assert dataset_digest(battles) == known


@pytest.mark.parametrize("name", ["wsdm.csv", "wsdm.parquet", "wsdm.jsonl", "wsdm.csv.zip"])
def test_plain_texts_are_one_turn_each_in_every_format(tmp_path, name):
    frame = named(PLAIN, language="English")
    make = {"csv": as_csv, "parquet": as_parquet, "jsonl": as_jsonl, "zip": lambda f: zipped(as_csv(f))}[
        name.rpartition(".")[2]
    ]
    battles = read_battles(write(tmp_path / name, make(frame)))
    same = read_battles(write(tmp_path / "lists.csv", as_csv(competition(PLAIN))))
    assert battles.frame.equals(same.frame) and dataset_digest(battles) == dataset_digest(same)
    assert battles.told.startswith("WSDM Cup's columns; ") and battles.told.endswith("plain text, one turn each")


@pytest.mark.parametrize(
    "make", [as_parquet, as_jsonl, lambda frame: as_csv(frame.map(_as_json))], ids=["parquet", "jsonl", "csv"]
)
def test_conversations_are_read_in_every_format(tmp_path, make):
    rows: list[Row] = [("a", ["q", "r"], ["x", "y"], ["v", "w"], 2), ("b", ["p"], ["x"], ["y"], 0)]
    battles = read_battles(write(tmp_path / "arena", make(arena(rows))))
    same = read_battles(write(tmp_path / "lists.csv", as_csv(competition(rows))))
    assert dataset_digest(battles) == dataset_digest(same) and battles.kind == "an arena export's"


def _as_json(cell: object) -> object:
    return json.dumps(cell) if isinstance(cell, list) else cell


def test_what_is_read_is_told(tmp_path):
    wide = write(tmp_path / "b.csv", as_csv(competition(LISTS), ";", "utf-16"))
    assert read_battles(wide).told == "the competition's columns; CSV, semicolons, UTF-16"
    packed = write(tmp_path / "b", zstd(as_jsonl(competition(LISTS))))
    assert read_battles(packed).told == "the competition's columns; JSONL, UTF-8, zstd"


def _npy() -> bytes:
    out = io.BytesIO()
    np.save(out, np.zeros(3))
    return out.getvalue()


def _npz() -> bytes:
    out = io.BytesIO()
    np.savez(out, p=np.zeros(3))
    return out.getvalue()


def _archive(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return out.getvalue()


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("b.csv"))
    return out.getvalue()


def _database(folder: Path) -> bytes:
    with sqlite3.connect(folder / "made.db") as connection:
        connection.execute("create table battles (id)")
    return (folder / "made.db").read_bytes()


def _feather() -> bytes:
    out = io.BytesIO()
    pd.DataFrame({"id": [1]}).to_feather(out)
    return out.getvalue()


OTHERS = {
    "a NumPy array": _npy(),
    "a NumPy archive": _npz(),
    "a Python pickle": pickle.dumps({"id": 1}),
    "an Excel workbook": _archive("[Content_Types].xml", "xl/workbook.xml"),
    "an OpenDocument file": _archive("mimetype", "content.xml"),
    "a PyTorch file": _archive("model/data.pkl", "model/version"),
    "a zip file of 2 files": _archive("train.csv", "test.csv"),
    "a tar archive": _tar(),
    "a PDF": b"%PDF-1.7\n%\xe2\xe3\n",
    "a 7z archive": b"7z\xbc\xaf\x27\x1c\0\4",
    "an old Excel": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100),
    "an Arrow": _feather(),
    "a web page": b"\n<!DOCTYPE HTML>\n<html><body>Sign in</body></html>",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "a gzip file inside another": gzip.compress(gzip.compress(b"id")),
    "binary data": bytes(range(256)) * 8,
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_format_is_named_and_never_shown(tmp_path, name):
    inner = "a zip file inside another" if OTHERS[name].startswith(b"PK") else name
    packed = gzip.compress(OTHERS[name])
    for content, told in ((OTHERS[name], name), (packed, inner)):
        with pytest.raises(ZooError) as refusal:
            read_battles(write(tmp_path / "b.csv", content))
        text = str(refusal.value)
        assert text.startswith(f"{tmp_path / 'b.csv'}: {told}") and "; " in text and text.isprintable() and text.isascii()


def test_a_database_is_named(tmp_path):
    with pytest.raises(ZooError, match="an SQLite database; export the table as CSV"):
        read_battles(write(tmp_path / "b.csv", _database(tmp_path)))


@pytest.mark.parametrize("name", [name for name in PACKINGS if name])
@pytest.mark.parametrize("left", [0.2, 0.6, 0.97])
def test_a_file_that_is_cut_off_is_refused_and_loses_no_row_in_silence(tmp_path, name, left):
    rng = np.random.default_rng(0)
    rows: list[Row] = [(str(i), [rng.bytes(40).hex()], [rng.bytes(40).hex()], ["x"], 0) for i in range(200)]
    content = PACKINGS[name](as_csv(competition(rows)))
    with pytest.raises(ZooError, match=r"b\.csv: .*; give a whole file"):
        read_battles(write(tmp_path / "b.csv", content[: int(left * len(content))]))


def test_a_damaged_parquet_file_is_one_line(tmp_path):
    content = as_parquet(competition(LISTS))
    for cut in (content[:-30], content[:20] + bytes(40) + content[60:], b"PAR1"):
        with pytest.raises(ZooError, match="a parquet file that cannot be read") as refusal:
            read_battles(write(tmp_path / "b.parquet", cut))
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstd, zipped], ids=["gzip", "xz", "zstd", "zip"])
def test_every_packing_is_bounded(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(unpack, "LEAST_BOUND", 2**16)
    content = pack(b"id,prompt,response_a,response_b\n" + b'1,"[]","[]","[]"\n' * 2**17)
    with pytest.raises(ZooError, match="unpacks to more than"):
        read_battles(write(tmp_path / "b.csv", content))


def test_a_parquet_file_of_one_text_over_and_over_is_bounded(tmp_path):
    text = json.dumps(["x" * 2**20])
    frame = pd.DataFrame({"id": [str(i) for i in range(500)], "prompt": text, "response_a": text, "response_b": text})
    path = write(tmp_path / "b.parquet", as_parquet(frame))
    assert path.stat().st_size < 2**22
    with pytest.raises(ZooError, match="unpacks to more than"):
        read_battles(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"id": 1, "prompt": ["q"]\n', "line 1: undecodable JSON"),
        (b'{"id": 1}\n\n[1]\n', "line 3: JSON, but not an object"),
        (b'{"id": ' + b"[" * 50_000, "line 1: undecodable JSON"),
        (b'[{"id": 1}, 2]', "item 2: JSON, but not an object"),
        (b'[{"id": 1}, {"id": 2', "item 2: undecodable JSON"),
        (b'[{"id": 1}', "item 2: undecodable JSON"),
        (b'[{"id": 1}]\n[{"id": 2}]', "more than one JSON list"),
        (b"[" * 50_000, "item 1: undecodable JSON"),
        ('{"id": 1}'.encode("utf-16")[:-1], "not whole UTF-16 text"),
    ],
)
def test_a_line_that_is_no_object_is_refused_by_its_number(tmp_path, content, message):
    with pytest.raises(ZooError, match=message):
        read_battles(write(tmp_path / "b.jsonl", content))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(TEXT, TEXT | st.none() | st.lists(TEXT), min_size=1), min_size=1), st.integers(1, 50))
def test_a_json_list_is_read_in_pieces_of_any_size(monkeypatch, found, piece):
    monkeypatch.setattr(jsonl, "PIECE", piece)
    cells = jsonl.read_json_list(io.BytesIO(json.dumps(found).encode()), Path("b.json"), encoding_of(b"["))
    names = list(dict.fromkeys(key for item in found for key in item))
    assert cells.header == names
    assert [row for row, _ in cells.rows(names)] == [[item.get(name) for name in names] for item in found]


def test_a_parquet_file_of_more_rows_than_bytes_is_refused_unread(tmp_path):
    pq.write_table(pa.table({"id": np.zeros(2**23, dtype=np.int8)}), tmp_path / "b.parquet", compression="zstd")
    with pytest.raises(ZooError, match=r"says that it holds 8,388,608 rows, which no file of [0-9,]+ bytes does"):
        read_battles(tmp_path / "b.parquet")


def test_a_key_that_a_line_lacks_is_a_bad_row(tmp_path):
    rows = [{"id": i, "prompt": ["q"], "response_a": ["x"], "response_b": ["y"]} for i in range(3)]
    del rows[1]["response_b"]
    battles = read_battles(write(tmp_path / "b.jsonl", "\n".join(map(json.dumps, rows)).encode()))
    assert battles.bad_ids == ("1",) and battles.errors[0].message.startswith("response_b: blank")
