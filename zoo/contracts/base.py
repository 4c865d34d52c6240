"""The base of every contract: frozen data in which an unknown key is an error.

Beside it, what all requests share: inputs by content, and the fields of each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator

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


class Input(Contract):
    """Something a stage reads.

    `fingerprint` says what it is; `path` says where it lies now and is not part of identity. `place` is the path where it is
    known, None where it is not: a plan's requests name no place of the machine that built it. JSON has the key `path` in either
    case, empty where no place is known.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    place: Path | None = Field(None, alias="path")
    fingerprint: str
    unusable: str | None = Field(
        None,
        exclude=True,
        description="of battles: digest of the ids that cannot be used: not in `fingerprint`, but in scoring requests",
    )

    @property
    def path(self) -> Path:
        """Where it lies.

        ValueError where that is not known: the request has to be given its inputs before it can run.
        """
        if self.place is None:
            raise ValueError(f"the input {self.fingerprint} has no path; a request needs the paths of its inputs to run")
        return self.place

    @field_validator("place", mode="before")
    @classmethod
    def _unknown(cls, path: object) -> object:
        return None if path == "" else path

    @field_serializer("place", when_used="json")
    def _known(self, path: Path | None) -> str:
        return "" if path is None else str(path)


class BaseRequest(Contract):
    """Fields every stage request has. `stage` picks the function, the rest is its argument.

    `revision` is raised in a subclass when the stage's code gives other results for the same request, so that nothing made by
    the old code is taken for new.
    """

    stage: str
    schema_version: int = SCHEMA_VERSION
    revision: int = 1
    entry: Name

    @property
    def inputs(self) -> dict[str, Input]:
        """What the stage reads, by field name.

        Not what lies deeper: a selection's list of ids, adapters beyond the first.
        """
        return {name: value for name, value in self if isinstance(value, Input)}


def say_step(say: Say, done: int, total: int, text: str) -> None:
    """Say that a step of many begins.

    As a bar where `say` has one (its attribute `step`), else as a line.
    """
    step = getattr(say, "step", None)
    if step is None:
        say(text)
    else:
        step(done, total, text)
