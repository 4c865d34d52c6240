"""Files that the recipe learns from and no command of the zoo makes.

    python experiments/007-made-data/files.py raw MAPPED.csv.gz PREFERENCES.csv.gz RAW.csv.gz
    python experiments/007-made-data/files.py shares PAIRS.parquet TABLE.parquet OUT.csv.gz

`raw`: the rows of a file that `zoo data label` made of preferences, with the verdict itself as their winner: below 0.4 A,
above 0.6 B, else a tie. `shares`: pairs with a score table's probabilities as shares of votes, as no map has changed them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from zoo.data.votes import VOTES
from zoo.scores.tables import read_scores

WINNERS = ["winner_model_a", "winner_model_b", "winner_tie"]
PROBABILITIES = ["p_a", "p_b", "p_tie"]
DECIDED = 0.1  # a preference this far from one half is no tie


def raw(mapped: Path, preferences: Path) -> pd.DataFrame:
    """The rows of `mapped` with the verdicts of `preferences` as winners, without shares."""
    rows = pd.read_csv(mapped, dtype=str)
    given = pd.read_csv(preferences)
    shares: dict[tuple[str, str, str, str], float] = {}
    for one in given.itertuples():
        shares.setdefault((one.prompt_id, one.model_a, one.model_b, one.judge), one.share_b)
        shares.setdefault((one.prompt_id, one.model_b, one.model_a, one.judge), 1 - one.share_b)
    prompts = rows["log_id_a"].str.split("-", n=1).str[0]
    keys = zip(prompts, rows["generator_a"], rows["generator_b"], rows["judge"], strict=True)
    b = np.array([shares[key] for key in keys])
    places = np.where(b < 0.5 - DECIDED, 0, np.where(b > 0.5 + DECIDED, 1, 2))
    rows[WINNERS] = np.eye(3, dtype=int)[places]
    return rows.drop(columns=[*VOTES, "consistency"])


def shares(pairs: Path, table: Path) -> pd.DataFrame:
    """The pairs that a table has, with its probabilities as shares of votes and the likeliest label as winner."""
    rows = pd.read_parquet(pairs)
    scores = read_scores(table).set_index("id")
    rows = rows[rows["id"].isin(scores.index)].reset_index(drop=True)
    p = scores.loc[rows["id"], PROBABILITIES].to_numpy()
    rows[list(VOTES)] = p.round(6)
    rows[WINNERS] = np.eye(3, dtype=int)[p.argmax(axis=1)]
    return rows


def main() -> None:
    what, first, second, out = sys.argv[1:]
    made = {"raw": raw, "shares": shares}[what](Path(first), Path(second))
    made.to_csv(out, index=False)
    print(f"{out}: {len(made):,} rows")


if __name__ == "__main__":
    main()
