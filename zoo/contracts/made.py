"""Requests of the stages that make training data: prompts, generate, mine, judge, label."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from zoo.contracts.base import BaseRequest, Contract, Input, Name, Positive, added_later
from zoo.contracts.scoring import Variant


class Sampling(Contract):
    """How answers are sampled.

    With the model, what was said before and the seed it makes an answer that very answer.
    """

    temperature: float = Field(0.7, ge=0, le=2, description="0: the likeliest token each time")
    top_p: float = Field(0.95, gt=0, le=1)
    max_tokens: Positive = Field(1024, description="of each answer; one that is longer is cut")
    context: Positive = Field(8192, description="tokens of a conversation and its answer, where the model takes so many")


class GenerateRequest(BaseRequest):
    """Answers of one model to the prompts of a file.

    `samples` to each prompt, by seeds from `seed` on. A ceiling says how far the request goes, not what an answer is: another
    one finds all answers again. With one, prompts are asked in the order of their hashes by `rows_seed`.
    """

    stage: Literal["generate"] = "generate"
    revision: int = 2  # conversation ids tell weights and sampling apart
    model: Input
    prompts: Input
    rows: Positive | None = Field(None, description="at most this many prompts, a sample by `rows_seed`")
    rows_seed: Annotated[int, Field(ge=0)] = 0
    sampling: Sampling = Sampling()
    samples: Annotated[int, Field(ge=1, le=1024)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    chunk_answers: Positive = Field(256, description="answers between two files on disk: what a killed run can lose")
    licence: str = Field(description="of the model")
    source: str = Field(min_length=1, max_length=200, description="of prompts that name none")
    prompt_licence: str | None = Field(None, min_length=1, max_length=200, description="of prompts that name none")
    accept: Positive | None = added_later(None, description="end at so many rows with usable answers")
    gpu_hours: Annotated[float, Field(gt=0)] | None = added_later(
        None, description="begin nothing after so many, those of requests that differ by ceilings alone included"
    )


class PromptsRequest(BaseRequest):
    """Prompts of a pool for models to answer, like a target's or where held-out loss is worst."""

    stage: Literal["prompts"] = "prompts"
    pool: Input
    like: Input | None = Field(None, description="prompts or battles that the chosen ones are to be like")
    worst_of: tuple[Input, ...] = Field((), description="out-of-fold tables of `battles`, whose loss says where")
    battles: Input | None = Field(None, description="with labels")
    never: tuple[Input, ...] = Field((), description="files whose prompts, and near-copies of them, are left out")
    rows: Positive = Field(description="how many")
    floor: Annotated[float, Field(ge=0.01, le=1)] = Field(0.15, description="the share that chance alone draws")
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _check(self) -> PromptsRequest:
        if (self.like is None) != bool(self.worst_of) or bool(self.worst_of) != (self.battles is not None):
            raise ValueError("give either `like`, or `worst_of` with its `battles`")
        return self


class Log(Contract):
    """A log of conversations, and what its rows are where they do not say so themselves."""

    file: Input
    source: str = Field(min_length=1, max_length=200)
    licence: str | None = Field(None, min_length=1, max_length=200)


class MineRequest(BaseRequest):
    """Pairs of different models' answers to one prompt, from logs."""

    stage: Literal["mine"] = "mine"
    revision: int = 2  # every row has its language; invisible characters and surroundings of short questions hide no copies
    logs: Annotated[tuple[Log, ...], Field(min_length=1)]
    never: tuple[Input, ...] = Field((), description="battles whose prompts, and near-copies of them, are left out")
    judged: tuple[Input, ...] = Field((), description="preferences: only pairs that they judge")
    rows: Positive | None = Field(None, description="at most this many pairs")
    per_prompt: Positive | None = Field(None, description="at most this many pairs of one prompt")
    most_characters: Positive = Field(description="of a conversation; longer ones are counted and left out")
    languages: tuple[str, ...] = added_later((), description="codes; prompts that are in another one are left out")
    seed: Annotated[int, Field(ge=0)] = 0


class FoldJudge(Contract):
    """One fold's model as a judge: what it was trained as, and its score artifacts.

    `human`: of the human battles of its fold, which it has not seen; `pairs`: of the pairs whose prompts it has not seen, None
    where there are none.
    """

    fold: Annotated[int, Field(ge=0)]
    trained: Input
    human: Input
    pairs: Input | None = None


class EntryJudge(Contract):
    """An entry as a judge: the models of all its folds, and which of its variants are asked."""

    name: Name
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    folds: Annotated[tuple[FoldJudge, ...], Field(min_length=1)]


class JudgeRequest(BaseRequest):
    """Pairs and human battles as trained entries judge them.

    Each row by models that have not seen its prompt.
    """

    stage: Literal["judge"] = "judge"
    pairs: Input
    human: Input = Field(description="the labelled battles that the judges' folds are of")
    judges: Annotated[tuple[EntryJudge, ...], Field(min_length=1)]


Drop = Literal["identical", "empty", "cut", "near-duplicate", "coin-flip", "other-language", "language"]


class LabelRequest(BaseRequest):
    """Judges' verdicts on pairs as shares of human votes."""

    stage: Literal["label"] = "label"
    revision: int = 2  # every row has its language; tables of models that learned from the human battles certify nothing
    pairs: Input
    judges: tuple[Input, ...] = Field((), description="tables of verdicts; none: the pairs' own winners are the judge's")
    names: tuple[str, ...] = Field((), description="of the judges, in their order")
    human: Input
    source: str = Field(min_length=1, max_length=200, description="of pairs that name none")
    maps: Input | None = Field(None, description="an earlier label's report, whose maps serve sources that no human judged")
    drop: tuple[Drop, ...] = ()
    languages: tuple[str, ...] = added_later((), description="codes of those that the filter `language` leaves")

    @model_validator(mode="after")
    def _check(self) -> LabelRequest:
        if ("language" in self.drop) != bool(self.languages):
            raise ValueError("drop has `language` where languages are named, and only there")
        if len(self.names) != len(self.judges):
            raise ValueError(f"{len(self.judges)} judges have {len(self.names)} names; each needs one")
        return self
