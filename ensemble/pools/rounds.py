"""How many trees correct a pool best: by folds, before they are fitted to all rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.pools.blend import BlendSpec, apply_blend, fit_blend
from ensemble.pools.boosting import MOST_ROUNDS, Task, tasks, train
from ensemble.pools.coordinates import lead_and_odds, triples_of
from ensemble.pools.trees import rows_of, tree_features


def choose_rounds(
    base: BlendSpec,
    names: Sequence[str],
    p: np.ndarray,
    y: np.ndarray,
    folds: np.ndarray,
    lengths: np.ndarray | None = None,
) -> tuple[tuple[int, int], np.ndarray]:
    """Rounds for the side and for the tie, and triples (rows, 3) out of fold with so many trees.

    Each fold's rows are judged by a base pool and by trees that were fitted to the other folds'. The rounds are those of the
    least mean loss over all folds, 0 where no tree lowers it, so that the triples flatter by this one choice. `lengths`
    (rows, 3) of the texts, which trees read where given.
    """
    curves = np.zeros((2, MOST_ROUNDS + 1))
    found = []
    for fold in np.unique(folds):
        held = folds == fold
        blend = fit_blend(base, names, p[:, ~held], y[~held])
        before = apply_blend(blend, dict(zip(names, p, strict=True)))
        questions = [
            tasks(p[:, rows], before[rows], y[rows], rows_of(lengths, rows), ties=base.ties, position_bias=base.position_bias)
            for rows in (~held, held)
        ]
        boosters = []
        for place, (learn, judge) in enumerate(zip(*questions, strict=True)):
            if learn is None or judge is None:
                continue
            curve: list[float] = [_loss(judge)]
            boosters.append(train(learn, MOST_ROUNDS, judge, curve=curve))
            curves[place] += np.asarray(curve) * len(judge.answer)
        found.append((held, before[held], boosters))
    lead, tie = (int(curve.argmin()) for curve in curves)
    out = np.empty((len(y), 3))
    for held, before, boosters in found:
        out[held] = _corrected(p[:, held], before, rows_of(lengths, held), boosters, (lead, tie), base)
    return (lead, tie), out


def _loss(task: Task) -> float:
    """Log loss of the odds that the trees start from."""
    return float((np.logaddexp(0.0, task.odds) - task.answer * task.odds).mean())


def _corrected(
    p: np.ndarray,
    before: np.ndarray,
    lengths: np.ndarray | None,
    boosters: Sequence[object],
    rounds: tuple[int, int],
    base: BlendSpec,
) -> np.ndarray:
    """Triples as `ensemble.pools.trees.correct` gives them, by LightGBM's own prediction."""
    x, side = tree_features(p, before, lengths, ties=base.ties, position_bias=base.position_bias)
    raw = [
        booster.predict(x, raw_score=True, num_iteration=count) if count else np.zeros(len(x))  # type: ignore[attr-defined]
        for booster, count in zip(boosters, rounds, strict=False)
    ]
    lead, odds = lead_and_odds(before, ties=base.ties)
    return triples_of(lead + side * raw[0], odds + raw[1] if base.ties else odds, ties=base.ties)
