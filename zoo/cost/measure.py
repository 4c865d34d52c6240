"""Measure a member's cost on the machine at hand, by scoring a small sample.

A few rows of each length go through the ordinary score stage.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zoo.contracts import (
    Entry,
    Held,
    Input,
    LexicalScoreRequest,
    QuantizeRequest,
    Request,
    Say,
    Scheme,
    ScoreRequest,
    Selection,
    ServeSpec,
    Variant,
    entry_of_form,
    forms_of,
)
from zoo.data.battles import count_characters
from zoo.data.usable import usable_battles
from zoo.errors import ZooError
from zoo.pipeline.chain import battles_input
from zoo.pipeline.runner import run_stage
from zoo.pipeline.runners.session import running_on
from zoo.pipeline.weights import fetched
from zoo.settings import home
from zoo.store import Artifact, list_artifacts, write_atomic
from zoo.targets import Target, is_of_kind, machine_fingerprint

SECONDS = 90.0  # of scoring, loading left out, that a measurement should take
FIRST_ROWS = 32  # what a CPU scores of a small model in a few seconds, four of each length
ROUNDS = 3  # samples after the first: its few batches, the engine's first, are slower than those that follow
STRATA = 8  # pieces of rows of about one length each: what tells rows, tokens and squares apart


def samples_folder() -> Path:
    """Store of measurements.

    They are kept apart from scored members: a sample is no candidate of the ensemble.
    """
    return home() / "cost"


def measure(entry: Entry, target: Target, battles: Path, store: Path, *, say: Say) -> Artifact:
    """Score a sample of `battles` with the entry's newest checkpoint of each form.

    The sample is stratified by length.

    As many rows as take about SECONDS without loading: a few first, then what fits by their speed, again while that was too
    few. Smaller samples are removed: they say less of the same machine. ZooError where this machine is not of the target's
    kind, or the store has no checkpoint. The artifact of the first form.
    """
    machine = machine_fingerprint()
    if not is_of_kind(machine, target):
        raise ZooError(f"--measure: this machine ({machine}) is not {target.name}; measure there, or leave --measure out")
    samples_folder().mkdir(parents=True, exist_ok=True)
    order = by_length(battles, say)
    with running_on("local", store, say):  # not by the runner that scoring has: it is this machine that is measured
        for form in forms_of(entry)[1:]:  # each is a checkpoint of its own
            _measure_form(entry_of_form(entry, form), target, battles, order, store, say)
        first = entry_of_form(entry, forms_of(entry)[0]) if forms_of(entry) else entry
        return _measure_form(first, target, battles, order, store, say)


def _measure_form(entry: Entry, target: Target, battles: Path, order: list[str], store: Path, say: Say) -> Artifact:
    """The same of an entry with one form."""
    rows = min(FIRST_ROWS, len(order))
    artifact = _score_sample(entry, target, battles, stratified(order, rows), store, say)
    for _ in range(ROUNDS):
        more = rows_that_fit(rows, artifact.manifest.measurements.run_seconds, len(order))
        if more <= rows:
            break
        smaller, rows = artifact, more
        artifact = _score_sample(entry, target, battles, stratified(order, rows), store, say)
        shutil.rmtree(smaller.path)
    return artifact


def rows_that_fit(rows: int, seconds: float, most: int) -> int:
    """Rows to measure after `rows` took `seconds`.

    As many as fit SECONDS, FIRST_ROWS doubled often enough, or all there are. Doubled, so that two measurements of one machine
    nearly always take the same rows. Never fewer than were measured.
    """
    fitting = rows * SECONDS / max(seconds, 1e-3)
    if fitting >= most:
        return most
    return min(most, max(rows, FIRST_ROWS << int(np.log2(max(1.0, fitting / FIRST_ROWS)))))


def _score_sample(entry: Entry, target: Target, battles: Path, ids: Sequence[str], store: Path, say: Say) -> Artifact:
    """The score stage on the listed rows, in the store of measurements."""
    folder, listed = samples_folder(), "\n".join(ids) + "\n"
    digest = hashlib.sha256(listed.encode()).hexdigest()
    path = folder / f"ids-{digest[:16]}.txt"
    write_atomic(path, listed)
    selection = Selection(rows="listed", ids=Input(path=path, fingerprint=digest))
    request = sample_request(entry, target, battles_input(battles), selection, len(ids), store)
    say(f"measuring {entry.name} on {len(ids)} rows of {battles.name}")
    return run_stage(request, folder, say=say)


def by_length(battles: Path, say: Say = lambda _: None) -> list[str]:
    """Ids of a file's usable rows, longest first. ZooError where there are none."""
    frame = usable_battles(battles, say=say).frame
    if frame.empty:
        raise ZooError(f"{battles}: no usable rows to measure on; `zoo data validate` says why")
    order = np.argsort(-count_characters(frame), kind="stable")
    return [str(row_id) for row_id in frame["id"].to_numpy()[order]]


def stratified(order: Sequence[str], rows: int) -> list[str]:
    """At most `rows` of the ids, evenly spread over their order, first and last among them.

    Where they are sorted by length, each length has its share.
    """
    places = np.linspace(0, len(order) - 1, min(rows, len(order))).round().astype(int)
    return [order[place] for place in np.unique(places)]


def sample_request(entry: Entry, target: Target, battles: Input, selection: Selection, rows: int, store: Path) -> Request:
    """The request of the entry's newest checkpoint for a listed sample.

    Cut into STRATA chunks or smaller ones of its own.
    """
    if entry.kind == "lexical":
        model = _as_input(_newest(entry, store, "lexical-train"))
        return LexicalScoreRequest(entry=entry.name, model=model, battles=battles, selection=selection, target=target.name)
    if entry.prompt is None or entry.score is None:
        raise ZooError(f"{entry.name}: {entry.a_kind} needs [prompt] and [score]")
    served = "merge" if entry.kind == "encoder" else "quantize"
    chunk = min(entry.score.chunk_rows, max(1, rows // STRATA))
    return ScoreRequest(
        entry=entry.name,
        model=_as_input(_newest(entry, store, served, next(iter(forms_of(entry)), None))),
        battles=battles,
        held=Held(),
        selection=selection,
        prompt=entry.prompt,
        # One order of each token cap: both take the same time, and what they share is not theirs to be priced by.
        spec=entry.score.model_copy(update={"chunk_rows": chunk, "variants": one_order(entry)}),
        serve=entry.serve.get(target.name, ServeSpec()),
        target=target.name,
    )


def one_order(entry: Entry) -> tuple[Variant, ...]:
    """The first variant of each way to read rows, whatever the order of the answers."""
    variants = entry.score.variants if entry.score else ()
    return tuple({v.reads: v for v in reversed(variants)}.values())[::-1]


def _newest(entry: Entry, store: Path, stage: str, form: Scheme | None = None) -> Artifact:
    made = [a for a in list_artifacts(store, stage) if a.manifest.request.entry == entry.name]
    if form is not None:
        made = [a for a in made if isinstance(a.manifest.request, QuantizeRequest) and a.manifest.request.spec.scheme == form]
    if made:
        return made[-1]
    weights = fetched(entry, store) if stage == "quantize" else None
    if weights is None:
        raise ZooError(f"{entry.name}: no checkpoint in {store} to measure; run `zoo run {entry.name} --data FILE` first")
    return weights


def _as_input(artifact: Artifact) -> Input:
    return Input(path=artifact.path, fingerprint=artifact.fingerprint)
