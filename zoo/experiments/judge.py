"""Have trained entries judge pairs, each pair by the models that have not seen its prompt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.contracts import EntryJudge, FoldJudge, Input, JudgeRequest, Request, Say
from zoo.data.battles import Battles, count_characters, dataset_digest, read_battles
from zoo.data.columns import TEXT_COLUMNS, WINNER_COLUMNS
from zoo.data.judges import refuse_shared_ids
from zoo.data.made import write_pairs
from zoo.data.usable import read_rows, unkeyed_rows, unusable_line
from zoo.errors import ZooError
from zoo.pipeline.chain import battles_input
from zoo.pipeline.judges import Judge, judges_named, pairs_request
from zoo.pipeline.runner import run_stage
from zoo.settings import home
from zoo.stages.data.unseen import training_of, unseen
from zoo.store import JUDGED, Artifact, artifact_name, file_sha256, find, write_atomic
from zoo.tracking.sync import log_stage


def judge_pairs(
    names: Sequence[str], pairs: Path, human: Path, store: Path, *, entry: str, target: str | None, say: Say
) -> Artifact:
    """The artifact of a judge stage, after the score stages that the store lacks.

    `names`: of judges, as `zoo.pipeline.judges` has them. Each fold's model is loaded once where its human battles are scored
    already; a killed run goes on from its last chunk.
    """
    asked, votes = _read_pairs(pairs, say), battles_input(human, say=say, most_bad=1.0)
    found, voted = judges_named(names, votes, store, target), read_battles(human)
    refuse_shared_ids(asked, voted)
    given = _pairs_input(asked)
    judges = [_scored(judge, asked, voted, given, store, say) for judge in found]
    files = (Input(path=path.absolute(), fingerprint=file_sha256(path)[:16]) for path in (pairs, human))
    request = JudgeRequest(entry=entry, pairs=next(files), human=next(files), judges=tuple(judges))
    artifact = run_stage(request, store, say=say)
    log_stage(artifact.manifest, artifact.path)
    return artifact


def _read_pairs(path: Path, say: Say) -> Battles:
    """Pairs as far as they can be read; ZooError where no row can."""
    battles = read_rows(path)
    say(f"{path}: {len(battles.ids):,} rows; {battles.told}")
    if battles.bad_ids:
        say(f"{path}: {unusable_line(battles)}")
    if not len(battles.frame):
        raise ZooError(f"{path}: no row of it can be judged; `zoo data validate` says why")
    return battles


def _pairs_input(battles: Battles) -> Input:
    """Pairs as the score stages read them; where some rows have no id of their own, a copy without these."""
    digest, path = dataset_digest(battles), battles.path.absolute()
    if unkeyed_rows(battles):
        path = home() / JUDGED / f"pairs-{digest[:16]}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_pairs(path, _records(battles))
    return Input(path=path, fingerprint=digest)


def _records(battles: Battles) -> Iterator[dict[str, Any]]:
    """The usable rows in the competition's columns, whose digest is theirs."""
    for row_id, *texts, label in battles.frame.itertuples(index=False):
        turns = {name: json.dumps(text, ensure_ascii=False) for name, text in zip(TEXT_COLUMNS, texts, strict=True)}
        won = {name: int(label == place) for place, name in enumerate(WINNER_COLUMNS)} if battles.labelled else {}
        yield {"id": row_id, **turns, **won}


def _scored(judge: Judge, asked: Battles, voted: Battles, pairs: Input, store: Path, say: Say) -> EntryJudge:
    """Run the score stages of a judge, a fold after the other."""
    trainings = [training_of(model.trained.path, model.held.fold) for model in judge.models]
    say(f"{judge.name}: who has not seen which of {len(asked.frame):,} pairs' prompts")
    allowed = unseen(asked.frame, voted, trainings)
    order = np.argsort(-count_characters(asked.frame), kind="stable")  # the longest first, as the score stage has it
    ids = asked.frame["id"].to_numpy()
    folds, voted_by = [], dict[str, Artifact]()  # a lexical entry scores the human battles of all folds at once
    for fold, model in enumerate(judge.models):
        own = judge.human[fold]
        if artifact_name(own) not in voted_by:
            voted_by[artifact_name(own)] = _run(own, f"{judge.name} fold {fold}, its own human battles", store, say, track=True)
        human = voted_by[artifact_name(own)]
        listed = ids[order[allowed[order, fold]]].tolist()
        scored = None
        if listed:
            request = pairs_request(judge, fold, pairs, _list_input(listed))
            scored = _run(request, f"{judge.name} fold {fold}, {len(listed):,} pairs", store, say)
        folds.append(
            FoldJudge(
                fold=model.held.fold,
                trained=_as_input(model.trained),
                human=_as_input(human),
                pairs=_as_input(scored) if scored else None,
            )
        )
    return EntryJudge(name=judge.name, variants=judge.variants, folds=tuple(folds))


def _run(request: Request, what: str, store: Path, say: Say, *, track: bool = False) -> Artifact:
    known = find(store, request)
    say(f"score {what}: {'in the store' if known else 'running'} ({artifact_name(request)})")
    artifact = known or run_stage(request, store, say=say)
    if track:  # pairs are no battles that a member is compared on
        log_stage(artifact.manifest, artifact.path)
    return artifact


def _as_input(artifact: Artifact) -> Input:
    return Input(path=artifact.path, fingerprint=artifact.fingerprint)


def _list_input(ids: Sequence[str]) -> Input:
    listed = "\n".join(ids) + "\n"
    digest = hashlib.sha256(listed.encode()).hexdigest()
    path = home() / JUDGED / f"ids-{digest[:16]}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, listed)
    return Input(path=path, fingerprint=digest)
