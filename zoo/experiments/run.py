"""Run an entry's chain for one fold or all, and log each stage to MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zoo.contracts import Entry, Held, QuantizeRequest, Request, Say, ScoreRequest, Selection
from zoo.data.usable import MOST_BAD
from zoo.errors import ZooError
from zoo.pipeline.chain import battles_input, chain, emulating, emulating_training, ladder_request
from zoo.pipeline.folds import average_chain, fold_chains
from zoo.pipeline.runner import run_stage
from zoo.scores.ladder import Step, steps_from_metrics
from zoo.scores.out_of_fold import OutOfFold, out_of_fold
from zoo.store import Artifact, artifact_name, find
from zoo.tracking.bounded import SECONDS

Ahead = Callable[[Sequence[Sequence[Request]]], None]  # is given all chains before the first is run here


@dataclass(frozen=True)
class RunOptions:
    """What a run of an entry's stages is asked for.

    `last`: the stage it ends with. `every_fold`: each fold of `held` in turn. `average`: with every fold, then one checkpoint
    of their averaged adapters. `diagnostic`: fewer rows (`score_rows`) are a sample to look at, never a member's table.
    `emulated`: the smaller target to score as; where `last` is train, to train as. `most_bad`: share of
    the rows that may be unusable.
    """

    last: str
    battles: Path
    target: str
    held: Held
    every_fold: bool = False
    average: bool = False
    score_rows: int | None = None
    diagnostic: bool = False
    source: str | None = None
    emulated: str | None = None
    most_bad: float = MOST_BAD


@dataclass(frozen=True)
class Finished:
    """What a run left.

    That is what each chain ends with, the joined tables where every fold was scored, the averaged checkpoint in each form, and
    of each chain that was held to a gate the ladder's steps and figure.
    """

    chains: list[list[Request]]
    artifacts: list[Artifact]
    folds: list[OutOfFold]
    averaged: tuple[Artifact, ...] = ()
    ladders: tuple[tuple[list[Step], Path], ...] = ()


def run_gated(entry: Entry, options: RunOptions, store: Path, *, say: Say, ahead: Ahead | None = None) -> Finished:
    """Run an entry's stages, then the ladder of each chain where the entry's gate asks for it.

    Whether it holds, `zoo.scores.ladder.check_gate` says of each ladder. The rest as `run_entry` has it.
    """
    finished = run_entry(entry, options, store, say=say, ahead=ahead)
    if options.emulated or entry.ladder.max_ladder_loss is None:
        return finished
    return replace(finished, ladders=tuple(climb(entry, requests, store, say=say) for requests in finished.chains))


def run_entry(entry: Entry, options: RunOptions, store: Path, *, say: Say, ahead: Ahead | None = None) -> Finished:
    """Run an entry's stages up to the last one asked for.

    What is in the store is not made again; `ahead` may have others put it there.
    """
    chains = entry_chains(entry, options, store, say=say)
    wanted, averaging = wanted_of(entry, options, chains, store)
    if ahead is not None:
        ahead([*wanted, averaging])
    if not options.every_fold:
        return Finished(chains, _ends(run_chain(wanted[0], entry, store, say=say)), [])
    finished = run_folds(wanted, entry, store, say=say)
    folds = _out_of_fold(finished, options.battles) if options.last == "score" else []
    if not averaging:
        return Finished(chains, finished, folds)
    say(f"{entry.name}: the mean of {len(chains)} folds' adapters")
    return Finished(chains, finished, folds, tuple(_ends(run_chain(averaging, entry, store, say=say))))


def wanted_of(
    entry: Entry, options: RunOptions, chains: Sequence[list[Request]], store: Path
) -> tuple[list[list[Request]], list[Request]]:
    """What is asked for of each chain, and the averaged checkpoint's.

    Each ends with the stage that is to be the last; the averaged one is empty where none is wanted.
    ZooError where the entry has no such stage, or no adapters to average.
    """
    names = [request.stage.removeprefix("lexical-") for request in chains[0]]
    if options.last not in names:
        raise ZooError(f"{entry.name}: {entry.a_kind} has no stage {options.last!r}; it has {', '.join(names)}")
    end = len(names) - names[::-1].index(options.last)  # an entry may train twice
    return [requests[:end] for requests in chains], average_chain(chains, store) if options.average else []


def entry_chains(entry: Entry, options: RunOptions, store: Path, *, say: Say = lambda _: None) -> list[list[Request]]:
    """The requests of a run, a chain a fold.

    ZooError for options that do not go together, before any file is read.
    """
    if options.average and not options.every_fold:
        raise ZooError("--average is of all folds; give --folds N, without --fold")
    battles = battles_input(options.battles, say=say, most_bad=options.most_bad)
    if options.score_rows is not None and entry.kind == "lexical":
        say(f"{entry.name}: --score-rows {options.score_rows} is not used; a lexical entry scores every row in seconds")
    sample = options.diagnostic and options.score_rows is not None
    selection = Selection(max_rows=options.score_rows, diagnostic=sample)
    if options.every_fold:
        held = options.held
        chains = fold_chains(entry, battles, options.target, store, held=held, selection=selection, source=options.source)
    else:
        found = chain(entry, battles, options.target, store, held=options.held, selection=selection, source=options.source)
        chains = [found]
    if not options.emulated:
        return chains
    if options.last != "train":
        return [emulating(requests, entry, options.emulated) for requests in chains]
    if options.average:
        raise ZooError("--average: with --as there is no one of these trainings to merge; leave one of them out")
    return [emulating_training(requests, entry, options.emulated, store) for requests in chains]


def run_chain(requests: list[Request], entry: Entry, store: Path, *, say: Say, track: bool = True) -> list[Artifact]:
    """Run stages in order and mirror each to MLflow; the artifacts, the last stage's last."""
    artifacts = []
    for request in requests:
        known = find(store, request)
        say(f"{request.stage} {entry.name}: {'in the store' if known else 'running'} ({artifact_name(request)})")
        started = time.monotonic()
        artifact, seconds = (known, SECONDS) if known else _run(request, entry, store, say, track=track)
        if not known:
            say(f"{request.stage} {entry.name}: done in {time.monotonic() - started:.0f} s")
        artifacts.append(artifact)
        if track:
            from zoo.tracking.sync import log_stage

            log_stage(artifact.manifest, artifact.path, entry, seconds=seconds)
    return artifacts


def _run(request: Request, entry: Entry, store: Path, say: Say, *, track: bool) -> tuple[Artifact, float]:
    """Run one stage, shown in MLflow as it runs where that is wanted.

    With it the seconds that are left for an answer when it is logged to its end.
    """
    if not track:
        return run_stage(request, store, say=say), SECONDS
    from zoo.tracking.live import shown_live

    with shown_live(request, entry, store) as shown:
        artifact = run_stage(request, store, say=say)
    return artifact, shown.seconds_left


def run_folds(chains: Sequence[list[Request]], entry: Entry, store: Path, *, say: Say, track: bool = True) -> list[Artifact]:
    """Run the chains one after the other; what each ends with.

    What is in the store is not made again.
    """
    finished = []
    for number, requests in enumerate(chains):
        say(f"{entry.name}: fold {number} of {len(chains)}")
        finished += _ends(run_chain(requests, entry, store, say=say, track=track))
    return finished


def _ends(artifacts: Sequence[Artifact]) -> list[Artifact]:
    """What a chain ends with: its last artifact, or those of every form that it was quantized in."""
    last = artifacts[-1].manifest.request
    if not isinstance(last, QuantizeRequest | ScoreRequest):
        return [artifacts[-1]]
    return [artifact for artifact in artifacts if artifact.manifest.stage == last.stage]


def run_ladder(entry: Entry, options: RunOptions, store: Path, *, say: Say) -> tuple[list[Step], Path]:
    """Run what is missing of one fold's stages, then the ladder; its steps, and their figure."""
    (requests,) = entry_chains(entry, options, store, say=say)
    ladder_request(entry, requests, store)  # an entry without a ladder is refused before hours are spent
    run_chain(requests, entry, store, say=say)
    return climb(entry, requests, store, say=say)


def climb(entry: Entry, requests: Sequence[Request], store: Path, *, say: Say) -> tuple[list[Step], Path]:
    """Run the ladder of a finished chain; its steps, and the figure of them."""
    artifact = run_chain([ladder_request(entry, requests, store)], entry, store, say=say)[-1]
    return steps_from_metrics(artifact.manifest.metrics), artifact.path / "ladder.png"


def _out_of_fold(scored: Sequence[Artifact], battles: Path) -> list[OutOfFold]:
    import pandas as pd

    from zoo.data.battles import read_battles
    from zoo.data.splits import prompt_groups

    read = read_battles(battles)
    rules = {getattr(getattr(a.manifest.request, "held", None), "rule", None) for a in scored}
    groups = pd.Series(prompt_groups(read.frame, next(iter(rules)) if len(rules) == 1 else None), index=read.frame["id"])
    return out_of_fold(scored, read.frame.set_index("id")["label"], groups, ties=read.can_tie)
