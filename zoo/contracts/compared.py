"""Requests that compare what was trained: a model's forms, its caps, trainings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from zoo.contracts.base import BaseRequest, Contract, Input, Name, Order, Positive, added_later
from zoo.contracts.forms import Scheme
from zoo.contracts.model import PromptSpec
from zoo.contracts.rows import Held, Selection
from zoo.contracts.scoring import Variant
from zoo.contracts.training import Scale

Hours = Annotated[float, Field(ge=0)]


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
