"""The page of the Python API, from its docstrings."""

from __future__ import annotations

import pandas as pd

import preference_zoo

HEAD = """# Every name of `preference_zoo`

[python.md](../python.md) says what they are for, and how to begin.

"""


def api_page() -> str:
    """Every public name: functions, then what they give."""
    given = {name: getattr(preference_zoo, name) for name in preference_zoo.__all__}
    types = {name: found for name, found in given.items() if isinstance(found, type)}
    functions = "\n".join(f".. autofunction:: preference_zoo.{name}\n" for name in given if name not in types)
    classes = "\n".join(f".. auto{_kind(found)}:: preference_zoo.{name}{_made(found)}\n" for name, found in types.items())
    return f"{HEAD}## Functions\n\n```{{eval-rst}}\n{functions}```\n\n## What they give\n\n```{{eval-rst}}\n{classes}```\n"


def _kind(found: type) -> str:
    return "exception" if issubclass(found, Exception) else "class"


def _made(found: type) -> str:
    """No arguments for frames: nobody makes one, and pandas' own would stand there."""
    return "()" if issubclass(found, pd.DataFrame) else ""
