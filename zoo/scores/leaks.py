"""Whether a table, or some of its rows, has seen the labels that it is judged by.

Nothing proves it. These are tests with a stated rate of false alarms, for tables from elsewhere, whose word has to be taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo.scores.metrics import label_share_loss, log_loss_rows, standard_error

# A member is flagged as in-sample where its log loss is below this share of what its best peer reaches, and by at least this
# much: a fine-tuned 8B model is at 0.90 where bags of words are at 1.06 (0.85), a model scored on its training rows far lower.
IN_SAMPLE_RATIO, IN_SAMPLE_NATS, IN_SAMPLE_ERRORS = 0.8, 0.1, 5.0
ABOUT_ZERO = 0.1  # nats: people who judge the same pair twice do not agree that well with themselves
FEWEST_SHARED = 20  # rows on which two members are compared
LEAK_FALSE_ALARMS = 1e-3  # of the tail test, where its assumption holds
LEAK_SHARES = (0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25)  # of the rows that the tail test tries
FEWEST_LEAKED = 20  # rows: an honest model that is right on 87 % of its surest rows is right on so many with a chance of 6 %
MOST_WRONG = 0.02  # share of the rows in the tail that may be wrong: what the labels themselves filled in is always right
LEAST_CONSTANT = 0.9  # a probability that many rows share is that of labels only where it is near 1
CLIP_ODDS = 1e-6  # tables end at exact 0 and 1


def in_sample(p: np.ndarray, y: np.ndarray, groups: np.ndarray, peers: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
    """Why a table looks as if its model had learned from these rows; empty where it does not.

    `p` of shape (rows, 3), labels `y` (rows,). `peers`: (places, losses) of members with other checkpoints, the rows here that
    each has too and its losses on them. Peers worse than the label shares say nothing: a good model beside them is no wonder.
    Standard errors are by `groups` (prompts); of one group nothing is known, and nothing is flagged.
    """
    losses = log_loss_rows(p, y)
    if len(losses) >= FEWEST_SHARED and losses.mean() < ABOUT_ZERO:
        return f"looks in-sample: log loss {losses.mean():.3f}, and people's votes cannot be told that well"
    found = []
    for places, other in peers:
        if len(places) < FEWEST_SHARED:
            continue
        own, best = losses[places], min(float(other.mean()), label_share_loss(y[places]))
        gap = best - own.mean()
        low = own.mean() < IN_SAMPLE_RATIO * best and gap > IN_SAMPLE_NATS
        if not (low and gap > IN_SAMPLE_ERRORS * standard_error(own, groups[places])):
            return ""
        found.append((best, float(own.mean())))
    if not found:
        return ""
    best, own_mean = min(found)
    return f"looks in-sample: log loss {own_mean:.3f} where its best peer has {best:.3f}"


def differs_elsewhere(losses: np.ndarray, groups: np.ndarray, shared: np.ndarray) -> str:
    """Why a member looks in-sample by its losses on rows that others have and on the rest.

    `losses` (rows,); `shared` (rows,): bool, what others have, too. Empty where both are about as good.
    """
    inside, outside = losses[shared], losses[~shared]
    if len(outside) < 100 or len(inside) < FEWEST_SHARED:
        return ""
    gap = abs(outside.mean() - inside.mean())
    error = np.hypot(standard_error(inside, groups[shared]), standard_error(outside, groups[~shared]))
    if gap > IN_SAMPLE_NATS and gap > IN_SAMPLE_ERRORS * error:
        return f"looks in-sample: log loss {inside.mean():.3f} on shared rows, {outside.mean():.3f} on its others"
    return ""


def partly_leaked(p: np.ndarray, y: np.ndarray) -> str:
    """Why some rows of a table (rows, 3) look filled in from the labels; empty where none do.

    Two signs, of which one is enough: a tail of sure and right rows that the others do not lead up to (`leaked_tail`), and one
    triple, turned to the label, that many rows share (`label_constant`).
    """
    share = leaked_tail(p, y)
    if share:
        return f"looks partly leaked: {share:.0%} of its rows are surer and more often right than its other rows allow"
    rows, top = label_constant(p, y)
    if rows:
        return f"looks partly leaked: {rows:,} rows share the probability {top:g}, always for the right label"
    return ""


def leaked_tail(p: np.ndarray, y: np.ndarray) -> float:
    """Share of the rows that stand out as leaked; 0 where none do.

    The log odds of each row's own label are looked at. Where their density is log-concave (so it is for calibrated Dirichlet
    odds and for logits with normal noise), the hazard rate never falls, so that beyond the third quartile t75 at most
    0.25 * 2 ** -((t - t75) / (t75 - t50)) of the rows lie beyond t (Barlow and Proschan 1965: increasing hazard rate). More
    than that by a binomial test at LEAK_FALSE_ALARMS, over all thresholds tried together, is a tail of another kind. It is one
    of leaked rows if hardly any row that is as sure is wrong: an honest table that is too sure of itself is wrong there, too.
    The quartiles' distance is taken three of its standard errors larger than it is. Up to a quarter of the rows is looked at,
    so that more leaked rows than that are for `in_sample` to find.
    """
    from scipy.stats import binom

    count = len(y)
    least = max(CLIP_ODDS, _half_step(p))
    odds = _log_odds(p[np.arange(count), y], least)
    if count < 2 * FEWEST_LEAKED:
        return 0.0
    middle, third = np.quantile(odds, [0.5, 0.75])
    # Of an exponential tail the distance has the variance (1 / 0.25 - 1 / 0.5) / rows, at a mean of ln 2.
    distance = (third - middle) * (1 + 3 * np.sqrt(2 / count) / np.log(2))
    if distance <= 0:
        return 0.0
    ordered, sure, right = np.sort(odds), _log_odds(p.max(axis=1), least), p.argmax(axis=1) == y
    for share in LEAK_SHARES:
        rows = round(share * count)
        if rows < FEWEST_LEAKED or ordered[-rows] <= third:
            continue
        at = ordered[-rows]
        allowed = 0.25 * 2.0 ** -((at - third) / distance)
        seen = int((odds >= at).sum())
        wrong = (~right[sure >= at]).mean()
        if binom.sf(seen - 1, count, allowed) * len(LEAK_SHARES) < LEAK_FALSE_ALARMS and wrong <= MOST_WRONG:
            return seen / count
    return 0.0


def label_constant(p: np.ndarray, y: np.ndarray) -> tuple[int, float]:
    """How many rows have one triple, turned so that its largest value is at the label.

    Beside that number, the value.

    (0, 0) where there is no such triple, where it is for one label only (a rule for special rows, such as equal answers) or
    where the table has other triples that repeat: then its values are few by nature.
    """
    triples, which, counts = np.unique(np.sort(p, axis=1).round(9), axis=0, return_inverse=True, return_counts=True)
    if not len(counts):
        return 0, 0.0
    most = int(counts.argmax())
    rows, top = which.reshape(-1) == most, float(triples[most, 2])
    few = counts[most] < max(FEWEST_LEAKED, 0.02 * len(y)) or counts[most] > 0.5 * len(y)
    others = np.delete(counts, most)
    labels, each = np.unique(y[rows], return_counts=True)
    if (
        few
        or top < LEAST_CONSTANT
        or len(labels) < 2
        or np.sort(each)[-2] < 3
        or (len(others) and others.max() > counts[most] / 5)
    ):
        return 0, 0.0
    right = p[rows].argmax(axis=1) == y[rows]
    return (int(counts[most]), top) if right.all() else (0, 0.0)


def _half_step(p: np.ndarray) -> float:
    """Half the step that a table is rounded to, 0 where it is not: a 1 there is any number above 1 less this.

    Rows of a 1 and two 0 do not count, which labels are too. Rows that summed to 1 less or more a step were scaled since.
    """
    soft = p[(p < 1).all(axis=1)]
    if not len(soft):
        return 0.0
    for parts in (10, 100, 1000):
        off = [np.abs(soft * whole - (soft * whole).round()).max(axis=1) for whole in (parts - 1, parts, parts + 1)]
        if (np.min(off, axis=0) < 1e-3).all():
            return 0.5 / parts
    return 0.0


def _log_odds(p: np.ndarray, least: float) -> np.ndarray:
    clipped = np.clip(p, least, 1 - least)
    odds: np.ndarray = np.log(clipped / (1 - clipped))
    return odds
