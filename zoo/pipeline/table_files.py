"""Score tables as files: the columns that a table can use, with numbers as numbers.

`zoo.data.formats` opens them, as it does battles. What has no ids or is a program is refused there by its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.data.columns import cell_text
from zoo.data.formats import open_cells
from zoo.errors import ZooError

if TYPE_CHECKING:
    import pandas as pd

BLANKS = ("", "nan", "na", "null", "none")
_TRUTH = {"true": 1, "false": 0}
_WHOLE = re.compile(r"[+-]?\d{1,30}")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")


@dataclass(frozen=True)
class TableFile:
    """A file's columns that a table can use, and its whole header.

    `frame`: ids and other texts as they stand in the file, "" where blank; numbers as int or float, NaN where blank; whatever
    is no number as it is.
    """

    frame: pd.DataFrame
    header: tuple[str, ...]


def read_file(
    path: Path, *, wanted: Callable[[str], bool], is_id: Callable[[str], bool], is_text: Callable[[str], bool]
) -> TableFile:
    """The `wanted` columns of a file of any format.

    ZooError as `zoo.data.formats.open_cells` says, and by id for a row that has another number of fields than the header.

    `is_id`, `is_text`: whether a column of this name holds ids or other texts, whatever they look like.
    """
    import pandas as pd

    with open_cells(path, wanted) as cells:
        header = tuple(cells.header)
        if not header:
            raise ZooError(f"{path}: the file is empty; its first line must name the columns, as id, p_a, p_b, p_tie")
        names = [name for name in dict.fromkeys(header) if wanted(name)]
        if doubled := [name for name in names if header.count(name) > 1]:
            raise ZooError(f"{path}: column {doubled[0]} occurs more than once; keep one")
        rows = list(cells.rows(names))
    columns: dict[str, list[Any]] = {}
    for place, name in enumerate(names):
        column = [row[place] for row, _ in rows]
        columns[name] = [cell_text(cell).strip() if is_id(name) or is_text(name) else number_of(cell) for cell in column]
    labels = next((columns[name] for name in names if is_id(name)), list(range(1, len(rows) + 1)))
    odd = [label for label, (_, width) in zip(labels, rows, strict=True) if width != len(header)]
    refuse_rows(path, f"another number of fields than the {len(header)} of the header", odd)
    return TableFile(pd.DataFrame(columns, columns=names, dtype=object), header)


def number_of(cell: Any) -> Any:
    """A cell as an int or float, NaN where it is blank; what is no number as it is.

    Decimals may stand behind a point or a comma.
    """
    if cell is None:
        return float("nan")
    if not isinstance(cell, str):
        return cell
    text = cell.strip()
    if text.lower() in BLANKS:
        return float("nan")
    if text.lower() in _TRUTH:
        return _TRUTH[text.lower()]
    if _WHOLE.fullmatch(text):
        return int(text)
    try:
        return cell if "_" in text else float(text.replace(",", ".") if _DECIMAL_COMMA.fullmatch(text) else text)
    except ValueError:
        return cell


def refuse_rows(path: Path, what: str, found: Iterable[object]) -> None:
    """ZooError with the first of the rows' ids, where there are any."""
    rows = list(found)
    if rows:
        more = ", ..." if len(rows) > 10 else ""
        verb = "row has" if len(rows) == 1 else "rows have"
        raise ZooError(f"{path}: {len(rows)} {verb} {what}: {', '.join(map(str, rows[:10]))}{more}")
