"""Whether the installed entry points are those of this tree's pyproject.toml.

vLLM finds our plugin by its installed entry point: an editable installation made before a module moved would leave engines
without it.
"""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

from zoo.cli.base import say

PACKAGE = "preference-zoo"
TREE = Path(__file__).parents[2]


def check_installed() -> None:
    """One line where installed entry points are not the tree's.

    An engine's process would not find what vLLM is to load.
    """
    if stale := stale_entry_points():
        say(f"{', '.join(stale)}: installed entry points are not this tree's; run `make setup`")


def stale_entry_points(tree: Path | None = None) -> list[str]:
    """Names of the tree's entry points that are not installed as the tree has them.

    None where the package is no checkout.
    """
    project = (tree or TREE) / "pyproject.toml"
    if not project.is_file():
        return []
    try:
        installed = {(p.group, p.name): p.value for p in importlib.metadata.distribution(PACKAGE).entry_points}
    except importlib.metadata.PackageNotFoundError:
        installed = {}
    wanted = declared_entry_points(project)
    return [name for (group, name), value in wanted.items() if installed.get((group, name)) != value]


def declared_entry_points(project: Path) -> dict[tuple[str, str], str]:
    """Group, name and value of each entry point that a pyproject.toml declares."""
    declared = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    groups = {"console_scripts": declared.get("scripts", {}), **declared.get("entry-points", {})}
    return {(group, name): value for group, points in groups.items() for name, value in points.items()}
