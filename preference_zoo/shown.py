"""How results and progress show themselves in a notebook, and in plain Python."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from zoo.errors import printable
from zoo.report.html import fragment
from zoo.report.text import Page, as_text

LOOK_SECONDS = 0.5  # between two looks at how far a stage is
INTERRUPTED = "interrupted; the same call goes on from where it stopped"


class Shown(pd.DataFrame):
    """A DataFrame that shows itself as the command does; what is made of it is a plain one."""

    _page: Page | None = None  # a class attribute: pandas takes it for none of its columns
    _picture = ""
    _line = ""
    _values: pd.DataFrame | None = None

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def shown_as(self, line: str, page: Page, picture: str = "") -> None:
        """Show this: `line` in a word, `page` whole, `picture` (HTML) below it."""
        self._line, self._page, self._picture = line, local_page(page), picture
        self._values = self.copy()

    @property
    def _as_made(self) -> Page | None:
        """The page, as long as nobody has changed the frame in its place."""
        return self._page if self._values is not None and self._values.equals(pd.DataFrame(self)) else None

    def __repr__(self) -> str:
        if self._as_made is None:
            return super().__repr__()
        return f"<{self._line}>" if type(self) is Shown else f"{type(self).__name__}({self._line})"

    def __str__(self) -> str:
        return super().__repr__() if self._as_made is None else as_text(self._as_made)

    def _repr_html_(self) -> str | None:
        if self._as_made is None:
            plain: str | None = super()._repr_html_()  # type: ignore[misc]
            return plain
        return fragment(self._as_made) + self._picture


def local(text: str) -> str:
    """A text with the places of this folder as they are seen from it."""
    return text.replace(f"{Path.cwd()}/", "")


def local_page(page: Page) -> Page:
    """The same of a page; tables have no places."""
    return [local(block) if isinstance(block, str) else block for block in page]


def say(text: str) -> None:
    """A note on what is going on."""
    _tqdm().write(printable(local(text)), file=sys.stdout)


class Notes:
    """What one call says while it works: lines, and a bar for steps of which there are many.

    `named`: puts what is said into the caller's words.
    """

    def __init__(self, named: Callable[[str], str]) -> None:
        self._named = named
        self._bar: Any = None

    def __call__(self, text: str) -> None:
        self.end()
        say(self._named(text))

    def step(self, done: int, total: int, text: str) -> None:
        """Step `done` of `total` begins; `text` says what it is."""
        if self._bar is None:
            self._bar = _tqdm()(total=total, unit="step", leave=False)
        self._bar.n = done
        self._bar.set_description(printable(text.split(",")[0]))

    def end(self) -> None:
        """Take away the bar, if there is one."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def _tqdm() -> Any:
    """The bars of notebooks in a notebook, those of terminals elsewhere."""
    with warnings.catch_warnings():  # it warns of being new, and where there are no widgets
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    return tqdm


@contextmanager
def bars(folder: Path) -> Iterator[None]:
    """Show how far the stage is that runs in a folder: a bar at a time, and its notes."""
    from zoo.store import LIVE

    path, ended = folder / LIVE, threading.Event()
    before = path.stat().st_size if path.exists() else 0  # of a run that was cut short, and that this one goes on from
    thread = threading.Thread(target=_follow, args=(path, before, ended), name="bars", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _follow(path: Path, place: int, ended: threading.Event) -> None:
    from zoo.tracking.live import read_lines

    bar = None
    try:
        last = False
        while not last:
            last = ended.wait(LOOK_SECONDS)
            place, said = read_lines(path, place)
            for line in said:
                if "note" in line:
                    say(f"  {line['note']}")
                if "bar" in line:
                    bar = _drawn(bar, line["bar"])
    finally:
        if bar is not None:
            bar.close()


def _drawn(bar: Any, told: dict[str, Any]) -> Any:
    """The bar at what was told; another one where that is of another step."""
    if bar is None or bar.desc != f"{told['description']}: " or bar.total != told["total"]:
        if bar is not None:
            bar.close()
        bar = _tqdm()(total=told["total"], desc=told["description"], unit=told["unit"], unit_scale=True, leave=False)
    bar.n = told["done"]
    bar.refresh()
    return bar
