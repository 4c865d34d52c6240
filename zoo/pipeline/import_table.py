"""Import score tables made elsewhere as members, and refuse what cannot be right."""

from __future__ import annotations

import datetime
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.contracts import Cost, FileRecord, ImportRequest, Input, Manifest, Measurements, Say, ScoreCard, Variant
from zoo.errors import ZooError
from zoo.pipeline.import_checks import Given, checked_table
from zoo.pipeline.table_columns import LABELS, PLAIN
from zoo.scores.metric_names import FAILED_ROWS
from zoo.store import PARTIAL, Artifact, artifact_name, commit, file_sha256, find, fingerprint, locked

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from zoo.data.battles import Battles

MOST_SECONDS = 1e9  # 30 years: what is above is a slip, and its sums over rows would end in infinities
VARIANT = Variant()  # an imported table has no variants; its folder is that of the plain one


@dataclass(frozen=True)
class Imported:
    """A member made of a table from elsewhere: its folder, what was read, of which battles."""

    path: Path
    given: Given
    battles: Battles


def import_scores(
    name: str,
    scores: Path,
    labels: Path,
    *,
    target: str,
    load_seconds: float = 0.0,
    seconds_per_row: float | None = None,
    seconds_per_1k_tokens: float | None = None,
    gpus: int | None = None,
    like: str = "",
    columns: Mapping[str, str] | None = None,
    store: Path,
    say: Say = lambda _: None,
    most_bad: float | None = None,
) -> Imported:
    """Put a table of `scores` for the battles of `labels` into the store as the member `name`.

    `labels` needs ids and winners only; `say` and `most_bad` as `zoo.data.usable.usable_battles` takes them.
    The table is of any format that `zoo.data.formats` reads, with `id, p_a, p_b, p_tie[, fold, n_tokens, status]`, with other
    usual names (`prob_model_a`, `pred_a`, `A`, ..., a submission's `winner_model_a`), or with
    those in `columns` (by `id`, `a`, `b`, `tie`). It has a row for every usable battle; rows that were not scored say so in
    `status`. The cost is that of one copy on `gpus` of the target's GPUs (None: all of them, so that nothing is assumed to run
    beside it); `like`: that of an entry (ENTRY or ENTRY@VARIANT), forecast for whichever target a build is for. With neither
    a build asks for one. ZooError, with row ids, for what cannot be right.
    """
    from zoo.data.battles import dataset_digest
    from zoo.data.usable import MOST_BAD, usable_battles

    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,79}", name):
        raise ZooError(f"{name!r} is not a member's name; use lower-case letters, digits, '.', '_' and '-'")
    battles = usable_battles(labels, say=say, most_bad=MOST_BAD if most_bad is None else most_bad, need_texts=False)
    if not battles.labelled:
        raise ZooError(f"{labels}: has no winner columns; give the battles that the scores are of, with their winners")
    given = checked_table(scores, battles, columns)
    table = given.table
    request = ImportRequest(
        entry=name,
        scores=Input(path=scores.absolute(), fingerprint=file_sha256(scores)[:16]),
        battles=Input(path=labels.absolute(), fingerprint=dataset_digest(battles)),
        cost=_cost(target, load_seconds, seconds_per_row, seconds_per_1k_tokens, gpus, like, table),
        columns=_choice(given),
    )
    with locked(store, artifact_name(request)):
        found = find(store, request)
        return Imported((found or _commit(request, table, battles, store)).path, given, battles)


def _choice(given: Given) -> str:
    """The columns that were read, as part of the request's identity; empty where no choice was made.

    Without one a table has the fingerprint that it had when no others could be read.
    """
    plain = given.columns["id"] == "id" and given.columns.probabilities in (PLAIN, LABELS)
    return "" if plain and not given.chosen else str(given.columns)


def _cost(
    target: str,
    load: float,
    per_row: float | None,
    per_1k_tokens: float | None,
    gpus: int | None,
    like: str,
    table: pd.DataFrame,
) -> Cost:
    """The cost that the options declare; one without a price where they declare none."""
    from zoo.entries.load import load_variant
    from zoo.targets import load_target

    prices = {"--load-seconds": load, "--seconds-per-row": per_row, "--seconds-per-1k-tokens": per_1k_tokens}
    for option, seconds in prices.items():
        if seconds is not None and not 0 <= seconds <= MOST_SECONDS:
            raise ZooError(f"{option} {seconds:g}: give seconds between 0 and {MOST_SECONDS:g}")
    if sum((per_row is not None, per_1k_tokens is not None, bool(like))) > 1:
        raise ZooError("a member has one price: give one of --seconds-per-row, --seconds-per-1k-tokens and --like")
    if per_1k_tokens is not None and not (table["n_tokens"] > 0).all():
        raise ZooError("--seconds-per-1k-tokens needs the column n_tokens in the table; add it, or give --seconds-per-row")
    machine = load_target(target)
    if gpus is not None and gpus > machine.gpus:
        raise ZooError(f"--gpus {gpus}: target {machine.name} has {machine.gpus}")
    if per_row is None and per_1k_tokens is None:
        if load or gpus is not None:
            raise ZooError(
                "--load-seconds and --gpus are parts of a price: give --seconds-per-row or --seconds-per-1k-tokens too"
            )
        if like:
            load_variant(like)
        return Cost(target=machine.name, load_seconds=0.0, gpus=machine.gpus, like=like, priced=False)
    return Cost(
        target=machine.name,
        load_seconds=load,
        seconds_per_row=per_row or 0.0,
        seconds_per_token=(per_1k_tokens or 0.0) / 1000,
        gpus=machine.gpus if gpus is None else gpus,
    )


def _commit(request: ImportRequest, table: pd.DataFrame, battles: Battles, store: Path) -> Artifact:
    """Write the table, its card and the manifest as an artifact like any other."""
    from zoo.scores.leaks import in_sample, partly_leaked
    from zoo.scores.tables import CARD, OK, SCORES, write_card, write_scores

    partial = store / PARTIAL / artifact_name(request)
    shutil.rmtree(partial, ignore_errors=True)
    folder = partial / VARIANT.slug
    folder.mkdir(parents=True)
    write_scores(table, folder / SCORES)
    failed = int((table["status"] != OK).sum())
    rows = labelled_rows(table, battles)
    card = ScoreCard(
        member=request.entry,
        entry=request.entry,
        variant=VARIANT,
        target=request.cost.target,
        engine="imported",
        dataset_digest=request.battles.fingerprint,
        rows=len(table),
        failed_rows=failed,
        checkpoint=request.scores.fingerprint,
        cost=request.cost,
        request=None,
        suspect=in_sample(rows.p, rows.y, rows.groups, []) or partly_leaked(rows.p, rows.y),
    )
    write_card(card, folder / CARD)
    metrics = {f"{VARIANT.slug}:{key}": value for key, value in _metrics(table, battles, failed).items()}
    return commit(partial, store / artifact_name(request), lambda files: _manifest(request, metrics, len(table), files))


@dataclass(frozen=True)
class Labelled:
    """The rows of a table that are scored and labelled, in its order.

    `p` of shape (rows, 3), p_tie taken out where battles of this kind have no ties; `ids`, labels `y` and `groups` (prompts) of
    shape (rows,).
    """

    ids: list[str]
    p: np.ndarray
    y: np.ndarray
    groups: np.ndarray


def labelled_rows(table: pd.DataFrame, battles: Battles) -> Labelled:
    """The rows of a table that its log loss is measured on."""
    import numpy as np

    from zoo.data.splits import prompt_groups
    from zoo.scores.tables import OK, probabilities, without_ties

    truth = battles.frame[battles.frame["label"] >= 0].set_index("id")
    table = table[(table["status"] == OK) & table["id"].isin(truth.index)]
    truth = truth.loc[table["id"]]
    y = truth["label"].to_numpy(dtype=np.int64)
    p = probabilities(table) if battles.can_tie else without_ties(probabilities(table))
    return Labelled(table["id"].tolist(), p, y, prompt_groups(truth))


def _metrics(table: pd.DataFrame, battles: Battles, failed: int) -> dict[str, float]:
    import numpy as np

    from zoo.data.splits import groups_of
    from zoo.scores.metrics import score_metrics
    from zoo.scores.tables import OK, probabilities

    truth = battles.frame.set_index("id")["label"].reindex(table["id"]).fillna(-1).to_numpy(dtype=np.int64)
    known = (table["status"] == OK).to_numpy() & (truth >= 0)
    tokens = table["n_tokens"].to_numpy()[known]
    lengths = tokens if tokens.any() else None
    groups = groups_of(battles, table["id"][known])
    measured = score_metrics(probabilities(table)[known], truth[known], lengths, ties=battles.can_tie, groups=groups)
    return {FAILED_ROWS: float(failed), **measured}


def _manifest(request: ImportRequest, metrics: dict[str, float], rows: int, files: dict[str, FileRecord]) -> Manifest:
    from zoo.pipeline.provenance import git_commit

    return Manifest(
        stage=request.stage,
        fingerprint=fingerprint(request),
        request=request,
        files=files,
        metrics=metrics,
        measurements=Measurements(rows=rows),
        hardware={},  # made elsewhere: nothing is known of the machine
        packages={},
        git_commit=git_commit(),
        argv=(),
        created_at=datetime.datetime.now(datetime.UTC),
    )
