"""Folds of an entry: a chain a fold, the whole file scored out of fold, and all folds' adapters as one checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from zoo.contracts import Entry, Held, Input, MergeRequest, QuantizeRequest, Request, Selection, TrainRequest
from zoo.errors import ZooError
from zoo.metrics import score_metrics
from zoo.pipeline import Say, chain, output_of, run_chain
from zoo.scores import OK, probabilities, read_scores
from zoo.store import Artifact


@dataclass(frozen=True)
class OutOfFold:
    """One variant over all folds: the joined table, and its metrics by fold and over every row."""

    slug: str
    table: pd.DataFrame
    by_fold: dict[int, dict[str, float]]
    whole: dict[str, float]


def fold_chains(
    entry: Entry, battles: Input, target: str, store: Path, *, n_folds: int, selection: Selection, source: str | None = None
) -> list[list[Request]]:
    """The chain of each fold, in order. A lexical entry scores every row out of fold by itself, so it has one chain."""
    if entry.lexical is not None:
        entry = entry.model_copy(update={"lexical": entry.lexical.model_copy(update={"folds": n_folds})})
    folds = range(n_folds if entry.kind == "causal_lm" else 1)
    helds = [Held(n_folds=n_folds, fold=fold) for fold in folds]
    return [chain(entry, battles, target, store, held=held, selection=selection, source=source) for held in helds]


def run_folds(chains: Sequence[list[Request]], entry: Entry, store: Path, *, say: Say, track: bool = True) -> list[Artifact]:
    """Run the chains one after the other; the last artifact of each. What is in the store is not made again."""
    finished = []
    for number, requests in enumerate(chains):
        say(f"{entry.name}: fold {number} of {len(chains)}")
        finished.append(run_chain(requests, entry, store, say=say, track=track)[-1])
    return finished


def average_chain(chains: Sequence[list[Request]], store: Path) -> list[Request]:
    """Merge and quantize requests of one checkpoint that holds the mean of all folds' low-rank updates.

    It has seen every labelled row, so its log loss on this file would say nothing: it is for serving, on battles to come.
    """
    trained = [request for requests in chains for request in requests if isinstance(request, TrainRequest)]
    merges = [request for request in chains[0] if isinstance(request, MergeRequest)]
    quantizes = [request for request in chains[0] if isinstance(request, QuantizeRequest)]
    if not merges or not quantizes or any(request.spec.method == "full" for request in trained):
        raise ZooError(f"{chains[0][0].entry}: has no adapters to average; an entry trained with lora or qlora has them")
    adapters = tuple(output_of(request, store) for request in trained)
    merge = merges[0].model_copy(update={"adapter": adapters[0], "more_adapters": adapters[1:]})
    return [merge, quantizes[0].model_copy(update={"model": output_of(merge, store)})]


def out_of_fold(scored: Sequence[Artifact], labels: pd.Series) -> list[OutOfFold]:
    """Each variant's tables of all folds as one, with metrics. `labels`: 0, 1, 2 by row id, -1 where there is none.

    ZooError where a row is scored in two folds: then the tables are not of one split.
    """
    slugs = sorted(path.parent.name for path in scored[0].path.glob("*/scores.parquet"))
    return [
        _joined(slug, [read_scores(artifact.path / slug / "scores.parquet") for artifact in scored], labels) for slug in slugs
    ]


def _joined(slug: str, tables: Sequence[pd.DataFrame], labels: pd.Series) -> OutOfFold:
    table = pd.concat(tables, ignore_index=True)
    if twice := table.loc[table["id"].duplicated(), "id"].tolist():
        raise ZooError(
            f"{slug}: {len(twice)} rows are scored in two folds, first {twice[0]}; the tables are of different splits"
        )
    by_fold = {fold: _metrics(table[table["fold"] == fold], labels) for fold in sorted(set(table["fold"].tolist()))}
    return OutOfFold(slug, table, by_fold, _metrics(table, labels))


def _metrics(table: pd.DataFrame, labels: pd.Series) -> dict[str, float]:
    truth = labels.reindex(table["id"]).to_numpy()
    known = (table["status"] == OK).to_numpy() & (np.nan_to_num(truth, nan=-1) >= 0)
    return score_metrics(probabilities(table)[known], truth[known].astype(np.int64))


def folds_table(found: Sequence[OutOfFold]) -> str:
    """Log loss of each variant by fold and over all rows, with standard errors."""
    from zoo.views import text_table

    rows = []
    for variant in found:
        parts = [(str(fold), metrics) for fold, metrics in variant.by_fold.items()] + [("all, out of fold", variant.whole)]
        for name, m in parts:
            losses = [f"{m[key]:.4f}" if key in m else "-" for key in ("val/log_loss", "val/log_loss_se", "val/refinement")]
            rows.append([variant.slug, name, *losses, f"{m.get('val/rows', 0):.0f}"])
    return text_table(["variant", "fold", "log loss", "se", "recalibrated", "rows"], rows)
