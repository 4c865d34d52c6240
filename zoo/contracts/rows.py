"""Which rows of a battles file a stage learns from or answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from zoo.contracts.base import Contract, FoldRule, Input, Positive, added_later


def fold_rule_key() -> Any:
    """The key of a fold rule in a contract."""
    return added_later(None, description="how prompts are dealt into folds (zoo/data/splits.py); None: each by its own hash")


class Held(Contract):
    """Which rows of a labelled file a stage may learn from.

    These are all rows but fold `fold` of `n_folds`, which go by prompt and `rule`.
    """

    n_folds: Annotated[int, Field(ge=2)] = Field(5, description="into how many folds prompts are dealt")
    fold: Annotated[int, Field(ge=0)] = Field(0, description="the one that is held out")
    rule: FoldRule | None = fold_rule_key()

    @model_validator(mode="after")
    def _check(self) -> Held:
        if self.fold >= self.n_folds:
            raise ValueError(f"fold {self.fold} is not one of {self.n_folds}, which are numbered from 0")
        return self


class Selection(Contract):
    """Which rows of a battles file to score.

    `held_out`: the rows of fold `held.fold` (a language model), or every row by the model that did not see it (lexical).
    `all`: every row. `listed`: the ids in `ids.path`, a text file of one id a line, scored in that order.
    """

    rows: Literal["held_out", "all", "listed"] = "held_out"
    ids: Input | None = None
    max_rows: Positive | None = Field(None, description="at most this many of them, a sample by hash of the id")
    diagnostic: bool = added_later(False, description="a ladder's sample: its table is no member's")
