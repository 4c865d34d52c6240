"""A judge's verdicts as shares of human votes: a map that is symmetric in A and B.

It is fitted on battles that humans judged too.
Dirichlet calibration (Kull et al. 2019, "Beyond temperature scaling") under the symmetry of sides: a softmax whose margin of A
over B is odd in the exchange of sides and whose share of ties is even. Of a verdict p, smoothed by SMOOTHING towards uniform,
the margin's features are log(p_a / p_b) and a length ratio; those of ties are 1, log(p_tie / sqrt(p_a p_b)), the length ratio's
size, and how far the verdict goes with it. Of verdicts that are labels it makes the symmetric 3 x 3 table of what humans say
where the judge says so. The ridge is small beside 20 prompts of votes and keeps weights finite where a verdict never occurs.
"""

from __future__ import annotations

import numpy as np

from zoo.contracts import Contract

SMOOTHING = 0.05  # towards uniform; a label is no certainty
RIDGE = 1.0


class VoteMap(Contract):
    """Weights of the margin's features and of the ties'; lengths count where `by_length`."""

    margin: tuple[float, ...]
    tie: tuple[float, ...]
    by_length: bool

    def apply(self, p: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Shares of human votes (rows, 3) of verdicts `p` (rows, 3), each a distribution.

        `lengths` (rows,): log of A's characters over B's. Exchanged verdicts and lengths give exchanged shares.
        """
        margin, tie = _features(p, lengths, self.by_length)
        return _shares(margin @ np.array(self.margin), tie @ np.array(self.tie))


def fit_vote_map(p: np.ndarray, lengths: np.ndarray, y: np.ndarray, *, by_length: bool) -> VoteMap:
    """The map of verdicts `p` (rows, 3) to human labels `y` (rows,), by penalised likelihood.

    Labels are 0, 1, 2 for A, B, tie. `lengths`: see `VoteMap.apply`. Each row counts as seen from both sides, which the
    symmetry makes the same.
    """
    from scipy.optimize import minimize

    margin, tie = _features(p, lengths, by_length)
    truth, split = np.eye(3)[y], margin.shape[1]
    ridge = np.full(split + tie.shape[1], RIDGE)
    ridge[split] = 0.0  # the share of ties is free

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        shares = _shares(margin @ weights[:split], tie @ weights[split:])
        residual = shares - truth
        gradient = np.concatenate([margin.T @ (residual[:, 0] - residual[:, 1]) / 2, tie.T @ residual[:, 2]])
        return float(-np.log(shares[truth > 0]).sum() + ridge @ weights**2 / 2), gradient + ridge * weights

    found = minimize(objective, np.zeros(len(ridge)), jac=True, method="BFGS", options={"gtol": 1e-6}).x
    return VoteMap(margin=tuple(found[:split].tolist()), tie=tuple(found[split:].tolist()), by_length=by_length)


def smoothed_verdicts(p: np.ndarray, smoothing: float = SMOOTHING) -> np.ndarray:
    """Verdicts (rows, 3) moved by a share towards uniform."""
    moved: np.ndarray = (1 - smoothing) * p + smoothing / 3
    return moved


def length_ratio(characters_a: np.ndarray, characters_b: np.ndarray) -> np.ndarray:
    """Log of A's characters over B's (rows,); an empty answer counts as one character."""
    ratio: np.ndarray = np.log(np.maximum(characters_a, 1)) - np.log(np.maximum(characters_b, 1))
    return ratio


def _features(p: np.ndarray, lengths: np.ndarray, by_length: bool) -> tuple[np.ndarray, np.ndarray]:
    """Odd features of the margin, and even ones of the ties."""
    a, b, tie = np.log(smoothed_verdicts(p)).T
    odd, even = [a - b], [np.ones(len(p)), tie - (a + b) / 2]
    if by_length:
        longer = np.tanh(lengths)  # twice as long matters, twenty times no more than ten
        odd.append(longer)
        even += [np.abs(longer), longer * (p[:, 0] - p[:, 1])]
    return np.stack(odd, axis=1), np.stack(even, axis=1)


def _shares(margin: np.ndarray, tie: np.ndarray) -> np.ndarray:
    from scipy.special import softmax

    shares: np.ndarray = softmax(np.stack([margin / 2, -margin / 2, tie], axis=1), axis=1)
    return shares
