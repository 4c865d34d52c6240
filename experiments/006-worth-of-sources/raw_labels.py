"""A judge's preferences taken for labels, as `zoo data label` would not: below 0.4 A wins, above 0.6 B, else a tie.

`python raw_labels.py PAIRS PREFERENCES OUT`: pairs of `zoo data mine --judged PREFERENCES`, with winners.
"""

from __future__ import annotations

import sys

import pandas as pd

A_BELOW, B_ABOVE = 0.4, 0.6


def main(pairs_path: str, preferences_path: str, out: str) -> None:
    pairs = pd.read_csv(pairs_path, dtype=str, keep_default_na=False)
    prompts = pairs["log_id_a"].str.split("-").str[0]
    shares: dict[tuple[str, str, str], float] = {}
    for row in pd.read_csv(preferences_path).itertuples():
        shares.setdefault((row.prompt_id, row.model_a, row.model_b), row.share_b)
        shares.setdefault((row.prompt_id, row.model_b, row.model_a), 1 - row.share_b)
    keys = zip(prompts, pairs["generator_a"], pairs["generator_b"], strict=True)
    b = pd.Series([shares[key] for key in keys], index=pairs.index)
    pairs["winner_model_a"] = (b < A_BELOW).astype(int)
    pairs["winner_model_b"] = (b > B_ABOVE).astype(int)
    pairs["winner_tie"] = b.between(A_BELOW, B_ABOVE).astype(int)
    pairs.to_csv(out, index=False)
    print(f"{out}: {len(pairs):,} pairs; A wins {(b < A_BELOW).mean():.1%}, B wins {(b > B_ABOVE).mean():.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
