"""A member that lacks rows is weighed against what they are worth, and its share of the loss is told."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ensemble.members.rows import shared_rows
from zoo.scores.tables import score_table

ROWS = 600
RNG = np.random.default_rng(0)
ODDS = RNG.normal(size=(ROWS, 3)) * 1.4
Y = (ODDS + RNG.gumbel(size=ODDS.shape)).argmax(axis=1)
IDS = [f"r{i:03}" for i in range(ROWS)]
LABELS = pd.Series(Y, index=IDS)
GROUPS = {row_id: i // 2 for i, row_id in enumerate(IDS)}


def frame(see: float, rows: slice = slice(None), seed: int = 1) -> pd.DataFrame:
    p = np.exp(ODDS * see + np.random.default_rng(seed).normal(size=ODDS.shape) * 0.3)
    return score_table(IDS, p / p.sum(axis=1, keepdims=True)).iloc[rows].set_index("id")


def shared(frames: dict[str, pd.DataFrame], asked: tuple[str, ...] = ()):
    return shared_rows(list(frames), list(frames.values()), LABELS, GROUPS, asked)


def test_a_few_rows_of_a_weak_member_are_not_bought_with_all_others() -> None:
    found = shared({"weak": frame(0.3, slice(0, 24)), "good": frame(0.9), "fair": frame(0.6)})
    assert found.kept == (1, 2) and len(found.ids) == ROWS
    assert found.reasons[0].startswith("it would cost 576 of the 600 rows that the others share, worth 0.1800 nats, and gains ")
    asked = shared({"weak": frame(0.3, slice(0, 24)), "good": frame(0.9)}, ("weak",))
    assert asked.kept == (0, 1) and len(asked.ids) == 24 and not asked.reasons


def test_a_good_member_of_one_fold_is_worth_the_rows_that_it_lacks() -> None:
    """A language model on its held-out fold beside a lexical one of every row: the fold is what both are blended on."""
    fold = slice(0, None, 5)
    found = shared({"language": frame(0.9, fold), "again": frame(0.85, fold, seed=5), "lexical": frame(0.2)})
    assert found.kept == (0, 1, 2) and len(found.ids) == ROWS // 5


def test_a_few_failed_rows_are_not_weighed() -> None:
    found = shared({"poor": frame(0.0, slice(0, 590)), "good": frame(0.9)})
    assert found.kept == (0, 1) and len(found.ids) == 590


def test_members_that_share_hardly_a_row_are_not_joined() -> None:
    found = shared({"first": frame(0.9, slice(0, 250)), "second": frame(0.9, slice(240, 600))})
    assert found.kept == (1,)
    assert (
        found.reasons[0] == "it would cost 350 of the 360 rows that the others share: 10 would be left; --include asks for it"
    )
