"""Token counts of a file's rows for each variant of an entry, counted or estimated.

They are counted where the tokenizer is at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from zoo.contracts import Entry, PromptSpec, Selection, Variant
from zoo.cost.price import COMPETITION_ROWS
from zoo.cost.published import Lengths, load_published
from zoo.data.battles import count_characters
from zoo.data.splits import select_rows
from zoo.data.usable import unusable_line, usable_battles
from zoo.errors import ZooError

SAMPLE_ROWS = 2_000  # of a file: lengths deviate by about their mean, so the mean of so many is within 2 or 3 %
TEXTS = ("prompt", "response_a", "response_b")


@dataclass(frozen=True)
class File:
    """The file to be scored: how many rows, and the tokens of rows like them for each variant.

    `assumed`: of the lengths.
    """

    rows: int
    tokens: dict[Variant, np.ndarray]
    assumed: tuple[str, ...]


def file_of(entry: Entry, lengths: Path | None, rows: int | None, model_folder: Path | None) -> File:
    """A file with rows like those of `lengths`, or like the competition's without one.

    `rows`: how many of them (default: as many as it has). `model_folder` is one with the entry's tokenizer.json, or None. A
    long file's lengths are taken from a sample of its rows.
    """
    variants = entry.score.variants if entry.score else (Variant(),)
    published = load_published().lengths
    if lengths is None:
        number = rows or COMPETITION_ROWS
        typical = f"rows as long as the competition's, at {published.characters_per_token} characters a token"
        tokens = {v: estimated(published, None, entry.prompt, v) for v in variants}
        return File(number, tokens, (typical,) if entry.prompt else ())
    battles = usable_battles(lengths)
    if battles.frame.empty:
        raise ZooError(f"{lengths}: no usable rows to take lengths from; `zoo data validate` says why")
    frame = select_rows(battles, Selection(rows="all", max_rows=SAMPLE_ROWS))
    notes = [] if rows in (None, len(battles.ids)) else [f"{rows:,} rows as long as the {len(battles.ids):,} of {lengths.name}"]
    notes += [f"lengths: {unusable_line(battles)}"] if battles.bad_ids else []
    if entry.prompt is None:
        tokens = {v: np.zeros(len(frame)) for v in variants}
    elif model_folder is not None:
        tokens = {v: counted(frame, v, entry.prompt, model_folder) for v in variants}
    else:
        notes.append(f"{published.characters_per_token} characters a token: the tokenizer is not in the store (`zoo fetch`)")
        tokens = {v: estimated(published, count_characters(frame), entry.prompt, v) for v in variants}
    return File(rows or len(battles.ids), tokens, tuple(notes))


def counted(frame: pd.DataFrame, variant: Variant, prompt: PromptSpec, folder: Path) -> np.ndarray:
    """Tokens (rows,) as the member reads the rows, template and truncation included."""
    from zoo.models.prompts import encode_battles, load_codec

    turns = list(zip(*(frame[name] for name in TEXTS), strict=True))
    spec = variant.prompt(prompt)
    encoded = encode_battles(turns, load_codec(folder, spec), spec, variant.order)
    return np.array([len(row.ids) for row in encoded], dtype=np.float64)


def estimated(lengths: Lengths, characters: np.ndarray | None, prompt: PromptSpec | None, variant: Variant) -> np.ndarray:
    """Tokens (rows,) by characters, template and cap included.

    Zeros where the entry reads no tokens.
    """
    if prompt is None:
        return np.zeros(len(lengths.characters) if characters is None else len(characters))
    own = np.array(lengths.characters, dtype=np.float64) if characters is None else characters
    spec = variant.prompt(prompt)
    return np.minimum((len(spec.template) + own) / lengths.characters_per_token, spec.max_tokens)
