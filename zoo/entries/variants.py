"""Put further variants into an entry's TOML file, and leave everything else in it as it is."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import ValidationError
from tomlkit.items import AoT

from zoo.contracts import Entry, Variant, explain
from zoo.entries.load import entry_path, read_entry
from zoo.entries.toml import inline_table, plain_item
from zoo.errors import ZooError
from zoo.settings import new_entries_folder, user_entry_folders
from zoo.store import write_atomic


def add_variants(name: str, variants: Sequence[Variant]) -> tuple[Path, list[Variant]]:
    """Write the variants that an entry lacks into its `score.variants`.

    Returns the file, which is the user's own (`rewrite_entry`), and which they were.
    """
    entry = read_entry(entry_path(name))
    known = entry.score.variants if entry.score else ()
    new = [variant for variant in variants if variant not in known]
    return rewrite_entry(name, lambda document: _add(document, known, new), "the variants"), new


def rewrite_entry(name: str, change: Callable[[Any], None], what: str) -> Path:
    """Change an entry's TOML file; comments stay. Returns the file.

    An entry of the user's own is changed where it lies. One that came with a package is copied to the folder where
    `zoo register` writes, and the copy goes before it. ZooError, which calls the change by `what`, where the entry would not be
    one any more.
    """
    found = entry_path(name)
    path = found if is_own(found) else new_entries_folder() / found.name
    before = found.read_text(encoding="utf-8-sig")
    document = tomlkit.parse(before)
    change(document)
    text = tomlkit.dumps(document)
    if text == before and path == found:
        return path
    try:
        Entry.model_validate(tomllib.loads(text))
    except ValidationError as error:
        raise ZooError(f"{found}: {what} do not fit it: {explain(error, Entry)}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)
    return path


def is_own(path: Path) -> bool:
    """Whether an entry's file is the user's, and not part of an installed package."""
    return path.parent.resolve() in [folder.resolve() for folder in user_entry_folders()]


def with_variants(text: str, known: Sequence[Variant], new: Sequence[Variant]) -> str:
    """An entry's TOML with further variants behind the `known` ones; comments stay."""
    document = tomlkit.parse(text)
    _add(document, known, new)
    return tomlkit.dumps(document)


def _add(document: Any, known: Sequence[Variant], new: Sequence[Variant]) -> None:
    if not new:
        return
    score: Any = document.setdefault("score", tomlkit.table())
    if "variants" not in score:
        score["variants"] = plain_item([_settings(variant) for variant in known])
    place = score["variants"]
    for variant in new:
        if isinstance(place, AoT):
            table = tomlkit.table()
            table.update(_settings(variant))
            place.append(table)
        else:
            place.append(inline_table(_settings(variant)))
    if not isinstance(place, AoT):
        place.multiline(True)


def _settings(variant: Variant) -> dict[str, Any]:
    return variant.model_dump(mode="json", exclude_none=True)
