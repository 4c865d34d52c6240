"""The base of every contract: frozen data in which an unknown key is an error.

Beside it, the few types that all of them share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1
LABELS = ("a", "b", "tie")  # the order of every probability triple in this project

Order = Literal["ab", "ba"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(ge=0)]
FoldRule = Literal["near-prompts-1"]  # zoo/data/near.py
EACH_PROMPT = "prompts"  # what people call the absence of a fold rule: each prompt goes by its own hash
Say = Callable[[str], None]  # takes one line for people; whoever runs a command decides where it appears
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)]


class Contract(BaseModel):
    """Frozen data in which an unknown key is an error.

    So is a number that is infinite or NaN.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


AnyContract = TypeVar("AnyContract", bound=Contract)


def changed(contract: AnyContract, **fields: object) -> AnyContract:
    """A copy with some fields changed, checked like a new one.

    pydantic's `model_copy` checks nothing.
    """
    names = {name: field.alias or name for name, field in type(contract).model_fields.items()}
    return type(contract).model_validate({names.get(name, name): value for name, value in {**dict(contract), **fields}.items()})


def added_later(default: Any, *, description: str | None = None) -> Any:
    """A field that is left out of JSON where it has its default.

    For what a contract did not have from the start: requests that do not use it keep the fingerprints that they had before.
    """
    return Field(default, exclude_if=lambda value: value == default, description=description)
