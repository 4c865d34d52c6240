"""Terminal text: tables on stdout, notes with the time since start on stderr."""

from __future__ import annotations

import csv
import json
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal

from zoo.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

Cell = str | int | float | None
GAP = 2  # spaces between columns
PROSE_WIDTH = 28  # a column of prose gets narrower than its longest line, but not below this
PIPE_WIDTH = 100_000  # where no terminal shows it nothing is dropped or broken
# Of 256 colours, those that stand out alike from white and from black: contrast 4 or more on both.
GOOD, WARN, FAIL = "color(28)", "color(130)", "color(196)"
STYLES = {"ok": GOOD, "warn": WARN, "warning": WARN, "fail": FAIL, "error": FAIL}
BEST = f"bold {GOOD}"


def as_budget(seconds: float) -> str:
    """Whole seconds as budgets are written.

    `9h`, `1h30m`, `45s`; less than one is the number itself.
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = (f"{number}{unit}" for number, unit in ((hours, "h"), (minutes, "m"), (rest, "s")) if number)
    return "".join(parts) or f"{seconds:g}s"


def digits(number: int, *, all_of_them: bool = False) -> Callable[[float], str]:
    """How values are shown with so many digits, and those above 1 never by a power of ten.

    `all_of_them`: zeros at the end too, so that values of a column are as exact as they look.
    """

    def form(value: float) -> str:
        short = f"{value:{'#' if all_of_them else ''}.{number}g}"
        return f"{value:.0f}" if "e+" in short else short.removesuffix(".")

    return form


class Format(StrEnum):
    """How a table is written."""

    table = "table"
    markdown = "markdown"
    csv = "csv"
    json = "json"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    `key`: its name in CSV and JSON, unit and all, where that is not the title.

    `form`: how text shows a value, a format spec or a function. `drop`: on a narrow terminal columns go from the highest down;
    0 stays. `prose`: may break over lines.
    """

    title: str
    key: str = ""
    form: str | Callable[[Any], str] = ""
    drop: int = 0
    prose: bool = False

    def text(self, value: Cell) -> str:
        """A value as people read it, on one line."""
        if value is None:
            return "-"
        if callable(self.form):
            return self.form(value)
        return format(value, self.form) if self.form and not isinstance(value, str) else str(value)


@dataclass(frozen=True)
class Table:
    """Plain values under columns, and which rows are the best."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    best: frozenset[int] = frozenset()

    def records(self) -> list[dict[str, Cell]]:
        """Rows by the columns' keys, numbers as numbers."""
        keys = [column.key or column.title for column in self.columns]
        return [dict(zip(keys, row, strict=True)) for row in self.rows]

    def cells(self) -> list[list[str]]:
        """Rows as text, the best ones marked by the word."""
        texts = [[_lines(column.text(value)) for column, value in zip(self.columns, row, strict=True)] for row in self.rows]
        return [[f"{row[0]} (best)", *row[1:]] if place in self.best else row for place, row in enumerate(texts)]


Page = Sequence[str | Table]


def lowest(values: Sequence[float | None]) -> frozenset[int]:
    """The place of the lowest value, for `Table.best`; none where fewer than two rows have one."""
    known = [(value, place) for place, value in enumerate(values) if value is not None and not math.isnan(value)]
    return frozenset({min(known)[1]}) if len(known) > 1 else frozenset()


def show(page: Page, style: Format = Format.table, *, data: object = None) -> None:
    """Print a page on stdout in one format: the one way in which commands print tables.

    Text keeps to the terminal's width and has colours there, and lines of prose break between words (a block of several lines
    is laid out already); in a pipe it is whole and plain. A table without rows shows only its header, and only in CSV,
    which is the page's first table. JSON is `data`, or the first table's rows.
    """
    if style in (Format.csv, Format.json):
        first = next((block for block in page if isinstance(block, Table)), None)
        if style is Format.csv:
            print(_lines(_csv(first)) if first else "")
        else:
            print(json.dumps(_finite(first.records() if data is None and first else data), indent=1))
        return
    if style is Format.markdown:
        print(as_text(page, style))
        return
    from rich.console import Console

    terminal = Console()
    print(_rendered(page, terminal if terminal.is_terminal else None))


def as_text(page: Page | Table, style: Format = Format.table) -> str:
    """A page, or one table, as plain text or markdown at full width, for files."""
    blocks: Page = [page] if isinstance(page, Table) else page
    if style is Format.markdown:
        return "\n".join(_markdown(block) if isinstance(block, Table) else _lines(block) for block in _shown(blocks))
    return _rendered(blocks, None)


def _shown(page: Page) -> Page:
    """What text shows of a page: without rows a table's header says nothing."""
    return [block for block in page if isinstance(block, str) or block.rows]


def _lines(text: str) -> str:
    """Text of several lines with other control characters as escapes.

    Ids, headers and names come from anybody.
    """
    return printable(text, keep="\n")


def _rendered(page: Page, terminal: Console | None) -> str:
    """Text as it fits `terminal`; without one whole and plain."""
    from rich.console import Console

    buffer = StringIO()
    # `[prompt]` is text, not markup.
    options: dict[str, Any] = {"file": buffer, "markup": False, "emoji": False, "highlight": False}
    if terminal is None:
        console = Console(**options, width=PIPE_WIDTH, color_system=None, force_terminal=False)
    else:
        system: Any = terminal.color_system
        console = Console(**options, width=terminal.width, color_system=system, force_terminal=True, no_color=terminal.no_color)
    first = next((block for block in page if isinstance(block, Table)), None)
    told: set[str] = set()  # columns that were dropped: tables that are alike say it once
    for block in _shown(page):
        if isinstance(block, str):
            buffer.write(_broken(_lines(block), console.width) + "\n")
            continue
        kept, dropped, fits = fitting(block, console.width)
        console.print(_rich_table(block, kept, fits=fits))
        if not told.issuperset(dropped):
            told.update(dropped)
            option = "--format csv" if block is first else "--json"  # CSV is the page's first table
            line = f"not shown at this width: {', '.join(dropped)}; {option} has all"
            console.print(_broken(line, console.width), style="dim", soft_wrap=True)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def _broken(block: str, width: int) -> str:
    """A line of prose broken between words, never within one: a path can still be copied.

    A block of several lines stays as it is.
    """
    if "\n" in block:
        return block
    return textwrap.fill(block, width, replace_whitespace=False, break_long_words=False, break_on_hyphens=False)


def fitting(table: Table, width: int) -> tuple[list[int], list[str], bool]:
    """What of a table has room in so many characters.

    Places of the columns to show, titles of those that were dropped, and whether what is left fits without breaking rows."""
    from rich.cells import cell_len

    texts = [[column.title for column in table.columns], *table.cells()]
    widths = [max(cell_len(line) for row in texts for line in row[place].split("\n")) for place in range(len(table.columns))]
    needed = [min(w, PROSE_WIDTH) if column.prose else w for w, column in zip(widths, table.columns, strict=True)]
    kept = list(range(len(table.columns)))
    dropped: list[int] = []

    def fits() -> bool:
        return sum(needed[place] + GAP for place in kept) - GAP <= width

    while not fits():
        last = max(kept, key=lambda place: (table.columns[place].drop, place))
        if not table.columns[last].drop:
            break
        kept.remove(last)
        dropped.append(last)
    return kept, [table.columns[place].title for place in sorted(dropped)], fits()


def _rich_table(table: Table, kept: Sequence[int], *, fits: bool) -> RichTable:
    from rich.table import Table as RichTable
    from rich.text import Text

    made = RichTable(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for place in kept:
        column = table.columns[place]
        numbers = not any(isinstance(row[place], str) for row in table.rows)
        justify: Literal["left", "right"] = "right" if numbers else "left"
        made.add_column(Text(column.title), justify=justify, no_wrap=fits and not column.prose, overflow="fold")
    for number, row in enumerate(table.cells()):
        made.add_row(
            *(Text(row[place], style=STYLES.get(row[place], "")) for place in kept),
            style=BEST if number in table.best else None,
        )
    return made


def _finite(value: Any) -> Any:
    """Plain data with null where JSON has no number for it: NaN and infinity."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join(line(cells) for cells in ([c.title for c in table.columns], ["---"] * len(table.columns), *table.cells()))


def _csv(table: Table) -> str:
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([column.key or column.title for column in table.columns])
    writer.writerows(table.rows)
    return buffer.getvalue().rstrip("\n")
