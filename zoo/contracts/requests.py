"""Requests: what each stage is asked, one type a stage.

`Request` at the end of this file is the union of them all, told apart by `stage`; which stages there are follows from it. Those
that make training data are in `zoo.contracts.made`, those that compare what was trained in `zoo.contracts.compared`.
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
    added_later,
)
from zoo.contracts.compared import CapsRequest, EvaluateRequest, LadderRequest
from zoo.contracts.cost import Cost
from zoo.contracts.entry import Answer, LexicalSpec
from zoo.contracts.forms import QuantizeSpec
from zoo.contracts.made import GenerateRequest, JudgeRequest, LabelRequest, MineRequest, PromptsRequest
from zoo.contracts.model import Base, PromptSpec
from zoo.contracts.rows import Held, Selection, fold_rule_key
from zoo.contracts.scoring import ScoreSpec, ServeSpec, Variant
from zoo.contracts.training import Head, MergeSpec, TrainSpec


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


class LexicalTrainRequest(BaseRequest):
    stage: Literal["lexical-train"] = "lexical-train"
    battles: Input
    spec: LexicalSpec
    rule: FoldRule | None = fold_rule_key()
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
    rule: FoldRule | None = fold_rule_key()
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
