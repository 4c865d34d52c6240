"""What is kept of the rows' texts: the prompt's script, and a digest to know a row by."""

from __future__ import annotations

import base64
import hashlib
import json
import unicodedata
from collections import Counter
from functools import lru_cache

import numpy as np
import pandas as pd

from zoo.data.battles import join_turns
from zoo.data.turns import Turns

SCRIPT, DIGEST, COLUMN = "script", "digest", "column"  # COLUMN: the one of the battles file that was asked for
NO_SCRIPT = "none"
_LETTERS = 200  # of a prompt: enough to tell its script
_BITS, _HASHES = 16, 11  # of the Bloom filter a row: one stranger in 2,000 looks known


def about_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The script of each row's prompt and the digest of its texts, indexed as `frame`."""
    scripts = [script_of(turns) for turns in frame["prompt"]]
    return pd.DataFrame({SCRIPT: scripts, DIGEST: row_digests(frame)}, index=frame.index)


def script_of(turns: Turns) -> str:
    """The writing system that most of the prompt's first letters are of.

    Named as Unicode does: latin, cyrillic, cjk, .... It tells languages apart as far as they are written differently: English
    and French are both latin.
    """
    text = join_turns(turns)[: 4 * _LETTERS]
    if text.isascii():
        return "latin" if any(c.isalpha() for c in text) else NO_SCRIPT
    letters = [_script_of_letter(c) for c in text if c.isalpha()][:_LETTERS]
    return Counter(letters).most_common(1)[0][0] if letters else NO_SCRIPT


@lru_cache(maxsize=10_000)
def _script_of_letter(letter: str) -> str:
    return unicodedata.name(letter, NO_SCRIPT).split()[0].lower()


def row_digests(frame: pd.DataFrame) -> np.ndarray:
    """64 bits (rows,) of each row's prompt and both responses, whichever is A: uint64.

    Ids are not in it.
    """
    columns = zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True)
    rows = (json.dumps([prompt, *sorted((json.dumps(a), json.dumps(b)))]).encode() for prompt, a, b in columns)
    digests = [int.from_bytes(hashlib.blake2b(row, digest_size=8).digest(), "little") for row in rows]
    return np.array(digests, dtype=np.uint64)


def bloom(digests: np.ndarray) -> str:
    """A filter that knows these rows again (Bloom 1970), in base64."""
    size = 8 * -(-_BITS * max(1, len(np.unique(digests))) // 8)
    bits = np.zeros(size, dtype=bool)
    bits[_places(digests, size)] = True
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def is_known(filter_: str, digests: np.ndarray) -> np.ndarray:
    """Which rows, bool (rows,), are among those of the filter.

    All that are, and one in 2,000 of those that are not. ValueError where `filter_` is none.
    """
    bits = np.unpackbits(np.frombuffer(base64.b64decode(filter_, validate=True), dtype=np.uint8))
    known: np.ndarray = bits[_places(digests, len(bits))].astype(bool).all(axis=1)
    return known


def _places(digests: np.ndarray, size: int) -> np.ndarray:
    """Places (rows, _HASHES) in a filter of `size` bits, by double hashing (Kirsch and Mitzenmacher 2006)."""
    low, high = digests & np.uint64(0xFFFFFFFF), (digests >> np.uint64(32)) | np.uint64(1)
    places: np.ndarray = (low[:, None] + np.arange(_HASHES, dtype=np.uint64) * high[:, None]) % np.uint64(size)
    return places
