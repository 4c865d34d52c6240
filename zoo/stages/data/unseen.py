"""Which fold models have not seen a prompt, nor a near-copy of it.

A prompt is seen by the measure that leaves out `train.extra` rows: one of its turns, or all of them as one text, is a turn or
the whole of a prompt that was learned from, or a near-copy of one, or stands in one, or the other way round; or it joins the
group of near-copies of one, by the rule of the folds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from zoo.contracts import Held, Input, LexicalTrainRequest, TrainRequest, rule_name
from zoo.data.battles import Battles, read_battles
from zoo.data.keys import copies_by_text, prompt_texts
from zoo.data.splits import assign_folds, group_hashes
from zoo.errors import ZooError
from zoo.stages.train.extra_battles import joined_groups, share_apart, why_not
from zoo.store import MANIFEST, file_sha256, read_manifest


@dataclass(frozen=True)
class Training:
    """What a fold's model learned from.

    The human battles outside its fold, and the extra files of its trainings, the last one first.
    """

    held: Held
    trainings: tuple[TrainRequest | LexicalTrainRequest, ...] = ()


def training_of(folder: Path, fold: int) -> Training:
    """What the model of a train artifact learned from.

    `fold` says which model of a lexical one, which has all. ZooError where what an earlier training learned is no longer known,
    or near-copies of held-out prompts were not left out.
    """
    request = read_manifest(folder).request
    if not isinstance(request, TrainRequest | LexicalTrainRequest):
        raise ZooError(f"{folder.name}: not the artifact of a training; judge again with its entry")
    chain = [request]
    while isinstance(chain[-1], TrainRequest) and (start := chain[-1].start) is not None:
        found = next(folder.parent.glob(f"train-{start.fingerprint}/{MANIFEST}"), None)
        earlier = read_manifest(found.parent).request if found else None
        if not isinstance(earlier, TrainRequest):
            raise ZooError(
                f"{folder.name}: went on from train-{start.fingerprint}, which the store has no more, so that nobody knows "
                "what it has seen; train it again"
            )
        chain.append(earlier)
    split, battles = _split(request), request.battles.fingerprint
    if other := next((one for one in chain if (_split(one), one.battles.fingerprint) != (split, battles)), None):
        raise ZooError(
            f"{folder.name}: went on from a training that held out {_split(other)} of {other.battles.fingerprint}, and holds "
            f"out {split} of {battles}: it has seen prompts that it holds out; train it again"
        )
    if any(one.extra_files and one.extra_rule is None for one in chain):
        raise ZooError(f"{folder.name}: was made before near-copies of held-out prompts were left out; train it again")
    held = request.held if isinstance(request, TrainRequest) else Held(n_folds=request.spec.folds, fold=fold, rule=request.rule)
    return Training(held, tuple(chain))


def _split(request: TrainRequest | LexicalTrainRequest) -> str:
    if isinstance(request, LexicalTrainRequest):
        return "all folds"  # each in turn
    return f"fold {request.held.fold} of {request.held.n_folds} by {rule_name(request.held.rule)}"


def unseen(frame: Any, human: Battles, models: Sequence[Training]) -> np.ndarray:
    """Which of one entry's fold models have not seen a row's prompt: bool, (rows, models).

    `frame`: rows of a battles frame; `human`: the labelled battles that the folds are of. All their usable rows outside a
    model's fold count as seen, whether or not it took all; so do the rows of extra files that training did not leave out.
    """
    split = models[0].held
    if any((model.held.n_folds, model.held.rule) != (split.n_folds, split.rule) for model in models):
        raise ZooError("fold models of several splits; judge with those of one")
    allowed = np.ones((len(frame), len(models)), dtype=bool)
    learners: dict[str, set[int]] = defaultdict(set)
    for place, prompts in enumerate(_learned(human, models)):
        for turns in prompts:
            for text in prompt_texts(turns):
                learners[text].add(place)
    texts = [prompt_texts(turns) for turns in frame["prompt"]]
    nearly = copies_by_text({text for own in texts for text in own}, learners)
    folds = np.array([model.held.fold for model in models])
    groups = set(group_hashes(human.frame, split.rule).tolist())
    for row, (own, joined) in enumerate(zip(texts, joined_groups(frame, human.frame, split.rule), strict=True)):
        copies = {copy for text in own for copy in nearly.get(text, ())}
        allowed[row, [place for copy in copies for place in learners[copy]]] = False
        for group in joined & groups:
            allowed[row] &= folds == group % split.n_folds
    return allowed


def _learned(human: Battles, models: Sequence[Training]) -> Iterator[Iterator[Any]]:
    """The prompts that each model learned from."""
    split = models[0].held
    folds = assign_folds(human.frame, split.n_folds, split.rule)
    for model in models:
        frames = [human.frame[folds != model.held.fold]]
        for request in model.trainings:
            frames += _extra_frames(request, model.held, human)
        yield (turns for frame in frames for turns in frame["prompt"])


def _extra_frames(request: TrainRequest | LexicalTrainRequest, held: Held, human: Battles) -> list[Any]:
    """The rows of a training's extra files that it did not leave out, labelled or not.

    `held`: of a lexical one's model. Those that it left out for an extra file before them count, too: which of that one's rows
    it learned is not asked here.
    """
    apart, found = 0.0, list[Any]()
    if isinstance(request, TrainRequest):
        held, apart = request.held, share_apart(human, request.held, request.spec)
    for extra in request.extra_files:
        frame = _read_extra(extra.battles, human.path.parent).frame
        found.append(frame[why_not(frame, human.frame, held, request.extra_rule, apart=apart) == ""])
    return found


def _read_extra(given: Input, beside: Path) -> Battles:
    """An extra file by its content: where it lay when it was learned from, or under its name beside the human battles."""
    path = given.path
    for place in (path, beside / path.name):
        if place.is_file() and file_sha256(place)[:16] == given.fingerprint:
            return _read(place)
    raise ZooError(
        f"{path}: a judge has learned from it (train.extra), and it is gone or changed, so that nobody knows which prompts "
        f"were seen; put it back there, or beside the human battles as {path.name}"
    )


@cache
def _read(path: Path) -> Battles:
    return read_battles(path)
