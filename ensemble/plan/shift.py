"""What a plan knows of other battles than those it was fitted on.

Its calibration on labelled battles of another kind, a summary of the rows behind its numbers, and what it lost on groups
that it was fitted without.
"""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, model_validator

from zoo.contracts import Contract, Fraction

Temperature = Annotated[float, Field(ge=0.01, le=100)]  # fitted ones lie between 0.05 and 20
RobustBy = Literal["worst", "mean"]


class RowSummary(Contract):
    """How the features of some rows are distributed, to compare the rows of another file with.

    `quantiles`: of each feature of `ensemble.pools.features.row_features`, at evenly spaced shares from 0 to 1; `scripts`: the
    share of rows by the writing system of the prompt, empty where the rows came without texts.
    """

    rows: Annotated[int, Field(gt=0)]
    quantiles: dict[str, tuple[float, ...]]
    scripts: dict[str, Fraction] = Field({})

    @model_validator(mode="after")
    def _check(self) -> RowSummary:
        for name, values in self.quantiles.items():
            if len(values) < 2 or list(values) != sorted(values):
                raise ValueError(f"quantiles of {name}: at least two, none below the one before")
        return self


class End(Contract):
    """The quarter of the fitting rows at one end of a feature, and what it cost.

    `cost`: log loss on these rows of weights fitted to the other prompts, less that of weights fitted by ordinary folds. The
    members are the same in both: what they themselves would lose is not in it.
    """

    feature: str
    end: Literal["low", "high"]
    rows: Annotated[int, Field(gt=0)]
    cost: float
    cost_se: Annotated[float, Field(ge=0)]


class FittingRows(Contract):
    """The rows that a plan was fitted on, as later commands compare theirs with them.

    `known`: a Bloom filter of their texts, base64, by which `ensemble recalibrate` leaves out rows that are in the fit; empty
    where they came without texts.
    """

    summary: RowSummary
    ends: tuple[End, ...] = ()
    known: str = ""

    @model_validator(mode="after")
    def _check(self) -> FittingRows:
        base64.b64decode(self.known, validate=True)  # its error is a ValueError
        return self


class HeldGroup(Contract):
    """A group of the fitting rows, and the log loss on it of a build without it."""

    name: str
    rows: Annotated[int, Field(gt=0)]
    log_loss: float
    log_loss_se: Annotated[float, Field(ge=0)] | None


class Robust(Contract):
    """The groups of `column` that were left out in turn.

    `by`: whether the plan was chosen by the worst of them or by their mean.
    """

    column: str
    by: RobustBy
    groups: tuple[HeldGroup, ...]


class Calibration(Contract):
    """What is done to the plan's blend on battles of another kind, fitted on labelled ones.

    `ensemble.pools.calibration.apply_numbers` carries it out: softmax of ((1 - equal_share) log p + equal_share log e) /
    temperature + tie_bias for a tie, where e is the mean of the members' triples. It is the identity where `kept` is false: by
    the folds it surely hurt. Log losses are out of fold: every row is judged by what the other prompts' rows fitted. Whether
    there is a share of equal weights was chosen on all rows.
    """

    temperature: Temperature = 1.0
    tie_bias: float = 0.0
    equal_share: Fraction = 0.0
    kept: bool
    battles: str = Field(description="name of the file")
    dataset_digest: str
    rows: Annotated[int, Field(gt=0)]
    prompts: Annotated[int, Field(gt=0)]
    also_in_fit: Annotated[int, Field(ge=0)] = Field(description="rows of the file left out, since the plan was fitted on them")
    unscored: Annotated[int, Field(ge=0)] = Field(0, description="rows of the file that no member has scored")
    log_loss_before: float
    log_loss_before_se: Annotated[float, Field(ge=0)]
    log_loss: float
    log_loss_se: Annotated[float, Field(ge=0)]
    gain: float
    gain_se: Annotated[float, Field(ge=0)]
    members_from: dict[str, str] = Field(description="where each member's probabilities came from")
    made_from: str = Field(description="name and digest of the plan that was recalibrated")
    made_at: datetime
    summary: RowSummary

    @property
    def is_identity(self) -> bool:
        """Whether it leaves every row as it is."""
        return self.temperature == 1.0 and self.tie_bias == 0.0 and self.equal_share == 0.0
