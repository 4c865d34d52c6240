"""The same battles as a file of every format that is read."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

TEXTS = ("prompt", "response_a", "response_b")
ONE_HOT = ("winner_model_a", "winner_model_b", "winner_tie")
Row = tuple[str, Sequence[str | None], Sequence[str | None], Sequence[str | None], int]  # id, three texts, label


def competition(rows: Sequence[Row], *, native: bool = False) -> pd.DataFrame:
    """Rows in the competition's columns; texts as JSON, or as lists where `native`."""
    given = [list if native else json.dumps for _ in TEXTS]
    records = [
        {"id": row[0]}
        | {name: make(turns) for name, make, turns in zip(TEXTS, given, row[1:4], strict=True)}
        | {name: int(row[4] == i) for i, name in enumerate(ONE_HOT)}
        for row in rows
    ]
    return pd.DataFrame(records, columns=["id", *TEXTS, *ONE_HOT])


def named(rows: Sequence[Row], names: Sequence[str] = ("model_a", "model_b", "tie"), **columns: str) -> pd.DataFrame:
    """Rows of one turn as plain text, the winner by name, and more columns of one value."""
    records = [
        {"id": row[0]} | {name: turns[0] for name, turns in zip(TEXTS, row[1:4], strict=True)} | {"winner": names[row[4]]}
        for row in rows
    ]
    return pd.DataFrame(records).assign(**columns)


def arena(rows: Sequence[Row], names: Sequence[str] = ("model_a", "model_b", "tie")) -> pd.DataFrame:
    """Rows as an arena exports them: two whole conversations and a winner."""

    def talk(prompt: Sequence[str | None], response: Sequence[str | None]) -> list[dict[str, Any]]:
        turns = zip(prompt, response, strict=True)
        return [
            {"role": role, "content": text} for pair in turns for role, text in zip(("user", "assistant"), pair, strict=True)
        ]

    records = [
        {"id": i, "conversation_a": talk(prompt, a), "conversation_b": talk(prompt, b), "winner": names[label]}
        for i, prompt, a, b, label in rows
    ]
    return pd.DataFrame(records)


def zipped(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("battles.csv", content)
        archive.writestr("__MACOSX/._battles.csv", b"\0")
    return out.getvalue()


def zstd(content: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(content)
    return bytes(out.getvalue().to_pybytes())


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd, "zip": zipped,
}  # fmt: skip
SEPARATORS = {"commas": ",", "semicolons": ";", "tabs": "\t", "bars": "|"}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")


def as_csv(frame: pd.DataFrame, separator: str = ",", encoding: str = "utf-8") -> bytes:
    return frame.to_csv(index=False, sep=separator, lineterminator="\n", quoting=csv.QUOTE_ALL).encode(encoding)


def as_jsonl(frame: pd.DataFrame) -> bytes:
    lines = [json.dumps(dict(zip(frame.columns, cells, strict=True))) for cells in frame.to_numpy(dtype=object).tolist()]
    return ("\n".join(lines) + "\n").encode()


def as_parquet(frame: pd.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.to_parquet(out, index=False)
    return out.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def mirrored(source: Path, out: Path) -> Path:
    """A CSV file's battles with their answers, and who won, exchanged; under the same ids."""
    frame = pd.read_csv(source, dtype=str)
    sides = {name: name.removesuffix("_a") + "_b" for name in frame.columns if name.endswith("_a")}
    exchanged = frame.rename(columns=sides | {new: old for old, new in sides.items()})
    exchanged[frame.columns].to_csv(out, index=False)
    return out
