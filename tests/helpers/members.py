"""Members of known worth for tests of builds, and the request to build with them."""

from __future__ import annotations

import numpy as np

from ensemble.members.table import Members, balanced_folds
from ensemble.search.decide import BuildRequest, SearchLimits
from tests.helpers.manifests import score_card
from zoo.contracts import Cost
from zoo.targets import load_target

T4X2, CPU = load_target("t4x2"), load_target("cpu")
# name: (how much it sees of the odds, noise, load seconds, seconds a row)
KINDS = {
    "lexical": (0.3, 0.2, 2, 0.001),
    "small": (0.6, 0.5, 30, 0.05),
    "big": (0.95, 0.4, 60, 0.4),
    "other": (0.9, 0.5, 60, 0.3),
}


def make_members(kinds=KINDS, rows: int = 500, *, seed: int = 0, gpus: int = 1, target: str = "t4x2") -> Members:
    """Members that see known odds through noise of their own; longer rows cost more and say less."""
    rng = np.random.default_rng(seed)
    characters = rng.lognormal(7, 0.8, rows)
    odds = rng.normal(size=(rows, 3)) * 1.4
    y = (odds + rng.gumbel(size=odds.shape)).argmax(axis=1)
    logits = np.stack([odds * see + rng.normal(size=odds.shape) * noise for see, noise, _, _ in kinds.values()])
    p = np.exp(logits)
    groups = np.arange(rows) // 3
    cards = tuple(
        score_card(
            name,
            target=target,
            rows=rows,
            cost=Cost(target=target, load_seconds=load, seconds_per_token=per_row / 300, gpus=gpus),
        )
        for name, (_, _, load, per_row) in kinds.items()
    )
    return Members(
        names=tuple(kinds),
        cards=cards,
        fingerprints=("",) * len(kinds),
        ids=tuple(f"r{i:05d}" for i in range(rows)),
        p=p / p.sum(axis=2, keepdims=True),
        tokens=np.tile((characters / 4).astype(int), (len(kinds), 1)),
        y=y,
        groups=groups,
        folds=balanced_folds(groups),
        lengths=characters[:, None] * rng.dirichlet((2, 4, 4), rows),
        digest="d",
        lost_rows=0,
        left_out={},
    )


def request(budget: float, *, rows: int = 25_000, target=T4X2, trials: int = 0, **options) -> BuildRequest:
    """What a build is asked: the exact search alone, unless a study of so many trials is wanted."""
    return BuildRequest(target, budget, rows, **({"limits": SearchLimits(trials)} | options))
