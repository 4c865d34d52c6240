"""A model's tokenizer.json, opened so that whatever is wrong with it is one line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.reading import read_bytes

TOKENIZER_SECONDS = 60  # of processor time in a bounded child: the largest take some 2 s
MEND = "copy the model's tokenizer.json again"
MOST_BYTES = 512 << 20  # the tokenizers of 256,000 words are below 40 MiB


def open_tokenizer(path: Path) -> Any:
    """The `tokenizers.Tokenizer` of a file.

    ZooError where there is none, or the library cannot make one of it.
    """
    return tokenizer_of(read_tokenizer(path), path)


def read_tokenizer(path: Path) -> bytes:
    """A tokenizer.json's content; ZooError where there is none, or it is larger than any."""
    if not os.path.lexists(path):
        raise ZooError(f"{path}: no such file; save the model's tokenizer in its fast form (tokenizer.json) there")
    return read_bytes(path, MOST_BYTES, mend=MEND)


def tokenizer_of(data: bytes, path: Path) -> Any:
    """The tokenizer of a tokenizer.json's content, which `path` names.

    ZooError where the library cannot make one of it. A library in Rust ends in `PanicException`, which is no `Exception`, where
    it did not expect what it reads.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_buffer(data)
    except MemoryError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ZooError(f"{path}: not a tokenizer that the tokenizers library can open ({reason}); {MEND}") from error
