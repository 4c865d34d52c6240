"""The fold that a run holds out, from what its user asks for."""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.contracts import Held, Say

N_FOLDS = 5  # where nobody says


class Rule(StrEnum):
    """How prompts are dealt into folds; `prompts` is what requests without a rule mean."""

    near_prompts = "near-prompts-1"
    prompts = "prompts"


def held_of(fold: int | None, folds: int, rule: Rule | None, data: Path, *, say: Say) -> Held:
    """The fold that is asked for; ZooError where there is none.

    Without a rule the battles of `data` say which one serves.
    """
    from zoo.contracts import Held

    if fold is not None and fold >= folds:
        raise ZooError(f"--fold {fold}: folds are numbered 0 to {folds - 1}")
    rule = rule or _rule_of(data, folds, say)
    return Held(n_folds=folds, fold=fold or 0, rule=None if rule is Rule.prompts else rule.value)


def _rule_of(data: Path, folds: int, say: Say) -> Rule:
    from zoo.data.battles import read_battles
    from zoo.data.splits import rule_that_serves

    with suppress(ZooError):  # a file that cannot be read is told of where it is used
        if rule_that_serves(read_battles(data).frame, folds) is None:
            say(
                f"{data.name}: its prompts are too few groups of near-copies for {folds} folds, so each prompt goes alone "
                "(--fold-rule prompts); a held-out prompt may have near-copies among those that are learned from"
            )
            return Rule.prompts
    return Rule.near_prompts
