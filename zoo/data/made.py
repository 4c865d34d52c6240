"""Files of battles made by machine: as a stage leaves them, and out of the store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pandas as pd

from zoo.data.battles import Battles, dataset_digest, read_battles
from zoo.data.columns import VOTES
from zoo.data.prompts import read_prompts
from zoo.errors import ZooError
from zoo.reading import read_json_object
from zoo.store import Artifact, file_sha256, note_written, replacing, write_atomic

# what a stage leaves
PAIRS, VERDICTS, CHOSEN, REPORT = "pairs.parquet", "verdicts.parquet", "prompts.jsonl", "report.json"
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


def beside(out: Path) -> Path:
    """Where the report of a made file lies."""
    return out.with_name(out.name + BESIDE)


def copy_out(artifact: Artifact, out: Path, name: str = PAIRS) -> Path:
    """Put an artifact's pairs, or its table of another name, in a file.

    Returns the path of the report beside it.

    The file's name says its format; the same rows give the same bytes. Each is whole or absent. The report lies beside it. It
    comes first and has the file's SHA-256: where a kill between them left the file of an earlier run, `report_beside` says so.
    """
    report: dict[str, Any] = json.loads((artifact.path / REPORT).read_bytes())
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as file:
        _write(artifact.path / name, out.name, file)
        file.flush()
        digest = file_sha256(Path(file.name))
        write_report(report | {"artifacts": [artifact.path.name]}, out, digest)
    store = artifact.path.parent
    note_written(store, (digest[:16], *_known_as(artifact.path / name)), out, [artifact])
    note_written(store, [file_sha256(beside(out))[:16]], beside(out), [artifact])  # a later label's `--map` may be it
    return beside(out)


def _known_as(made: Path) -> list[str]:
    """Digests of what is in a file.

    Pairs as scoring knows them and with their votes, prompts as answering does.
    """
    if made.name == PAIRS:
        battles = read_battles(made, keep=VOTES)
        return list(dict.fromkeys((dataset_digest(battles), content_digest(battles))))
    return [read_prompts(made).digest] if made.name == CHOSEN else []


def content_digest(battles: Battles) -> str:
    """SHA-256 over battles, winners and vote shares.

    The order of rows and the file's format do not matter. `battles` are read with `keep=VOTES`.
    The `dataset_digest` where there are no votes.
    """
    if not set(VOTES) <= set(battles.kept):
        return dataset_digest(battles)
    votes = battles.kept.loc[battles.frame["id"], list(VOTES)].apply(pd.to_numeric, errors="coerce")
    rows = sorted(repr((row_id, *(f"{share:.9g}" for share in shares))) for row_id, *shares in votes.itertuples(name=None))
    return hashlib.sha256("\n".join([dataset_digest(battles), *rows]).encode()).hexdigest()


def write_report(report: dict[str, Any], out: Path, digest: str) -> None:
    """Put a report beside a file that is about to be there; `digest`: the SHA-256 of that file."""
    told = {**report, "file_sha256": digest}
    write_atomic(beside(out), json.dumps(told, indent=1, ensure_ascii=False))


def report_beside(path: Path) -> dict[str, Any]:
    """The report beside a made file. ZooError where there is none, or it is of another file."""
    mend = "give the command that made the file again"
    report = read_json_object(beside(path), mend=mend)
    if report.get("file_sha256", file_sha256(path)) != file_sha256(path):
        raise ZooError(f"{path}: changed since, or of another run than {beside(path).name}; {mend}")
    return report


def _write(made: Path, name: str, file: IO[bytes]) -> None:
    """Rows of parquet in the format that a name says; lines of JSON as they are, or packed."""
    import gzip

    if made.suffix == ".jsonl":
        file.write(gzip.compress(made.read_bytes(), mtime=0) if name.endswith(".gz") else made.read_bytes())
    elif name.endswith(".parquet"):
        file.write(made.read_bytes())
    elif name.endswith(".gz"):
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:  # else the name of the moment is in it
            packed.writelines(_csv(made))
    else:
        file.writelines(_csv(made))


def _csv(path: Path) -> Iterator[bytes]:
    """A parquet file as pieces of CSV."""
    import pyarrow.parquet as pq

    header = True
    for batch in pq.ParquetFile(path).iter_batches(CHUNK):
        yield batch.to_pandas().to_csv(index=False, header=header).encode()
        header = False
