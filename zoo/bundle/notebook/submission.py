"""The submission: its columns by the sample, every row's prior, whether a file is whole."""

from __future__ import annotations

import csv
import itertools
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .places import Refused

USUAL = ("id", "winner_model_a", "winner_model_b", "winner_tie")
# What a column of a sample holds, by its name without case: as `ensemble predict --like` knows them.
PARTS = {
    **dict.fromkeys(("id", "question_id", "row_id"), "id"),
    **dict.fromkeys(("winner_model_a", "winner_a", "p_a", "model_a", "a"), "a"),
    **dict.fromkeys(("winner_model_b", "winner_b", "p_b", "model_b", "b"), "b"),
    **dict.fromkeys(("winner_tie", "p_tie", "tie"), "tie"),
    "winner": "winner",
}
SUM_TOLERANCE = 1e-6
SEPARATORS = ",;\t|"  # that of a file is the one that its header has most of, a comma where it has none
_WHOLE = re.compile(r"0*(\d+)(?:\.0*)?")


@dataclass(frozen=True)
class Form:
    """Columns of a submission in their order, with what stands in each.

    `winners`: how A and B are spelled in a column `winner`.
    """

    columns: tuple[str, ...]
    parts: tuple[str, ...]
    winners: tuple[str, str] = ("model_a", "model_b")

    def row(self, row_id: str, p: Sequence[float]) -> list[str]:
        """The cells of a row with probabilities A, B, tie.

        Scaled to A and B where there is no column for ties.
        """
        a, b = p[0], p[1]
        if "tie" not in self.parts:
            a, b = a / (a + b), b / (a + b)
        cells = {"id": row_id, "a": repr(a), "b": repr(b), "tie": repr(p[2]), "winner": self.winners[a < b]}
        return [cells[part] for part in self.parts]


def form_of(sample: Path | None) -> tuple[Form, str]:
    """The form of a sample submission, and what is to be said of it.

    The usual four columns where there is none, or one that has a column of which nobody knows what it holds.
    """
    usual = Form(USUAL, ("id", "a", "b", "tie"))
    if sample is None:
        return usual, f"no sample submission beside test.csv: columns {', '.join(USUAL)}"
    with suppress(OSError, csv.Error):
        rows = _rows(sample)
        header = tuple(name.strip() for name in next(rows, []))
        parts = tuple(PARTS.get(name.lower(), "") for name in header)
        held = set(parts)
        if "id" in held and all(parts) and len(held) == len(parts) and ("winner" in held or {"a", "b"} <= held):
            place = parts.index("winner") if "winner" in held else len(parts)
            spelled = [row[place] for row in itertools.islice(rows, 1000) if len(row) > place]
            return Form(header, parts, _winners(spelled)), f"columns {', '.join(header)}, as {sample.name} has them"
        return usual, f"warning: {sample}: columns {', '.join(header)} are not known; {', '.join(USUAL)} are written"
    return usual, f"warning: {sample}: cannot be read; columns {', '.join(USUAL)} are written"


def _winners(spelled: Iterable[str]) -> tuple[str, str]:
    """How a sample spells A and B: as its values do, which may be one of the two alone."""
    usual = ("model_a", "model_b")
    for value in spelled:
        if value.strip() and value.strip()[-1].lower() in "ab":
            text, last = value.strip()[:-1], value.strip()[-1]
            return (text + "a", text + "b") if last.islower() else (text + "A", text + "B")
    return usual


def battle_ids(test: Path) -> Iterator[str]:
    """Ids of the battles in the file's order, each once.

    Nothing else of the file is kept: it may be large. Refused where it is no table with ids.
    """
    try:
        rows = _rows(test)
        header = [name.strip().lower() for name in next(rows, [])]
        place = next((header.index(name) for name in ("id", "question_id") if name in header), None)
        if place is None:
            raise Refused(f"{test}: has no column id; attach the competition whose test.csv has one")
        seen = set()
        for row in rows:
            row_id = row[place].strip() if len(row) > place else ""
            if row_id and row_id not in seen:
                seen.add(row_id)
                yield row_id
    except (OSError, csv.Error) as error:
        raise Refused(f"{test}: cannot be read ({error}); attach the competition again") from error


def write_prior(test: Path, form: Form, prior: Sequence[float], output: Path) -> int:
    """A whole submission at once, every row of it the prior; how many rows.

    OSError where there is no room; what was there before is there still.
    """
    partial = output.with_name(f".{output.name}.partial")
    rows = 0
    try:
        with partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(form.columns)
            for row_id in battle_ids(test):
                writer.writerow(form.row(row_id, prior))
                rows += 1
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return rows


def fault(output: Path, test: Path, form: Form) -> str:
    """What is wrong with a submission, in a line; empty where it is whole.

    Its columns, the ids of test.csv in their order, and numbers that are finite, not negative and sum to 1.
    """
    try:
        rows = _rows(output)
        header = tuple(next(rows, []))
        if header != form.columns:
            return f"columns {', '.join(header)}, {', '.join(form.columns)} wanted"
        place = form.parts.index("id")
        for number, (row, row_id) in enumerate(itertools.zip_longest(rows, battle_ids(test)), start=1):
            if row is None or row_id is None:
                return f"{'fewer' if row is None else 'more'} rows than test.csv, from row {number} on"
            if len(row) != len(header):
                return f"row {number} has {len(row)} cells, {len(header)} wanted"
            if _plain(row[place]) != _plain(row_id):
                return f"row {number} has id {row[place]}, {row_id} wanted"
            if wrong := _wrong_cells(row, form):
                return f"row {number}, id {row_id}: {wrong}"
    except (OSError, csv.Error, Refused) as error:
        return str(error)
    return ""


def _wrong_cells(row: Sequence[str], form: Form) -> str:
    cells = dict(zip(form.parts, row, strict=True))
    if "winner" in cells:
        return "" if cells["winner"] in form.winners else f"winner {cells['winner']!r}, {' or '.join(form.winners)} wanted"
    try:
        numbers = [float(cells[part]) for part in ("a", "b", "tie") if part in cells]
    except ValueError:
        return "not a number"
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        return "not finite, or negative"
    return "" if abs(sum(numbers) - 1) < SUM_TOLERANCE else f"sums to {sum(numbers):.6g}"


def _plain(row_id: str) -> str:
    """An id as a competition may write it otherwise: 030192 and 30192.0 are 30192."""
    match = _WHOLE.fullmatch(row_id.strip())
    return match[1] if match else row_id.strip()


def _rows(path: Path) -> Iterator[list[str]]:
    csv.field_size_limit(sys.maxsize)  # a conversation is longer than the module's limit of 128 KiB
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        header = file.readline()
        file.seek(0)
        yield from csv.reader(file, delimiter=max(SEPARATORS, key=header.count))
