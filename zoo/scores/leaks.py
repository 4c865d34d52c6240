"""Whether a table, or some of its rows, has seen the labels that it is judged by.

Nothing proves it. These are tests with a stated rate of false alarms, for tables from elsewhere, whose word has to be taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from zoo.scores.metrics import label_share_loss, log_loss_rows, standard_error

# A member is flagged as in-sample where its log loss is below this share of what its best peer reaches, and by at least this
# much: a fine-tuned 8B model is at 0.90 where bags of words are at 1.06 (0.85), a model scored on its training rows far lower.
IN_SAMPLE_RATIO, IN_SAMPLE_NATS, IN_SAMPLE_ERRORS = 0.8, 0.1, 5.0
ABOUT_ZERO = 0.1  # nats: people who judge the same pair twice do not agree that well with themselves
FEWEST_SHARED = 20  # rows on which two members are compared
FALSE_ALARMS = 1e-3  # of each test of hits, where its assumption holds, over all sets of rows that it tries
AGREED = 0.85  # at most: of votes on two answers that are no ties, people share 81 % (Zheng et al. 2023, arXiv 2306.05685)
FEWEST_LEAKED = 20  # rows
SHARES = (0.05, 0.1, 0.15, 0.2, 0.3)  # of the rows, the surest of which are looked at; each tenth of them is, too
MOST_ERRORS = 0.65  # of those that calibration allows: what is not this far below is a matter of calibration, not of labels
SAFE = 1.5  # standard errors by which a member may be less sure than its fitted temperature says
LEAST_CONSTANT = 0.9  # a lower probability that many rows share is that of labels only where calibration rules it out
CLIP = 1e-6  # tables end at exact 0 and 1


def in_sample(p: np.ndarray, y: np.ndarray, groups: np.ndarray, peers: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
    """Why a table looks as if its model had learned from these rows; empty where it does not.

    `p` of shape (rows, 3), labels `y` (rows,). `peers`: (places, losses) of members with other checkpoints, the rows here that
    each has too and its losses on them. Peers worse than the label shares say nothing: a good model beside them is no wonder.
    Standard errors are by `groups` (prompts); of one group nothing is known, and nothing is flagged.
    """
    losses = log_loss_rows(p, y)
    if len(losses) >= FEWEST_SHARED and losses.mean() < ABOUT_ZERO:
        return f"looks in-sample: log loss {losses.mean():.3f}, and people's votes cannot be told that well"
    if told := right_too_often(p, y):
        return told
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


def right_too_often(p: np.ndarray, y: np.ndarray) -> str:
    """Why a table is right more often than people agree, and than it says itself.

    Empty where it is not. Labels that were smoothed or noised are right everywhere, whatever probability they were given. Both
    by a binomial test at FALSE_ALARMS: a calibrated member passes however good it is, and one that is less sure than it could
    be where the battles are no easier than those that AGREED was measured on.
    """
    hits, sure = p.argmax(axis=1) == y, p.max(axis=1)
    if len(y) < FEWEST_SHARED or _chance(hits, max(AGREED, float(sure.mean()))) >= FALSE_ALARMS:
        return ""
    return (
        f"looks in-sample: right on {hits.mean():.1%} of its rows, where its own probabilities say {sure.mean():.1%} and "
        f"people agree on {AGREED:.0%} at most"
    )


def partly_leaked(p: np.ndarray, y: np.ndarray) -> str:
    """Why some rows of a table (rows, 3) look filled in from the labels; empty where none do.

    Two signs, of which one is enough: one triple, turned to the label, that many rows share (`label_constant`), and rows that
    are right more often than the member's own calibration allows (`too_right`).
    """
    rows, top = label_constant(p, y)
    if rows:
        return f"looks partly leaked: {rows:,} rows share the probability {top:g}, always for the right label"
    rows, hits, expected = too_right(p, y)
    if rows:
        return (
            f"looks partly leaked: of {rows:,} rows as sure as each other {hits:,} are right, where its calibration allows "
            f"{expected:,.0f}"
        )
    return ""


def too_right(p: np.ndarray, y: np.ndarray) -> tuple[int, int, float]:
    """Rows, hits and expected hits of the set that is right most beyond calibration.

    Zeros where none is. Were the probabilities right, the hits of any set of rows that is chosen without the labels would be a
    sum of independent draws, whose upper tail is at most that of a binomial with the mean chance (Hoeffding 1956). That is
    tested for each of `_sets` at FALSE_ALARMS over all of them: a table whose labels are drawn from its own probabilities is
    refused at most once in a thousand, whatever their spread. A member that is less sure than it could be everywhere is no
    leak, so that each set is expected to be right as often as the temperature and tie bias allow that the rows outside the set
    have, SAFE standard errors sharper, and never less than the member says itself. What is left must matter: at most
    MOST_ERRORS of the expected errors, and fewer for at least two labels (a rule for special rows, such as equal answers, is
    right for one).

    What cannot be told: rows that were filled in about as surely as they are right, which is what an honest member's sure rows
    are (0.97 to 0.999, unless they share one value), and few softened ones whose two other probabilities differ as a model's do
    (a fifth of 2,000 rows at 0.8 to 0.99 is told in two of three tables, a tenth in one of eight).
    """
    sets = _sets(p)
    worst, found = FALSE_ALARMS / max(1, len(sets)), (0, 0, 0.0)
    top, hits = p.argmax(axis=1), p.argmax(axis=1) == y
    sure = p.max(axis=1) + _half_step(p)
    for rows in sets:
        if _chance(hits[rows], float(sure[rows].mean())) >= worst:
            continue  # sharper expectations only raise the chance
        expected = np.maximum(sure[rows], _sharpened(p, y, rows))
        chance = _chance(hits[rows], float(expected.mean()))
        allowed = [(1 - expected[top[rows] == label]).sum() for label in range(3)]
        made = [int((~hits[rows][top[rows] == label]).sum()) for label in range(3)]
        fewer = sum(errors < limit for errors, limit in zip(made, allowed, strict=True))
        if chance < worst and sum(made) <= MOST_ERRORS * sum(allowed) and fewer >= 2:
            worst, found = chance, (int(rows.sum()), int(hits[rows].sum()), float(expected.sum()))
    return found


def _sets(p: np.ndarray) -> list[np.ndarray]:
    """Sets of rows (bool, each of shape (rows,)) that leaked ones may be most of, chosen without the labels.

    The surest of several shares, each tenth by sureness, rows of one repeated greatest probability, and rows whose two others
    are equal as they hardly are where a model made them.
    """
    sure, count = p.max(axis=1), len(p)
    ordered = np.sort(sure)
    found = [sure >= ordered[-round(share * count)] for share in SHARES if round(share * count)]
    edges = np.quantile(sure, np.linspace(0, 1, 11)) if count else np.zeros(0)
    found += [(sure >= low) & (sure <= high) for low, high in pairwise(edges)]
    values, counts = np.unique(sure.round(9), return_counts=True)
    if count and counts.max() > 1:
        found.append(sure.round(9) == values[counts.argmax()])
    others = np.sort(p, axis=1)[:, :2]
    found.append((others[:, 1] - others[:, 0] < 1e-9) & (others[:, 1] > 0))
    return [rows for rows in found if rows.sum() >= FEWEST_LEAKED and rows.sum() <= count - FEWEST_LEAKED]


def _chance(hits: np.ndarray, mean: float) -> float:
    """At most the chance of as many hits of independent rows with this mean chance."""
    from scipy.stats import binom

    return float(binom.sf(int(hits.sum()) - 1, len(hits), min(mean, 1.0)))


def _sharpened(p: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Chances of the likeliest labels of `rows` (bool) after the recalibration that the other rows ask for.

    softmax(sharpness * log p + bias of the tie), by Newton's method with a weak pull to 1 and 0; of the sharpness the upper end
    of its interval.
    """
    logs = np.log(np.clip(p, CLIP, 1))
    tie, truth = np.array([0.0, 0.0, 1.0]), np.eye(3)[y[~rows]]
    outside, fitted, pull = logs[~rows], np.array([1.0, 0.0]), np.eye(2)
    features = np.stack([outside, np.broadcast_to(tie, outside.shape)], axis=2)
    for _ in range(20):
        q = _softmax(features @ fitted)
        mean = np.einsum("nk,nkf->nf", q, features)
        slope = np.einsum("nk,nkf->f", truth - q, features) - pull @ (fitted - [1.0, 0.0])
        curve = np.einsum("nk,nkf,nkg->fg", q, features, features) - mean.T @ mean + pull
        step = np.linalg.solve(curve, slope)
        fitted = np.clip(fitted + np.clip(step, -0.5, 0.5), [0.0, -5.0], [20.0, 5.0])
        if np.abs(step).max() < 1e-6:
            break
    sharp = fitted[0] + SAFE * np.sqrt(np.linalg.inv(curve)[0, 0])
    sharpened = _softmax(sharp * logs[rows] + fitted[1] * tie)
    chances: np.ndarray = sharpened[np.arange(len(sharpened)), p[rows].argmax(axis=1)]
    return chances


def _softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: np.ndarray = odds / odds.sum(axis=1, keepdims=True)
    return shares


def label_constant(p: np.ndarray, y: np.ndarray) -> tuple[int, float]:
    """How many rows have one triple, turned so that its largest value is at the label.

    Beside that number, the value.

    (0, 0) where there is no such triple, where it is for one label only (a rule for special rows, such as equal answers) or
    where the table has other triples that repeat: then its values are few by nature.
    """
    triples, which, counts = np.unique(np.sort(p, axis=1).round(12), axis=0, return_inverse=True, return_counts=True)
    if not len(counts):
        return 0, 0.0
    most = int(counts.argmax())
    rows, top = which.reshape(-1) == most, float(triples[most, 2])
    few = counts[most] < max(FEWEST_LEAKED, 0.02 * len(y))
    others = np.delete(counts, most)
    labels, each = np.unique(y[rows], return_counts=True)
    if (
        few
        or (top < LEAST_CONSTANT and top ** counts[most] >= FALSE_ALARMS)
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
