"""Pages of the TOML files that people write: every key with its type, its default and its meaning, from the contracts."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from zoo.contracts import Entry
from zoo.experiments.recipes import Recipe
from zoo.targets import load_target
from zoo.targets.load import PACKAGE_FOLDER, Target

PLAIN = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path"}
ENTRY = """# Keys of an entry

An entry is one TOML file: `zoo/entries/NAME.toml` of the package, or `NAME.toml` in a folder of `ZOO_ENTRIES`. `zoo show NAME`
prints one with every default filled in, `zoo register NAME --base MODEL` writes one, and `--set KEY=VALUE` changes a key for
one command. An unknown key is an error that names the nearest known one. Defaults here are those of the format; packaged
entries set their own.

"""
TARGET = """# Keys of a target

A target is one TOML file: `zoo/targets/NAME.toml` of the package, or your own in `ZOO_HOME/targets`. `zoo target measure NAME`
writes one of the machine at hand, `zoo target show NAME` prints one. These come with the package:

| target | machine | GPUs | GiB of each that a process can use |
|---|---|--:|--:|
"""
RECIPE = """# Keys of a recipe

An experiment is a folder with a `recipe.toml`, which `zoo experiment FOLDER --data-dir DATA` runs.

"""


def entry_page() -> str:
    """Every key of an entry."""
    return ENTRY + keys(Entry)


def target_page() -> str:
    """Every key of a target, and the targets that come with the package."""
    rows = []
    for one in (load_target(str(path)) for path in sorted(PACKAGE_FOLDER.glob("*.toml"))):
        room = f"{one.usable_bytes / 2**30:.2f}" if one.usable_bytes else "as the machine has"
        rows.append(f"| `{one.name}` | {_cell(one.description)} | {one.gpus} | {room} |\n")
    return TARGET + "".join(rows) + "\n" + keys(Target)


def recipe_page() -> str:
    """Every key of an experiment's recipe."""
    return RECIPE + keys(Recipe)


def keys(model: type[BaseModel], section: str = "") -> str:
    """A section of a file: what it is for, its keys, then the sections within it."""
    rows, inner = [], []
    for name, field in model.model_fields.items():
        key, found = field.alias or name, list(contracts_of(field.annotation))
        each = ".NAME" if get_origin(field.annotation) is dict else ""
        inner += [(one, f"{section}.{key}{each}".lstrip(".")) for one in found]
        meaning = field.description or (_about(found[0]).split("\n\n")[0] if found else "")
        rows.append(f"| `{key}` | {_type(field.annotation, field.metadata)} | {_default(field)} | {_cell(meaning)} |\n")
    heading = f"## `[{section}]`" if section else "## At the top of the file"
    table = "| key | type | default | meaning |\n|---|---|---|---|\n" + "".join(rows)
    return f"{heading}\n\n{_about(model)}\n\n{table}\n" + "".join(keys(one, place) for one, place in inner)


def contracts_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """The contracts that a key holds, however deep in lists, choices and tables."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation) if get_origin(annotation) is not Literal else ():
        yield from contracts_of(inner)


def _about(model: type[BaseModel]) -> str:
    """A contract's docstring, with lines of a paragraph joined."""
    return "\n\n".join(" ".join(part.split()) for part in (model.__doc__ or "").strip().split("\n\n"))


def _type(annotation: Any, bounds: Any = ()) -> str:
    """A type in words, with what a number may be."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0], inner[1:])
    if origin is Literal:
        return " or ".join(f"`{_toml(value)}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(one, bounds) for one in inner if one is not type(None))
    if origin is tuple:
        return f"list of {_type(inner[0])}" if inner[-1] is ... else f"list of {len(inner)}: {_type(inner[0])}"
    if origin is dict:
        return "sections by name" if any(contracts_of(annotation)) else f"table of {_type(inner[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return PLAIN[annotation] + _bounds(bounds)


def _bounds(metadata: Any) -> str:
    limits = {
        name: getattr(one, name) for one in metadata for name in ("ge", "gt", "le") if getattr(one, name, None) is not None
    }
    words = {"ge": "from", "gt": "above", "le": "up to"}
    return "".join(f" {words[name]} {limit:g}" for name, limit in limits.items())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, BaseModel):
        return "its keys' own"
    if isinstance(value, tuple) and isinstance(value[0], BaseModel):
        return f"`{_toml(tuple(one.model_dump(exclude_defaults=True, exclude_none=True) for one in value))}`"
    return f"`{_toml(value)}`"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
    return '"' + value.replace("\n", "\\n") + '"' if isinstance(value, str) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
