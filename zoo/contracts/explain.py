"""A validation error as one line: the key at fault, and the key that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """A pydantic error as one line.

    The first fault with its key and, for an unknown key, the nearest known one.
    """
    faults = error.errors(include_url=False, include_context=False)
    # Unknown keys first: a misspelt key is the cause of "field required" beside it.
    fault = min(faults, key=lambda f: f["type"] != "extra_forbidden")
    place = [str(part) for part in fault["loc"]]
    if fault["type"] == "extra_forbidden":
        message = f"unknown key `{'.'.join(place)}`; {_known_keys(place, model)}"
    elif fault["type"] == "missing":
        message = f"key `{'.'.join(place)}` is missing"
    else:
        text = _own_words(fault["msg"])
        got = f", got {fault['input']!r}" if place and isinstance(fault["input"], str | int | float | bool) else ""
        message = f"`{'.'.join(place)}`: {text}{got}" if place else text
    return message + (f" (and {len(faults) - 1} more)" if len(faults) > 1 else "")


def first_fault(error: ValidationError) -> str:
    """The first fault of a file that a machine wrote: its dotted key and what is wrong with it."""
    fault = error.errors(include_url=False, include_context=False)[0]
    return ": ".join(part for part in (".".join(map(str, fault["loc"])), _own_words(fault["msg"])) if part)


def _own_words(message: str) -> str:
    """A validator's own text: pydantic puts the kind of exception before it."""
    return message.removeprefix("Value error, ")


def _known_keys(place: list[str], model: type[BaseModel]) -> str:
    """What to write in place of an unknown key.

    The nearest key of its own section, else the same key in another section, else all keys.
    """
    sections = dict(_sections(model))
    *parents, key = place
    parents = [p for p in parents if not p.isdigit()]
    own = sections.get(".".join(parents)) or sections.get(".".join([*parents[:-1], "*"])) or ()
    near = difflib.get_close_matches(key, own, n=1, cutoff=0.6)
    if near:
        return f"did you mean `{near[0]}`?"
    for section, keys in sections.items():
        if key in keys:
            return f"it belongs in [{section}]" if section else "it belongs at the top of the file"
    return f"known: {', '.join(own)}"


def _sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    """Dotted section names with their keys, for a model and the models inside it.

    `*` stands for the keys of a mapping.
    """
    yield prefix, tuple(model.model_fields)
    for name, field in model.model_fields.items():
        inner = f"{prefix}.{name}" if prefix else name
        for found, is_mapping in _models_in(field.annotation):
            yield from _sections(found, f"{inner}.*" if is_mapping else inner)


def _models_in(annotation: Any, is_mapping: bool = False) -> Iterator[tuple[type[BaseModel], bool]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, is_mapping
        return
    for argument in get_args(annotation):
        yield from _models_in(argument, is_mapping or getattr(annotation, "__origin__", None) is dict)
