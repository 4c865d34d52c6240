"""The space of `zoo tune`: which settings of training a trial may draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field, ValidationError, model_validator

from zoo.contracts import Contract, Entry, TrainSpec, changed, explain
from zoo.errors import ZooError
from zoo.settings import read_toml

Value = bool | int | float
WHOLE = ("rank", "batch_rows")  # settings that are whole numbers
OF_ADAPTERS = ("rank", "alpha_ratio", "dropout", "rslora")  # settings that a full fine-tuning has not
OF_START = ("rank", "alpha_ratio", "rslora")  # what an adapter that a training goes on from has settled
DIGITS = 3  # of a number that is drawn: more say nothing, and cannot be read


class Knob(Contract):
    """What one setting may be.

    A number from `low` to `high`, drawn on a log scale on request, or one of `choices`.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Value, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Knob:
        if self.choices:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("give low and high, or choices, not both")
            if len(set(map(str, self.choices))) < len(self.choices):
                raise ValueError("choices: name each once")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, as in { low = 1e-4, high = 1e-3, log = true }, or choices = [8, 16, 32]")
        if self.low >= self.high:
            raise ValueError(f"low = {self.low:g} is not below high = {self.high:g}; exchange them, or leave the setting out")
        if self.log and self.low <= 0:
            raise ValueError(f"low = {self.low:g}: a log scale has no place for it; give a low above 0, or log = false")
        return self

    @property
    def ends(self) -> tuple[Value, ...]:
        """Values that must be allowed for all of them to be."""
        return self.choices or tuple(end for end in (self.low, self.high) if end is not None)


class Space(Contract):
    """Settings that trials draw, by their names in [train].

    `alpha_ratio` is alpha / rank: where it is not drawn, a rank that is drawn keeps the entry's.
    """

    learning_rate: Knob | None = None
    epochs: Knob | None = None
    rank: Knob | None = None
    alpha_ratio: Knob | None = Field(None, description="alpha / rank")
    dropout: Knob | None = None
    rslora: Knob | None = None
    warmup_fraction: Knob | None = None
    label_smoothing: Knob | None = None
    weight_decay: Knob | None = None
    batch_rows: Knob | None = None
    swap_orders: Knob | None = None
    teacher_weight: Knob | None = None
    teacher_temperature: Knob | None = None
    extra_weight: Knob | None = None

    def knobs(self) -> Iterator[tuple[str, Knob]]:
        """The settings that are drawn, in their order above."""
        yield from ((name, knob) for name, knob in self if knob is not None)


def default_space(spec: TrainSpec) -> Space:
    """What is worth trying around an entry's settings, for its method; its own values are in it.

    The learning rate first: five times either way. The others over what papers and the entries here use.
    """
    ratio = spec.alpha / spec.rank
    around = {
        "learning_rate": Knob(low=_short(spec.learning_rate / 5), high=_short(spec.learning_rate * 5), log=True),
        "epochs": Knob(choices=tuple(_short(spec.epochs * factor) for factor in (0.5, 1, 2))),
        "rank": Knob(choices=tuple(sorted({max(1, spec.rank // 2), spec.rank, 2 * spec.rank}))),
        "alpha_ratio": Knob(low=_short(ratio / 4), high=_short(ratio * 4), log=True),
        "dropout": Knob(low=0.0, high=max(0.1, spec.dropout)),
        "warmup_fraction": Knob(low=0.0, high=max(0.2, spec.warmup_fraction)),
        "label_smoothing": Knob(low=0.0, high=max(0.1, spec.label_smoothing)),
        "weight_decay": Knob(low=0.0, high=max(0.1, spec.weight_decay)),
    }
    return Space(**{name: knob for name, knob in around.items() if not why_not(name, spec)})


def load_space(path: Path, entry: Entry) -> Space:
    """A space that people have written.

    ZooError names the file and the key that is no setting, or none of this entry.
    """
    space = read_toml(path, Space)
    if entry.train is None:
        raise ZooError(f"{entry.name}: {entry.a_kind} has no [train] to tune")
    if not any(True for _ in space.knobs()):
        raise ZooError(f"{path}: names no setting; give one, as in [learning_rate] with low, high and log = true")
    for name, knob in space.knobs():
        if reason := why_not(name, entry.train):
            raise ZooError(f"{path}: `{name}`: {reason}; leave it out")
        for value in knob.ends:
            _check(path, name, value, entry.train)
    return space


def why_not(name: str, spec: TrainSpec) -> str:
    """Why a setting does nothing for this training; empty where it does something."""
    if name in OF_ADAPTERS and spec.method == "full":
        return "is of adapters, and train.method = 'full' has none"
    if name in OF_START and spec.start is not None:
        return "is settled by the adapter in train.start"
    if name.startswith("teacher_") and spec.teacher is None:
        return "is of a teacher, and the entry has no train.teacher"
    return "is of extra battles, and the entry has no train.extra" if name == "extra_weight" and not spec.extra else ""


def _check(path: Path, name: str, value: Value, spec: TrainSpec) -> None:
    if isinstance(value, bool) != isinstance(getattr(spec, name, 0), bool):
        raise ZooError(f"{path}: `{name}`: {str(value).lower()} is no value of it; it is {_kind(name, spec)}")
    if name in WHOLE and value != int(value):
        raise ZooError(f"{path}: `{name}`: {value:g} is no whole number; it is {_kind(name, spec)}")
    if name == "alpha_ratio" and value <= 0:
        raise ZooError(f"{path}: `alpha_ratio`: {value:g} is not above 0; give ratios of alpha to rank, as in 2")
    try:
        with_drawn(spec, {name: value})
    except ValidationError as error:
        raise ZooError(f"{path}: {explain(error, TrainSpec)}") from error


def _kind(name: str, spec: TrainSpec) -> str:
    own = getattr(spec, name)
    return "true or false: give choices = [true, false]" if isinstance(own, bool) else f"a number, {own:g} in the entry"


class Drawing(Protocol):
    """What a trial of Optuna's can be asked for."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int: ...

    def suggest_categorical(self, name: str, choices: tuple[Value, ...]) -> Any: ...


def draw(space: Space, trial: Drawing) -> dict[str, Value]:
    """A value for each setting of the space."""
    return {name: _draw(name, knob, trial) for name, knob in space.knobs()}


def _draw(name: str, knob: Knob, trial: Drawing) -> Value:
    if knob.choices:
        found: Value = trial.suggest_categorical(name, knob.choices)
        return int(found) if name in WHOLE else found
    assert knob.low is not None and knob.high is not None
    if name in WHOLE:
        return trial.suggest_int(name, int(knob.low), int(knob.high), log=knob.log)
    return min(max(_short(trial.suggest_float(name, knob.low, knob.high, log=knob.log)), knob.low), knob.high)


def own_values(space: Space, spec: TrainSpec) -> dict[str, Value]:
    """The entry's own values of the settings that are drawn, where the space has them."""
    own = {name: (spec.alpha / spec.rank if name == "alpha_ratio" else getattr(spec, name)) for name, _ in space.knobs()}
    return {name: own[name] for name, knob in space.knobs() if _holds(knob, own[name])}


def _holds(knob: Knob, value: Value) -> bool:
    if knob.choices:
        return value in knob.choices
    return knob.low is not None and knob.high is not None and knob.low <= value <= knob.high


def with_drawn(spec: TrainSpec, drawn: Mapping[str, Value]) -> TrainSpec:
    """The settings of a training with what was drawn.

    pydantic's ValidationError where that is none.

    A rank that changes takes alpha with it, by the ratio that was drawn or the entry's.
    """
    fields: dict[str, Any] = {name: value for name, value in drawn.items() if name != "alpha_ratio"}
    if "rank" in drawn or "alpha_ratio" in drawn:
        rank, ratio = drawn.get("rank", spec.rank), drawn.get("alpha_ratio", spec.alpha / spec.rank)
        fields["alpha"] = max(1, round(ratio * rank))
    return changed(spec, **fields)


def differing(spec: TrainSpec, own: TrainSpec) -> dict[str, Value]:
    """The settings of a trial that are not the entry's, by their names in [train]."""
    names = {"alpha", *(name for name in Space.model_fields if name in TrainSpec.model_fields)}
    return {name: value for name, value in spec if name in names and value != getattr(own, name)}


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
