"""The token file: battles as token ids on disk, memory-mapped by the engines.

What an engine reads is a slice of one file, so memory does not grow with the rows. As Python lists 25,000 rows of 540 tokens in
two orders take about a gigabyte; as 32-bit numbers in a file they take 108 MB of disk, and a replica maps only what it scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from zoo.contracts import PromptSpec, Variant
from zoo.models.prompts import Codec, assemble_battles, field_ids

ENCODE_ROWS = 1024  # battles tokenized at a time
TOKEN = np.dtype("<i4")


@dataclass(frozen=True)
class Encoding:
    """One variant's rows, in the frame's order.

    Where each lies in the token file, its length, and what was cut off.
    """

    variant: Variant
    starts: np.ndarray
    lengths: np.ndarray
    truncated: np.ndarray


def write_tokens(
    frame: pd.DataFrame, variants: tuple[Variant, ...], codec: Codec, prompt: PromptSpec, path: Path
) -> list[Encoding]:
    """Tokenize battles for each variant into `path`, a piece at a time.

    Returns where each row lies, int64 arrays (rows,).
    """
    shape = (len(variants), len(frame))
    lengths, truncated = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    starts, written = np.zeros(shape, dtype=np.int64), 0
    with path.open("wb") as file:
        for begin in range(0, len(frame), ENCODE_ROWS):
            part = frame.iloc[begin : begin + ENCODE_ROWS]
            fields = field_ids(list(zip(part["prompt"], part["response_a"], part["response_b"], strict=True)), codec, prompt)
            for v, variant in enumerate(variants):
                for i, row in enumerate(assemble_battles(fields, codec, prompt, variant.order, variant.max_tokens), begin):
                    file.write(np.asarray(row.ids, dtype=TOKEN).tobytes())
                    starts[v, i], lengths[v, i], truncated[v, i] = written, len(row.ids), row.n_truncated
                    written += len(row.ids)
    return [Encoding(variant, starts[v], lengths[v], truncated[v]) for v, variant in enumerate(variants)]


def open_tokens(path: Path) -> np.ndarray:
    """The token file mapped into memory, read-only: (tokens,) of 32-bit ids."""
    return np.memmap(path, dtype=TOKEN, mode="r") if path.stat().st_size else np.zeros(0, dtype=TOKEN)
