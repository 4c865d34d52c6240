"""Files of a judge's preferences between answers of a log.

Their columns are `prompt_id, model_a, model_b, share_b[, judge]`. An answer is known by its conversation in the log, whose id
is `<prompt_id>-<model>`; `share_b` is 0 for A, 1 for B, and between them where the judge is unsure or says a tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from zoo.data.columns import cell_text
from zoo.data.formats import read_records
from zoo.errors import ZooError

NEEDED = ("prompt_id", "model_a", "model_b", "share_b")
JUDGE = "judge"


def is_preferences(names: Sequence[str]) -> bool:
    """Whether a table with these columns is a file of preferences."""
    return set(NEEDED) <= set(names)


def read_preferences(path: Path) -> pd.DataFrame:
    """Preferences by conversation: `id_a`, `id_b`, `share_b` and `judge`.

    `share_b` is float64, NaN where it is no share and in rows that cannot be read; `judge` is empty where none is named.
    `id_a` and `id_b` are the same where a judge was asked about an answer against itself.
    """
    rows = []
    for number, record in read_records(path, (*NEEDED, JUDGE)):
        if isinstance(record, str):
            rows.append(("", "", "", ""))
            continue
        if number == 1 and not is_preferences(list(record)):
            what = f"has {', '.join(record)[:200] or 'none of them'}"
            raise ZooError(f"{path}: row {number}: {what}; preferences have the columns {', '.join(NEEDED)}")
        prompt, model_a, model_b, share = (cell_text(record.get(name)).strip() for name in NEEDED)
        rows.append((f"{prompt}-{model_a}", f"{prompt}-{model_b}", share, cell_text(record.get(JUDGE)).strip()))
    frame = pd.DataFrame(rows, columns=["id_a", "id_b", "share_b", "judge"])
    numbers: pd.Series[float] = pd.to_numeric(frame["share_b"], errors="coerce").astype(np.float64)
    return frame.assign(share_b=numbers.where((numbers >= 0) & (numbers <= 1)))
