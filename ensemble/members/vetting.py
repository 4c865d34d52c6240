"""Vet members: leave out in-sample scores and duplicates, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ensemble.members.table import Members
from zoo.contracts import Cost
from zoo.cost.fit import row_seconds
from zoo.data.battles import Battles
from zoo.errors import ZooError
from zoo.scores.metrics import log_loss_rows
from zoo.scores.tables import probabilities

SAME_TABLE = 1e-9
# A member is flagged as in-sample where its log loss is below this share of what its best peer reaches, and by at least this
# much: a fine-tuned 8B model is at 0.90 where bags of words are at 1.06 (0.85), a model scored on its training rows far lower.
IN_SAMPLE_RATIO, IN_SAMPLE_NATS, IN_SAMPLE_ERRORS = 0.8, 0.1, 5.0


def drop_in_sample(members: Members, frames: Sequence[pd.DataFrame], battles: Battles, include: Sequence[str]) -> Members:
    """Leave out tables from elsewhere whose log loss is too good.

    Against their peers, or their own on rows that others lack. The zoo's own stages score rows that the model never saw, by
    construction; what a file claims has to be believed. Peers worse than the label shares say nothing: a good model beside them
    is no wonder.
    """
    losses = np.stack([log_loss_rows(table, members.y) for table in members.p])
    errors = losses.std(axis=1) / np.sqrt(losses.shape[1])
    means, reasons = losses.mean(axis=1), {}
    label = battles.frame.set_index("id")["label"]
    shares = np.bincount(members.y, minlength=3) / len(members.y)
    prior = float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
    for j, card in enumerate(members.cards):
        if card.request is not None:
            continue
        peers = [k for k, other in enumerate(members.cards) if other.checkpoint != card.checkpoint]
        best = min((means[k] for k in peers), default=np.inf)
        best = min(best, prior) if peers else best
        low = np.isfinite(best) and means[j] < IN_SAMPLE_RATIO * best and best - means[j] > IN_SAMPLE_NATS
        if low and best - means[j] > IN_SAMPLE_ERRORS * errors[j]:
            reasons[j] = f"looks in-sample: log loss {means[j]:.3f} where its best peer has {best:.3f}"
            continue
        rest = frames[j].drop(index=list(members.ids))
        if len(rest) >= 100:
            outside = log_loss_rows(probabilities(rest), label.loc[rest.index].to_numpy(dtype=np.int64))
            gap, error = abs(outside.mean() - means[j]), np.hypot(errors[j], outside.std() / np.sqrt(len(rest)))
            if gap > IN_SAMPLE_NATS and gap > IN_SAMPLE_ERRORS * error:
                reasons[j] = f"looks in-sample: log loss {means[j]:.3f} on shared rows, {outside.mean():.3f} on its others"
    reasons = {j: reason for j, reason in reasons.items() if members.names[j] not in include}
    if len(reasons) == len(members.names):
        raise ZooError("; ".join(f"{members.names[j]} {r}" for j, r in reasons.items()) + "; ask for one with --include NAME")
    kept = members.subset([j for j in range(len(members.names)) if j not in reasons])
    hint = "; --include asks for it"
    return replace(kept, left_out=members.left_out | {members.names[j]: reason + hint for j, reason in reasons.items()})


def drop_duplicates(members: Members) -> Members:
    """Of members with the same table, keep the one that costs least: the others add nothing."""
    work = [card.cost.load_seconds + _mean_work(card.cost, members.tokens[j]) for j, card in enumerate(members.cards)]
    kept: list[int] = []
    reasons: dict[str, str] = {}
    for j in sorted(range(len(members.names)), key=lambda j: (work[j], members.names[j])):
        twin = next((k for k in kept if np.abs(members.p[k] - members.p[j]).max() <= SAME_TABLE), None)
        if twin is None:
            kept.append(j)
        else:
            reasons[members.names[j]] = f"same table as {members.names[twin]}, which costs no more"
    ordered = sorted(kept, key=lambda j: members.names[j])
    return replace(members.subset(ordered), left_out=members.left_out | reasons)


def _mean_work(cost: Cost, tokens: np.ndarray) -> float:
    return float(row_seconds(cost, tokens).sum()) * max(1, cost.gpus)
