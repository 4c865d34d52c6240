"""Why a plan has its members: what each is worth in it, and what the others would add.

All of it is for people; nothing of it is read when a plan is carried out.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from zoo.contracts import Contract, Seconds

Matrix = tuple[tuple[float, ...], ...]


class Change(Contract):
    """The plan with other members, mostly one more or one less, beside the plan as it is.

    Both are judged out of fold on the same rows by the same folds and the same pool.
    """

    log_loss: float = Field(description="mean log loss a row of the changed plan minus the plan's; below zero it is better")
    standard_error: float = Field(description="of that paired difference, by prompt")
    sure: bool = Field(description="beyond its error by more than chance gives any of as many members that change nothing")
    seconds: float = Field(description="predicted seconds more, without the margin; below zero they are saved")
    budget_seconds: Seconds = Field(description="budget that the changed plan needs, margin included")
    fits: bool = Field(description="whether the plan's own budget is enough")

    @property
    def is_better(self) -> bool:
        return self.sure and self.log_loss < 0


class MemberReason(Contract):
    """One member that was a candidate, in the plan or not."""

    name: str
    oof_log_loss: float = Field(description="alone, as its table says")
    recalibrated_log_loss: float = Field(
        description="alone, after a temperature and a bias of the tie that other folds gave it"
    )
    with_it: Change | None = Field(
        None, description="not in the plan: the plan with it on every row; gated: with it on every row; None: not judged"
    )
    without_it: Change | None = Field(None, description="in the plan: the plan without it; None: the only one, or not judged")
    in_place_of: str | None = Field(
        None,
        description="not in the plan, and too dear beside it: the member whose place it would take; None: no place is enough",
    )
    exchanged: Change | None = Field(None, description="the plan with it in that one's place, on every row; None: not judged")


class Reasons(Contract):
    """Every candidate: the plan's in the order they run, then the others, the best gain first."""

    pool: str = Field(description="what blends the sets that are compared: the plan's pool, or a ridged one beside a slow one")
    rows: Annotated[int, Field(gt=0)] = Field(description="labelled rows that this was judged on, taken evenly")
    members: tuple[MemberReason, ...]
    everyone: Change | None = Field(None, description="the plan with every candidate on every row; None: that is the plan")

    def of(self, name: str) -> MemberReason | None:
        """The reason of the member called `name`; None where there is none."""
        return next((reason for reason in self.members if reason.name == name), None)


def candidate_words(name: str) -> str:
    """The name of a candidate for plans, in words.

    That of a single member begins with the member's own, which stays as it is; "<member> alone" is known by its space.
    """
    return name if " " in name else name.replace("_", " ")


class ErrorCorrelation(Contract):
    """How alike members err, by pairs, each matrix (members, members).

    `correlation`: Pearson's, of their log losses by row. `disagreement`: the share of rows on which they hold different labels
    for the likeliest (the disagreement measure: Kuncheva and Whitaker 2003, Machine Learning 51, 181-207). Members that err
    alike have little to give to one another.
    """

    members: tuple[str, ...]
    correlation: Matrix
    disagreement: Matrix

    @model_validator(mode="after")
    def _check(self) -> ErrorCorrelation:
        count = len(self.members)
        for name, matrix in (("correlation", self.correlation), ("disagreement", self.disagreement)):
            if len(matrix) != count or any(len(row) != count for row in matrix):
                raise ValueError(f"{name}: a number for each pair of the {count} members is wanted")
        return self
