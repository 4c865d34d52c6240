"""The best trial against the entry as it is, on rows that chose it and on others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo.contracts import Entry, EvaluateRequest, Input, Say, Selection
from zoo.errors import ZooError
from zoo.experiments.cards import Cards
from zoo.experiments.needs import need_of
from zoo.experiments.run import run_chain
from zoo.experiments.scored import scored_rows
from zoo.experiments.tune.training import Following, followed
from zoo.experiments.tune.trials import Setting
from zoo.pipeline.chain import output_of
from zoo.pipeline.runner import watched
from zoo.scores.metrics import log_loss_rows, mean_and_error
from zoo.scores.tuned import ComparedOn


def judged_on(
    shared: Setting, entries: tuple[Entry, Entry], ids: Input, cards: Cards, *, say: Say
) -> tuple[ComparedOn, ComparedOn]:
    """The entry's own settings and the best trial's, on rows that choose and that judge.

    What is not in the store any more is trained again first.
    """
    own, best = (_losses(shared, entry, ids, cards, say=say) for entry in entries)
    return _compared(shared, own, best, shared.rows.choosing), _compared(shared, own, best, shared.rows.judging)


def _losses(shared: Setting, entry: Entry, ids: Input, cards: Cards, *, say: Say) -> dict[str, float]:
    """Log loss in nats of every listed row, by id."""
    assert entry.prompt is not None and entry.train is not None
    trains = shared.requests(entry)
    evaluation = EvaluateRequest(
        entry=entry.name,
        base=shared.base,
        trained=output_of(trains[-1], shared.store),
        method=entry.train.method,
        scale=entry.merge.scale,
        battles=shared.battles,
        held=shared.held,
        selection=Selection(rows="listed", ids=ids),
        prompt=entry.prompt,
    )

    unstopped = Following(lambda *_: "", lambda: "")
    with cards.lent(need_of(entry, shared.store)) as loan:
        keep_open = (loan.lock,) if loan.lock >= 0 else ()
        with watched(lambda partial: followed(partial, unstopped, say=say), environment=loan.environment, keep_open=keep_open):
            artifact = run_chain([*trains, evaluation], entry, shared.store, say=say)[-1]
    scored = scored_rows(artifact, shared.rows.labels)
    return dict(zip(scored.ids, log_loss_rows(scored.p, scored.y).tolist(), strict=True))


def _compared(shared: Setting, own: dict[str, float], best: dict[str, float], ids: Sequence[str]) -> ComparedOn:
    """Means over the rows that both have, and the paired difference with its error by prompts."""
    both = [row_id for row_id in ids if row_id in own and row_id in best]
    if not both:
        raise ZooError("no held-out row could be evaluated; look into the logs of the evaluations in the store", exit_code=1)
    mine, theirs = (np.array([losses[row_id] for row_id in both]) for losses in (best, own))
    groups = np.array([shared.rows.labels.prompts[row_id] for row_id in both])
    difference, error = mean_and_error(mine - theirs, groups)
    return ComparedOn(
        rows=len(both),
        prompts=len(set(groups.tolist())),
        own=float(theirs.mean()),
        best=float(mine.mean()),
        difference=difference,
        error=error,
    )
