"""Help of every command, as pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer
import typer.main
from typer.cli import get_docs_for_click

from ensemble.cli import app as ensemble_app
from zoo.cli.base import HELP_OPTIONS
from zoo.cli.main import app as zoo_app

EXAMPLE = "Example: "
_EXAMPLES = re.compile(rf"(?:^{EXAMPLE}.*\n?)+", re.MULTILINE)
_LIST = re.compile(r"\*\*Commands\*\*:\n\n(?:\* .*\n?)+")
_HEADING = re.compile(r"^#+ `(.+)`$", re.MULTILINE)


def zoo_page() -> str:
    """Help of every `zoo` command."""
    return help_page(zoo_app, "zoo")


def ensemble_page() -> str:
    """Help of every `ensemble` command."""
    return help_page(ensemble_app, "ensemble")


def help_page(app: typer.Typer, program: str) -> str:
    """typer's own markdown of an app, but for two things.

    Examples, which are lines of a paragraph there, become code to copy; lists of commands are whole, with links.
    """
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name=program, **HELP_OPTIONS)
    text = get_docs_for_click(obj=command, ctx=context, name=program)
    text = _EXAMPLES.sub(lambda found: f"```sh\n{found[0].replace(EXAMPLE, '').strip()}\n```\n", text)
    lists = {name: _list(name, group) for name, group in _groups(program, command)}
    made = []
    _, *parts = _HEADING.split(text)  # names and texts by turns
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        depth = min(3, 1 + name.count(" "))
        made.append(f"{'#' * depth} `{name}`" + _LIST.sub(lists.get(name, "").replace("\\", r"\\"), body))
    return "".join(made)


def _groups(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A program and its groups, with their names on the command line."""
    if hasattr(command, "commands"):
        yield name, command
        for own, child in command.commands.items():
            yield from _groups(f"{name} {own}", child)


def _list(name: str, group: Any) -> str:
    """A group's commands, each with the first paragraph of its help."""
    rows = []
    for own, child in group.commands.items():
        about = " ".join((child.help or "").split("\n\n")[0].split()).replace("|", r"\|")
        rows.append(f"| [`{name} {own}`](#{name.replace(' ', '-')}-{own}) | {about} |")
    return "**Commands**:\n\n| command | what it does |\n|---|---|\n" + "\n".join(rows) + "\n"
