"""TOML for people: settings with comments, and any contract written out whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomlkit
from tomlkit.items import InlineTable, Item

from zoo.contracts import Contract


def contract_toml(contract: Contract) -> str:
    """A contract, an entry or a target say, as TOML with its defaults filled in."""
    return document(contract.model_dump(mode="json", exclude_none=True))


def document(settings: Mapping[str, Any], comments: Mapping[str, str] | None = None, *, head: str = "") -> str:
    """Nested settings as TOML text.

    `comments` stand behind what they are about, by dotted name; `head` is the first line.
    """
    found = tomlkit.document()
    if head:
        found.add(tomlkit.comment(head))
    fill(found, settings, comments or {}, "")
    return tomlkit.dumps(found)


def fill(place: Any, settings: Mapping[str, Any], comments: Mapping[str, str], prefix: str) -> None:
    """Put settings into a document or table: plain ones, then the tables inside it.

    A table of nothing is left out.
    """
    for key, value in sorted(settings.items(), key=lambda pair: isinstance(pair[1], Mapping)):
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            item: Item = tomlkit.table(is_super_table=all(isinstance(inner, Mapping) for inner in value.values()))
            fill(item, value, comments, f"{name}.")
            if not item:
                continue
        else:
            item = plain_item(value)
        if name in comments:
            item.comment(comments[name])
        place.add(key, item)


def plain_item(value: Any) -> Item:
    """A value as it stands behind its key.

    Texts of several lines as they are, tables inside lists on one line.
    """
    if isinstance(value, str):  # a lone carriage return would be read as the end of a line
        return tomlkit.string(value, multiline="\n" in value.strip() and "\r" not in value)
    if isinstance(value, list | tuple):
        array = tomlkit.array()
        for inner in value:
            array.append(inline_table(inner) if isinstance(inner, Mapping) else plain_item(inner))
        return array
    item: Item = tomlkit.item(value)
    return item


def inline_table(settings: Mapping[str, Any]) -> InlineTable:
    table = tomlkit.inline_table()
    for key, value in settings.items():
        table.add(key, plain_item(value))
    return table
