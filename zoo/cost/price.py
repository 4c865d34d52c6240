"""The price of a member: seconds a row, tokens a row, hours for 25,000 rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.contracts import Cost
from zoo.errors import ZooError
from zoo.scores.metric_names import HOURS_25K, LOAD_SECONDS, SECONDS_PER_ROW, TOKENS_PER_ROW

if TYPE_CHECKING:
    import numpy as np

COMPETITION_ROWS = 25_000  # of the competition's hidden file: what is priced and planned for unless told otherwise


def price(cost: Cost, table: Path) -> dict[str, float]:
    """The price of a member whose score table is in a file; see `price_of`.

    ZooError where it cannot be read.
    """
    from zoo.scores.tables import OK, read_columns

    frame = read_columns(table, ["n_tokens", "status"])
    return price_of(cost, frame.loc[frame["status"] == OK, "n_tokens"].to_numpy())


def price_of(cost: Cost, lengths: np.ndarray) -> dict[str, float]:
    """Seconds and tokens a row, and the hours of 25,000 such rows on the whole target.

    `lengths` (rows,): tokens of the rows that were scored, 0 where they are not known. Seconds a row are those of these rows.
    Nothing where nobody has said what it costs.
    """
    from zoo.cost.fit import row_seconds
    from zoo.targets import load_target

    if not len(lengths) or not cost.priced:
        return {}
    seconds = float(row_seconds(cost, lengths).mean())
    try:
        copies = max(1, load_target(cost.target).devices // cost.gpus) if cost.gpus else 1  # a CPU target has one copy
    except ZooError:  # a target that this installation does not know: one copy
        copies = 1
    numbers = {
        LOAD_SECONDS: cost.load_seconds,
        SECONDS_PER_ROW: seconds,
        HOURS_25K: (cost.load_seconds + COMPETITION_ROWS * seconds / copies) / 3600,
    }
    return numbers | ({TOKENS_PER_ROW: float(lengths.mean())} if lengths.any() else {})
