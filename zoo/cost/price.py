"""The price of a member: seconds a row, tokens a row, hours for 25,000 rows."""

from __future__ import annotations

from pathlib import Path

from zoo.contracts import Cost
from zoo.errors import ZooError

BATTLES_25K = 25_000  # rows of the competition's hidden file


def price(cost: Cost, table: Path) -> dict[str, float]:
    """Seconds and tokens a row, and the hours of 25,000 such rows on the whole target.

    Seconds a row are those of the rows that were scored.
    """
    import pandas as pd

    from zoo.cost.fit import row_seconds
    from zoo.scores.tables import OK
    from zoo.targets import load_target

    frame = pd.read_parquet(table, columns=["n_tokens", "status"])
    lengths = frame.loc[frame["status"] == OK, "n_tokens"].to_numpy()
    if not len(lengths):
        return {}
    seconds = float(row_seconds(cost, lengths).mean())
    try:
        copies = max(1, load_target(cost.target).devices // cost.gpus) if cost.gpus else 1  # a CPU target has one copy
    except ZooError:  # a target that this installation does not know: one copy
        copies = 1
    numbers = {
        "cost/load_seconds": cost.load_seconds,
        "cost/seconds_per_row": seconds,
        "cost/hours_25k": (cost.load_seconds + BATTLES_25K * seconds / copies) / 3600,
    }
    return numbers | ({"cost/tokens_per_row": float(lengths.mean())} if lengths.any() else {})
