"""How near `zoo data prompts --like` comes to a target: `python benchmarks/chosen_prompts.py FOLDER`, a minute on two cores.

FOLDER has answers_log.jsonl.gz (the pool) and lmsys_dev.csv (the target). Shares are fitted on half of the target's prompts, by
hash, and compared with that half and with the other one; topics are found with the words of both. Means over 20 seeds, beside
random samples of the pool.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from zoo.data.draw import drawn, with_floor
from zoo.data.likeness import FEATURES, Bins, distance, features_of, raked, shares
from zoo.data.masks import asked_in, why_masked
from zoo.data.prompts import by_chance, read_prompts
from zoo.data.topics import topics_of

SEEDS, FLOOR = 20, 0.15
SIZES = (100, 300, 600)


def main(folder: Path) -> None:
    never = asked_in([folder / "lmsys_dev.csv"])
    pool = read_prompts(folder / "answers_log.jsonl.gz").prompts
    reasons = why_masked([prompt.turns for prompt in pool], never)
    pool = [prompt for prompt, reason in zip(pool, reasons, strict=True) if not reason]
    target = by_chance(read_prompts(folder / "lmsys_dev.csv").prompts, 0)
    started = time.process_time()
    ours, theirs = topics_of(*(["\n".join(prompt.turns) for prompt in some] for some in (pool, target)))
    kinds, wanted = (features_of([p.turns for p in some], topics) for some, topics in ((pool, ours), (target, theirs)))
    half = len(target) // 2
    bins = Bins.of(wanted[:half])
    kinds, seen, other = bins.apply(kinds), bins.apply(wanted[:half]), bins.apply(wanted[half:])
    weights = with_floor(raked(kinds, seen), FLOOR)
    print(f"{len(pool)} prompts of the pool, {len(target)} of the target; {time.process_time() - started:.0f} CPU s")
    print("| sample of | feature | pool to the half seen | random sample | chosen | random, other half | chosen, other half |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for rows in SIZES:
        samples = {
            name: [drawn([p.id for p in pool], own, rows, seed) for seed in range(SEEDS)]
            for name, own in (("random", with_floor(weights, 1.0)), ("chosen", weights))
        }
        for feature in FEATURES:
            cells = [distance(shares(kinds[feature]), shares(seen[feature]))]
            for half_of in (seen, other):
                cells += [apart(kinds[feature], samples[name], half_of[feature]) for name in ("random", "chosen")]
            print(f"| {rows} | {feature} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    print(
        "the halves from each other: " + ", ".join(f"{f} {distance(shares(seen[f]), shares(other[f])):.3f}" for f in FEATURES)
    )


def apart(kinds: pd.Series, samples: list[np.ndarray], target: pd.Series) -> float:
    """The mean distance of samples from a target."""
    return float(np.mean([distance(shares(kinds.iloc[places]), shares(target)) for places in samples]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
