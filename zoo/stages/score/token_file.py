"""The token file: battles as token ids on disk, memory-mapped by the engines.

What an engine reads is a slice of one file, so memory does not grow with the rows; a row that has the same tokens in several
variants is there once, and known by that. As Python lists 25,000 rows of 540 tokens in
two orders take about a gigabyte; as 32-bit numbers in a file they take 108 MB of disk, and a replica maps only what it scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from zoo.contracts import PromptSpec, Variant
from zoo.models.prompts import Codec, encode_fields, fit_fields

ENCODE_ROWS = 1024  # battles tokenized at a time
TOKEN = np.dtype("<i4")


@dataclass(frozen=True)
class Encoding:
    """One variant's rows, in the frame's order.

    Where each lies in the token file, its length, and what was cut off. Rows of two variants that begin in one place are the
    same tokens: such a row is scored once (`zoo.stages.score.chunks`).
    """

    variant: Variant
    starts: np.ndarray
    lengths: np.ndarray
    truncated: np.ndarray


def write_tokens(frame: pd.DataFrame, codecs: Mapping[Variant, Codec], prompt: PromptSpec, path: Path) -> list[Encoding]:
    """Tokenize battles for each variant into `path`, a piece at a time.

    Returns where each row lies, int64 arrays (rows,), of each variant.
    """
    variants, specs = list(codecs), [variant.prompt(prompt) for variant in codecs]
    shape = (len(variants), len(frame))
    lengths, truncated = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    starts, written = np.zeros(shape, dtype=np.int64), 0
    with path.open("wb") as file:
        for begin in range(0, len(frame), ENCODE_ROWS):
            part = frame.iloc[begin : begin + ENCODE_ROWS]
            turns = list(zip(part["prompt"], part["response_a"], part["response_b"], strict=True))
            for i, fields in enumerate(encode_fields(turns, codecs[variants[0]], prompt), begin):
                known: dict[bytes, int] = {}  # where this battle's tokens are already
                for v, (variant, spec) in enumerate(zip(variants, specs, strict=True)):
                    row = fit_fields(fields, codecs[variant], spec, variant.order)
                    content = np.asarray(row.ids, dtype=TOKEN).tobytes()
                    starts[v, i] = known.setdefault(content, written)
                    lengths[v, i], truncated[v, i] = len(row.ids), row.n_truncated
                    if starts[v, i] == written:
                        file.write(content)
                        written += len(row.ids)
    return [Encoding(variant, starts[v], lengths[v], truncated[v]) for v, variant in enumerate(variants)]


def open_tokens(path: Path) -> np.ndarray:
    """The token file mapped into memory, read-only: (tokens,) of 32-bit ids."""
    return np.memmap(path, dtype=TOKEN, mode="r") if path.stat().st_size else np.zeros(0, dtype=TOKEN)
