"""The page of the Python API, from its docstrings."""

from __future__ import annotations

import preference_zoo


def api_page() -> str:
    """Every public name, in the order of the package's list."""
    names = "\n".join(f".. auto{_kind(name)}:: preference_zoo.{name}\n" for name in preference_zoo.__all__)
    return f"# Every name of `preference_zoo`\n\n```{{eval-rst}}\n{names}```\n"


def _kind(name: str) -> str:
    found = getattr(preference_zoo, name)
    if not isinstance(found, type):
        return "function"
    return "exception" if issubclass(found, Exception) else "class"
