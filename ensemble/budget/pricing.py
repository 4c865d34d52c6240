"""Prices of members on the target: seconds by row, and the jobs of a set of members."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ensemble.budget.schedule import Load
from ensemble.members.table import Members
from ensemble.plan import TokenEstimate
from zoo.contracts import ScoreCard, ScoreRequest
from zoo.cost.fit import row_seconds
from zoo.data.battles import count_characters
from zoo.data.usable import usable_battles
from zoo.errors import ZooError
from zoo.targets import Target


@dataclass(frozen=True)
class Pricing:
    """Prices of the candidates for a prediction of `rows` rows.

    `row_seconds` (members, fitted rows): seconds of each row on one copy of the model, scaled so that their sum over the fitted
    rows is the member's whole work on the file to be predicted. `factors` (members,), which are in both: what a forecast's
    margin exceeds the target's by, so that a plan that fits does so in bad cases too.
    """

    load_seconds: np.ndarray
    row_seconds: np.ndarray
    wide: np.ndarray
    processes: tuple[str, ...]
    names: tuple[str, ...]
    estimates: tuple[TokenEstimate, ...]
    devices: int
    rows: int
    mean_tokens: np.ndarray
    factors: np.ndarray

    @property
    def likely(self) -> Pricing:
        """The same prices without what forecasts' margins add."""
        return self._times(1 / self.factors, np.ones_like(self.factors))

    def with_factors(self, factors: np.ndarray) -> Pricing:
        """The same prices with what forecasts' margins add, (members,)."""
        return self._times(factors / self.factors, factors)

    def _times(self, ratio: np.ndarray, factors: np.ndarray) -> Pricing:
        loading, rows = self.load_seconds * ratio, self.row_seconds * ratio[:, None]
        return replace(self, load_seconds=loading, row_seconds=rows, factors=factors)

    def loads(self, whole: Sequence[int], gated: Sequence[tuple[int, np.ndarray]] = ()) -> list[Load]:
        """Loads of members that see every row (`whole`) and of `gated` ones, each a phase.

        `gated` ones come with the fitted rows they see.
        """
        by_process: dict[tuple[str, bool], list[int]] = {}
        for j in whole:
            by_process.setdefault((self.processes[j], bool(self.wide[j])), []).append(j)
        work = self.row_seconds.sum(axis=1)
        loads = [
            Load(
                members=tuple(self.names[j] for j in group),
                load_seconds=max(float(self.load_seconds[j]) for j in group),
                work_seconds=float(sum(work[j] for j in group)),
                wide=wide,
            )
            for (_, wide), group in by_process.items()
        ]
        for phase, (j, seen) in enumerate(gated, start=1):
            seconds = float(self.row_seconds[j] @ seen)
            loads.append(Load((self.names[j],), float(self.load_seconds[j]), seconds, bool(self.wide[j]), phase))
        return loads

    def on_rows(self, keep: np.ndarray) -> Pricing:
        """The same prices by the fitted rows of `keep` (bool, rows).

        Their lengths stand for the file to be predicted.
        """
        kept = self.row_seconds[:, keep]
        whole, part = self.row_seconds.sum(axis=1), kept.sum(axis=1)
        scale = np.divide(whole, part, out=np.ones_like(whole), where=part > 0)
        return replace(self, row_seconds=kept * scale[:, None])


def price(members: Members, target: Target, rows: int, *, lengths: Path | None = None) -> Pricing:
    """Price every candidate for `rows` rows.

    Their lengths are those of the fitted rows, or of the battles in `lengths`. With a lengths file, tokens are estimated from
    its characters as each member's table relates the two, and `rows` counts rows like these (a file of 100 rows can stand for
    25,000).
    """
    estimates = tuple(
        estimate_tokens(members.characters, members.tokens[j], cap=card.variant.max_tokens)
        for j, card in enumerate(members.cards)
    )
    fitted = np.stack([row_seconds(card.cost, members.tokens[j]) for j, card in enumerate(members.cards)])
    scale = np.full(len(estimates), rows / fitted.shape[1])
    mean_tokens = members.tokens.mean(axis=1)
    if lengths is not None:
        if not members.characters.any() and any(card.cost.seconds_per_token for card in members.cards):
            raise ZooError(
                f"--lengths {lengths}: needs the texts of the members' own battles too; give --data a file with texts"
            )
        characters = read_lengths(lengths)
        for j, (card, estimate) in enumerate(zip(members.cards, estimates, strict=True)):
            expected = row_seconds(card.cost, tokens_of(estimate, characters)).mean()
            own = row_seconds(card.cost, tokens_of(estimate, members.characters)).mean()
            mean_tokens[j] = tokens_of(estimate, characters).mean()
            scale[j] *= expected / own if own > 0 else 1.0
    return Pricing(
        load_seconds=np.array([card.cost.load_seconds for card in members.cards]),
        row_seconds=fitted * scale[:, None],
        wide=np.array([card.cost.gpus > 1 for card in members.cards]),
        processes=tuple(process_key(card) for card in members.cards),
        names=members.names,
        estimates=estimates,
        devices=max(1, target.gpus),
        rows=rows,
        mean_tokens=mean_tokens,
        factors=np.ones(len(estimates)),
    )


def process_key(card: ScoreCard) -> str:
    """Members with the same key share one process and one load.

    One checkpoint, scored the same way but for variants.
    """
    request = card.request
    if not isinstance(request, ScoreRequest):
        return card.checkpoint
    settings = request.model_dump(
        mode="json", include={"prompt": True, "spec": True, "serve": True}, exclude={"spec": {"variants"}}
    )
    return json.dumps([card.checkpoint, settings], sort_keys=True)


def read_lengths(path: Path) -> np.ndarray:
    """Characters of each battle of a file, labelled or not: float64 (rows,)."""
    frame = usable_battles(path).frame
    if frame.empty:
        raise ZooError(f"{path}: no usable rows to take lengths from; `zoo data validate` says why")
    return count_characters(frame)


def estimate_tokens(characters: np.ndarray, tokens: np.ndarray, *, cap: int | None) -> TokenEstimate:
    """How a member's tokens follow from characters, by least squares.

    Only rows that its cap leaves whole count. Two numbers are enough for a price: single rows miss by 10 % or so, sums over a
    file by far less.
    """
    if not tokens.any():
        return TokenEstimate(base=0.0, per_character=0.0, cap=cap)
    whole = tokens < cap if cap is not None else np.ones(len(tokens), dtype=bool)
    if whole.sum() < 2 or np.ptp(characters[whole]) == 0:
        return TokenEstimate(base=float(tokens.mean()), per_character=0.0, cap=cap)
    centred = characters[whole] - characters[whole].mean()
    slope = max(0.0, float(centred @ tokens[whole]) / float(centred @ centred))
    base = float(tokens[whole].mean() - slope * characters[whole].mean())
    if base < 0:
        base, slope = 0.0, float(tokens[whole].sum() / characters[whole].sum())
    return TokenEstimate(base=base, per_character=slope, cap=cap)


def tokens_of(estimate: TokenEstimate, characters: np.ndarray) -> np.ndarray:
    """Tokens (rows,) that the estimate gives rows of so many characters."""
    tokens = estimate.base + estimate.per_character * np.asarray(characters, dtype=np.float64)
    return tokens if estimate.cap is None else np.minimum(tokens, estimate.cap)
