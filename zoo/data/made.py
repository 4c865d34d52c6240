"""Files of battles made by machine: as a stage leaves them, and out of the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.store.files import replacing

PAIRS, VERDICTS, REPORT = "pairs.parquet", "verdicts.parquet", "report.json"  # what a stage leaves
BESIDE = ".report.json"  # the report's name beside a file is the file's, and this
STATUS, UNLABELLED, OK = "status", "unlabelled", "ok"
SUFFIXES = (".parquet", ".csv", ".csv.gz")
CHUNK = 2_000  # rows that are held at once


def write_pairs(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Rows of the same columns as parquet, whole or not at all, some at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    left = iter(rows)
    first = pa.Table.from_pylist(list(islice(left, CHUNK)))
    with replacing(path) as file, pq.ParquetWriter(file, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        while chunk := list(islice(left, CHUNK)):
            writer.write_table(pa.Table.from_pylist(chunk, schema=first.schema))


def check_suffix(path: Path) -> None:
    """ZooError for a name that says no format that is written."""
    if not path.name.endswith(SUFFIXES):
        raise ZooError(f"{path}: name a file that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


def copy_out(folder: Path, out: Path, name: str = PAIRS) -> Path:
    """Put an artifact's pairs, or its file of another name, in a file.

    Its report goes beside it, whose path is returned. The file's name says its format. Each is whole or absent, the rows last:
    where they are, they have their report.
    """
    import gzip

    report = out.with_name(out.name + BESIDE)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(report) as file:
        file.write((folder / REPORT).read_bytes())
    with replacing(out) as file:
        if out.name.endswith(".parquet"):
            file.write((folder / name).read_bytes())
        elif out.name.endswith(".gz"):
            with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed:
                packed.writelines(_csv(folder / name))
        else:
            file.writelines(_csv(folder / name))
    return report


def _csv(path: Path) -> Iterator[bytes]:
    """A parquet file as pieces of CSV."""
    import pyarrow.parquet as pq

    header = True
    for batch in pq.ParquetFile(path).iter_batches(CHUNK):
        yield batch.to_pandas().to_csv(index=False, header=header).encode()
        header = False
