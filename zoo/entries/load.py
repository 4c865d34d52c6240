"""Find an entry's TOML file, read it, and say plainly what is wrong with it."""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from zoo.contracts import EarlierTraining, Entry, ExtraFile, TrainSpec, Variant, changed, explain
from zoo.errors import ZooError
from zoo.settings import entry_folders, read_toml

Trained = TypeVar("Trained", TrainSpec, EarlierTraining)


def load_entry(name: str) -> Entry:
    """The entry of that name; the user's folders come before the package's own.

    ZooError where there is none.
    """
    return read_entry(entry_path(name))


def entry_path(name: str) -> Path:
    """The file that `load_entry` reads."""
    for folder in reversed(entry_folders()):
        path = folder / f"{name}.toml"
        if os.path.lexists(path):  # a broken link is named as what it is
            return path
    raise ZooError(f"no entry {name!r}; {_suggest(name, entry_names())}")


def load_variant(text: str) -> tuple[Entry, Variant]:
    """The entry and the variant that ENTRY@VARIANT means; ENTRY alone means its first variant.

    ZooError where there is no such entry or variant.
    """
    name, at, slug = text.partition("@")
    entry = load_entry(name)
    variants = entry.score.variants if entry.score else (Variant(),)
    found = next((variant for variant in variants if not at or variant.slug == slug), None)
    if found is None:
        raise ZooError(f"{text}: {name} has no variant {slug!r}; it has {', '.join(variant.slug for variant in variants)}")
    return entry, found


def entry_names() -> list[str]:
    """Names of all entries, sorted, without reading them.

    A broken file of one entry must not hide the others.
    """
    return sorted({path.stem for folder in entry_folders() for path in folder.glob("*.toml")})


def read_entry(path: Path) -> Entry:
    """Read one entry file. ZooError names the file, the key and the nearest known key."""
    entry = read_toml(path, Entry)
    if entry.name != path.stem:
        raise ZooError(f'{path}: name = "{entry.name}" differs from the file name; rename one of them')
    return entry


def _suggest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def with_files_from(entry: Entry, folder: Path) -> Entry:
    """The entry with the relative paths among its files taken from `folder`.

    The files are those of train.teacher and train.extra, the same of train.first, and lexical.extra.
    """
    if entry.lexical is not None and entry.lexical.extra:
        return changed(entry, lexical=changed(entry.lexical, extra=_from(entry.lexical.extra, folder)))
    if entry.train is None:
        return entry
    train = _files_from(entry.train, folder)
    if train.first is not None:
        train = changed(train, first=_files_from(train.first, folder))
    return changed(entry, train=train)


def _files_from(spec: Trained, folder: Path) -> Trained:
    teacher = spec.teacher if spec.teacher is None else folder / spec.teacher  # an absolute one stays as it is
    return changed(spec, teacher=teacher, extra=_from(spec.extra, folder))


def _from(files: tuple[ExtraFile, ...], folder: Path) -> tuple[ExtraFile, ...]:
    return tuple(changed(one, file=folder / one.file) for one in files)


def override(entry: Entry, settings: list[str]) -> Entry:
    """An entry with `key=value` settings replaced, e.g. `train.epochs=2`.

    Values are TOML, bare words are text.
    """
    data: dict[str, Any] = entry.model_dump(mode="json", exclude_none=True)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ZooError(f"--set {setting}: write KEY=VALUE, e.g. train.epochs=2")
        try:
            value = tomllib.loads(f"x = {text}")["x"]
        except (ValueError, RecursionError):
            value = text
        *path, last = key.split(".")
        place = data
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ZooError(f"--set {setting}: {part!r} is a value, not a section of the entry")
        place[last] = value
    try:
        return Entry.model_validate(data)
    except ValidationError as error:
        raise ZooError(f"--set: {explain(error, Entry)}") from error
