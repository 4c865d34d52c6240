"""Cross-validation of an entry: its chains, one a fold, and the request of their average.

The folds' score tables are joined in `zoo.scores.out_of_fold`; `zoo.experiments.run` calls both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zoo.contracts import (
    AdoptRequest,
    Entry,
    Held,
    Input,
    MergeRequest,
    QuantizeRequest,
    Request,
    Selection,
    TrainRequest,
    changed,
)
from zoo.errors import ZooError
from zoo.pipeline.chain import chain, output_of


def fold_chains(
    entry: Entry, battles: Input, target: str, store: Path, *, held: Held, selection: Selection, source: str | None = None
) -> list[list[Request]]:
    """The chain of each fold of `held.n_folds`, in order.

    A lexical entry scores every row out of fold by itself, so it has one chain; so has an entry whose weights were trained
    elsewhere and are not of folds: every row is scored by the same ones.
    """
    if entry.elsewhere is not None and not entry.elsewhere.by_fold:
        every = selection.model_copy(update={"rows": "all"})
        return [chain(entry, battles, target, store, held=changed(held, fold=0), selection=every, source=source)]
    if entry.lexical is not None:
        entry = entry.model_copy(update={"lexical": entry.lexical.model_copy(update={"folds": held.n_folds})})
    folds = range(1 if entry.kind == "lexical" else held.n_folds)
    helds = [changed(held, fold=fold) for fold in folds]
    return [chain(entry, battles, target, store, held=one, selection=selection, source=source) for one in helds]


def average_chain(chains: Sequence[list[Request]], store: Path) -> list[Request]:
    """Merge and quantize requests of one checkpoint averaged over all folds, in each form.

    Of an encoder the merge alone.

    The checkpoint holds the mean of the folds' low-rank updates. It has seen every labelled row, so its log loss on this file
    would say nothing: it is for serving, on battles to come.
    """
    kinds = (TrainRequest, AdoptRequest)
    by_fold = [[request for request in requests if isinstance(request, kinds)] for requests in chains]
    trained = [requests[-1] for requests in by_fold if requests]  # what an earlier training left is in the last
    merges = [request for request in chains[0] if isinstance(request, MergeRequest)]
    quantizes = [request for request in chains[0] if isinstance(request, QuantizeRequest)]
    whole = any(isinstance(request, TrainRequest) and request.spec.method == "full" for request in trained)
    if not merges or whole or len(trained) < 2:
        raise ZooError(f"{chains[0][0].entry}: has no adapters to average; an entry trained with lora or qlora has them")
    adapters = tuple(output_of(request, store) for request in trained)
    merge = merges[0].model_copy(update={"adapter": adapters[0], "more_adapters": adapters[1:]})
    return [merge, *(one.model_copy(update={"model": output_of(merge, store)}) for one in quantizes)]
