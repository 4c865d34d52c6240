"""The form of a submission: its columns in their order, and how ids and winners are spelled."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

Part = Literal["id", "a", "b", "tie", "winner"]
SIDES: tuple[Part, ...] = ("a", "b", "tie")  # in the order of contracts.LABELS
_WHOLE = re.compile(r"0*(\d+)(?:\.0*)?")


@dataclass(frozen=True)
class Form:
    """Columns of a submission in their order, each with what stands in it.

    `winners`: how label 0 and 1 are spelled in the column `winner`. `whole_ids`: ids are whole numbers.
    """

    columns: Mapping[str, Part]
    winners: Mapping[int, str] = field(default_factory=dict)
    whole_ids: bool = False

    def frame(self, ids: Sequence[str], p: np.ndarray, of_two: np.ndarray) -> pd.DataFrame:
        """The submission of probabilities `p` (rows, 3).

        `of_two` (rows, 3): the same where no battle can be a tie, for a form without a column for the tie's. The
        winner is the likelier of A and B, A where they are as likely.
        """
        sides = p if "tie" in self.columns.values() else of_two
        made: dict[str, object] = {}
        for name, part in self.columns.items():
            if part == "id":
                made[name] = self.spelled(ids)
            elif part == "winner":
                made[name] = [self.winners[label] for label in p[:, :2].argmax(axis=1).tolist()]
            else:
                made[name] = sides[:, SIDES.index(part)]
        return pd.DataFrame(made, columns=list(self.columns))

    def spelled(self, ids: Sequence[str]) -> list[str]:
        """Ids as the competition writes them.

        Where they are whole numbers, 30192.0 and 030192 are 30192. As they stand where that makes two the same.
        """
        if not self.whole_ids:
            return list(ids)
        found = [match[1] if (match := _WHOLE.fullmatch(row_id)) else row_id for row_id in ids]
        return found if len(set(found)) == len(set(ids)) else list(ids)


COMPETITION = Form({"id": "id", "winner_model_a": "a", "winner_model_b": "b", "winner_tie": "tie"})
