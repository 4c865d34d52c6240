"""What a judge is worth: log loss of its verdicts, raw and mapped, against human labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from zoo.contracts import Contract
from zoo.scores.metrics import log_loss_rows, mean_and_error, standard_error
from zoo.scores.vote_map import VoteMap, fit_vote_map, smoothed_verdicts

FOLDS = 5
LEAST_PROMPTS = (
    20  # groups of near-copies: with 20 of MT-Bench's 80 the map reaches 0.84 on the other 60, with 64 it reaches 0.83
)
ERRORS = 2.0  # standard errors by which a judge has to be below the prior
UNIFORM, PRIOR, LENGTH, RAW, SMOOTHED = "uniform", "prior", "length alone", "raw", "smoothed"
MAPPED, WITH_LENGTH = "mapped", "mapped with length"


class Step(Contract):
    """One way to make probabilities of verdicts, judged on human labels.

    Errors are clustered by prompt. `gain`: how much lower its log loss is than the prior's, row by row.
    """

    name: str
    log_loss: float
    error: float
    gain: float
    gain_error: float


class Certificate(Contract):
    """What a judge's verdicts of one source are worth, on rows that humans judged too.

    Shares are of these rows: of ties, and of longer answers among decided ones; the judge's count its verdicts' own
    probabilities. `agreement`: of the verdict with the human label.
    """

    rows: int
    prompts: int
    steps: tuple[Step, ...]
    agreement: float
    judge_ties: float
    human_ties: float
    judge_longer: float | None
    human_longer: float | None

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    @property
    def fault(self) -> str:
        """Why the verdicts must not become labels; empty where they may.

        Judged without length, which says something of human votes whatever the judge does.
        """
        if self.agreement == 1:
            return "it says what humans say in every row: these are their labels, and no judge's"
        mapped, prior = self.step(MAPPED), self.step(PRIOR)
        if mapped.gain > ERRORS * mapped.gain_error:
            return ""
        told = f"mapped log loss {mapped.log_loss:.3f} is not below the prior's {prior.log_loss:.3f}"
        return f"{told} by {ERRORS:g} standard errors ({mapped.gain_error:.3f})"


def certify(p: np.ndarray, lengths: np.ndarray, y: np.ndarray, groups: np.ndarray) -> Certificate:
    """The certificate of verdicts `p` (rows, 3) against human labels `y` (rows,).

    `lengths` (rows,): log of A's characters over B's. `groups` (rows,): the same for rows of one prompt and its near-copies;
    at least two. What is fitted is fitted on the other folds, which are of whole groups.
    """
    folds = group_folds(groups)
    uniform = np.full((len(y), 3), 1 / 3)
    found = {
        UNIFORM: uniform,
        PRIOR: cross_fitted(folds, lambda rest, own: np.tile(_prior(y[rest]), (int(own.sum()), 1))),
        LENGTH: _by_map(uniform, lengths, y, folds, by_length=True),
        RAW: smoothed_verdicts(p),
        SMOOTHED: cross_fitted(folds, lambda rest, own: smoothed_verdicts(p[own], _smoothing(p[rest], y[rest]))),
        MAPPED: _by_map(p, lengths, y, folds, by_length=False),
        WITH_LENGTH: _by_map(p, lengths, y, folds, by_length=True),
    }
    prior = log_loss_rows(found[PRIOR], y)
    steps = []
    for name, probabilities in found.items():
        losses = log_loss_rows(probabilities, y)
        gain = prior - losses
        mean, error = mean_and_error(losses, groups)
        steps.append(
            Step(name=name, log_loss=mean, error=error, gain=float(gain.mean()), gain_error=standard_error(gain, groups))
        )
    human = np.eye(3)[y]
    return Certificate(
        rows=len(y),
        prompts=len(np.unique(groups)),
        steps=tuple(steps),
        agreement=float((verdict_labels(p) == y).mean()),
        judge_ties=float(p[:, 2].mean()),
        human_ties=float(human[:, 2].mean()),
        judge_longer=longer_wins(p, lengths),
        human_longer=longer_wins(human, lengths),
    )


def verdict_labels(p: np.ndarray) -> np.ndarray:
    """The label that each verdict (rows, 3) says: int64, (rows,).

    A tie where A and B are as likely as each other.
    """
    even = np.isclose(p[:, 0], p[:, 1])
    return np.where(even, 2, p.argmax(axis=1))


def longer_wins(p: np.ndarray, lengths: np.ndarray) -> float | None:
    """Share of the decided part of verdicts (rows, 3) that goes to the longer answer.

    None where nothing is decided.
    """
    decided = (p[:, 0] + p[:, 1])[lengths != 0].sum()
    longer = np.where(lengths > 0, p[:, 0], p[:, 1])[lengths != 0].sum()
    return float(longer / decided) if decided > 0 else None


def group_folds(groups: np.ndarray) -> np.ndarray:
    """Folds of whole groups, as many groups in each as in any other but for one: int64, (rows,)."""
    _, numbers = np.unique(groups, return_inverse=True)
    folds: np.ndarray = numbers % FOLDS
    return folds


def cross_fitted(folds: np.ndarray, predict: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Probabilities (rows, 3), each fold's by `predict(rest, own)`.

    That takes masks of the other folds' rows and of its own.
    """
    made = np.empty((len(folds), 3))
    for fold in np.unique(folds):
        own = folds == fold
        made[own] = predict(~own, own)
    return made


def _by_map(p: np.ndarray, lengths: np.ndarray, y: np.ndarray, folds: np.ndarray, *, by_length: bool) -> np.ndarray:
    def mapped(rest: np.ndarray, own: np.ndarray) -> np.ndarray:
        fitted: VoteMap = fit_vote_map(p[rest], lengths[rest], y[rest], by_length=by_length)
        return fitted.apply(p[own], lengths[own])

    return cross_fitted(folds, mapped)


def _prior(y: np.ndarray) -> np.ndarray:
    """Label shares with A and B alike, since sides say nothing; one row more of each keeps them above zero."""
    ties = ((y == 2).sum() + 1) / (len(y) + 3)
    return np.array([(1 - ties) / 2, (1 - ties) / 2, ties])


def _smoothing(p: np.ndarray, y: np.ndarray) -> float:
    """The smoothing of least log loss."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(lambda s: log_loss_rows(smoothed_verdicts(p, s), y).mean(), bounds=(1e-3, 1.0), method="bounded")
    return float(found.x)
