"""What a sample of scored battles says of weights from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from zoo.contracts import LABELS, ScoreRequest
from zoo.data.battles import Battles
from zoo.data.splits import prompt_groups
from zoo.errors import ZooError
from zoo.pipeline.class_order import LEAST_NATS, SIDES, Exchange, exchange
from zoo.scores.leaks import in_sample
from zoo.scores.metrics import label_share_loss, log_loss_rows, mean_and_error, recalibrated_log_loss, uniform_loss
from zoo.scores.tables import CARD, NO_FOLD, OK, SCORES, probabilities, read_card, read_scores, without_ties
from zoo.store import Artifact

ERRORS = 3.0  # standard errors by which another order of the classes must be better before it is told


@dataclass(frozen=True)
class Look:
    """One variant's answers on labelled rows that it is not known to have learned from.

    Log losses in nats: `error` by prompts, `label_shares` and `uniform` of guessing, `recalibrated` after the best temperature
    and label biases. `cut`: rows that were cut to the token cap. `warnings`: what looks wrong, with the mend.
    """

    variant: str
    rows: int
    log_loss: float
    error: float
    label_shares: float
    uniform: float
    recalibrated: float
    tokens: float
    cut: int
    warnings: tuple[str, ...]


def looks(scored: Artifact, battles: Battles, classes: tuple[str, ...] | None) -> list[Look]:
    """A look at each variant of a score artifact.

    `classes`: of a classifier, what its outputs are taken for.

    ZooError where no labelled row was scored.
    """
    request = scored.manifest.request
    assert isinstance(request, ScoreRequest)
    return [_look(scored.path / one.slug, one.slug, battles, request, classes) for one in request.spec.variants]


def _look(folder: Path, slug: str, battles: Battles, request: ScoreRequest, classes: tuple[str, ...] | None) -> Look:
    truth, table = battles.frame.set_index("id"), read_scores(folder / SCORES)
    known = (table["status"] == OK) & (table["id"].map(truth["label"]).fillna(-1) >= 0)
    if (table["fold"] != NO_FOLD).any():  # the others it has learned from
        known &= table["fold"] != NO_FOLD
    table = table[known].reset_index(drop=True)
    if table.empty:
        raise ZooError(f"{battles.path}: none of the rows that were scored is labelled; give labelled battles")
    frame = truth.loc[table["id"]]
    p = probabilities(table) if battles.can_tie else without_ties(probabilities(table))
    y, groups = frame["label"].to_numpy(dtype=np.int64), prompt_groups(frame, request.held.rule)
    loss, error = mean_and_error(log_loss_rows(p, y), groups)
    uniform = uniform_loss(ties=battles.can_tie)
    orders = {} if battles.can_tie else {"orders": (SIDES,)}
    found = exchange(p, y, groups, errors=ERRORS, **orders)
    cut = int((table["n_truncated_tokens"] > 0).sum())
    warnings = [
        read_card(folder / CARD).suspect,
        in_sample(p, y, groups, []),
        _told(found, classes) if found else "",
        f"no better than guessing (log loss {loss:.4f}, where that has {uniform:.4f}): is the prompt the one it was trained "
        "with?"
        if loss > uniform and not found
        else "",
        f"{cut:,} of {len(table):,} rows are cut to the token cap: was it trained with a longer one?" if cut else "",
    ]
    return Look(
        variant=slug,
        rows=len(table),
        log_loss=loss,
        error=error,
        label_shares=label_share_loss(y),
        uniform=uniform,
        recalibrated=recalibrated_log_loss(p, y),
        tokens=float(table["n_tokens"].mean()),
        cut=cut,
        warnings=tuple(filter(None, warnings)),
    )


def better_prompt(given: Artifact, other: Artifact, names: dict[str, str], battles: Battles) -> str:
    """What to say of another prompt by which the same rows are answered better, with the mend.

    Empty where there is none. Better than by the first variant of `given`, as another order of the classes has to be: surely,
    and also where either has its best temperature and label biases. `names`: of the variants of `other`, by slug.
    """
    request = given.manifest.request
    assert isinstance(request, ScoreRequest)
    truth, rule = battles.frame.set_index("id"), request.held.rule
    own = _judged(given.path / request.spec.variants[0].slug, truth["label"])
    best: tuple[float, str] = (0.0, "")
    for slug, name in names.items():
        ids = own.index.intersection(_judged(other.path / slug, truth["label"]).index)
        if ids.empty:
            continue
        y = truth["label"].loc[ids].to_numpy(dtype=np.int64)
        groups = prompt_groups(truth.loc[ids], rule)
        pair = [frame.loc[ids].to_numpy() for frame in (own, _judged(other.path / slug, truth["label"]))]
        p, q = pair if battles.can_tie else [without_ties(one) for one in pair]
        gain, error = mean_and_error(log_loss_rows(p, y) - log_loss_rows(q, y), groups)
        surely = gain > LEAST_NATS and gain > ERRORS * error
        if surely and gain > best[0] and recalibrated_log_loss(q, y) < recalibrated_log_loss(p, y) - LEAST_NATS / 2:
            numbers = f"log loss {log_loss_rows(q, y).mean():.4f} by it, {log_loss_rows(p, y).mean():.4f} as it is"
            mend = f"register it with --template {name}"
            best = gain, f"the prompt {name} fits better: {numbers} ({gain:.4f} +- {error:.4f}); {mend}"
    return best[1]


def _judged(folder: Path, labels: pd.Series) -> pd.DataFrame:
    """Probabilities by id of a variant's labelled rows that it has not learned from."""
    table = read_scores(folder / SCORES)
    known = (table["status"] == OK) & (table["id"].map(labels).fillna(-1) >= 0)
    if (table["fold"] != NO_FOLD).any():
        known &= table["fold"] != NO_FOLD
    kept = table[known].reset_index(drop=True)
    return pd.DataFrame(probabilities(kept), index=kept["id"])


def _told(found: Exchange, classes: tuple[str, ...] | None) -> str:
    """What an exchange looks like, and the mend."""
    numbers = (
        f"log loss {found.given:.4f} as it is, {found.exchanged:.4f} in that order ({found.gain:.4f} +- {found.error:.4f})"
    )
    if classes is not None:
        order = ",".join(found.names[LABELS.index(one)] for one in classes)
        return f"the classes look exchanged: its outputs are rather {order}: {numbers}; register it with --classes {order}"
    if found.order == SIDES:
        mend = "exchange {response_a} and {response_b} in the template, or its labels A and B"
    else:
        mend = "give the labels in another order in a prompt.json"
    return f"the labels look exchanged: what stands for a, b, tie are rather {', '.join(found.names)}: {numbers}; {mend}"
