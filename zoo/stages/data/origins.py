"""Whether a judge has learned from the human battles, as far as its table can tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from zoo.contracts import Input, LexicalTrainRequest, MergeRequest, ScoringRequest, TrainRequest
from zoo.data.battles import Battles, dataset_digest, read_battles
from zoo.data.judges import JudgeTable
from zoo.data.keys import battle_digests
from zoo.data.made import report_beside
from zoo.errors import ZooError
from zoo.scores.tables import CARD, SCORES, read_card
from zoo.store import MANIFEST, file_sha256, read_manifest, source_of

Key = tuple[bytes, frozenset[bytes]]  # of a battle, in either order
UNSEEN = "by models that had not seen its prompt (`zoo data judge`)"
HELD_OUT = "out of fold"
OTHER = "by a model of other battles; near-copies were not looked for"
MOVED = (
    "as its columns say by models that had not seen its prompt, but no report of `zoo data judge` for these bytes lies beside "
    "it, so that nobody can tell"
)
UNKNOWN = "nobody can tell here whether the judge has learned from them"


def origins(
    paths: Sequence[Path], tables: Mapping[str, JudgeTable], names: Sequence[str], pairs: Battles, human: Battles
) -> dict[str, str]:
    """What is known of each score table's verdicts on human battles, by the table's name.

    These are of human battles by their ids, and of pairs that are human battles by their texts. ZooError for a table of a model
    that has learned from them: its verdicts there say how well it remembers.
    """
    own = {name: path for name, path in zip(names, paths, strict=True) if name in tables}
    return {name: _origin(path, tables[name], pairs, human) for name, path in own.items()}


def _is_of_judge(path: Path) -> bool:
    """Whether a table is what `zoo data judge` left, byte for byte.

    By the report beside it, or the artifact that it is in.
    """
    if (path.parent / MANIFEST).is_file():
        return read_manifest(path.parent).stage == "judge"
    try:
        report = report_beside(path)
    except ZooError:
        return False
    return report.get("stage") == "judge" and "file_sha256" in report


def _origin(path: Path, table: JudgeTable, pairs: Battles, human: Battles) -> str:
    if table.cross_fitted:  # as its columns say
        return UNSEEN if _is_of_judge(path) else MOVED
    card = read_card(path.parent / CARD) if path.name == SCORES and (path.parent / CARD).is_file() else None
    request, folder = card.request if card else None, path.parent.parent
    if request is None:
        return UNKNOWN
    digest, trainings = dataset_digest(human), list(_trainings(request, folder))
    split = {digest, *(training.battles.fingerprint for training in trainings)}  # human battles may be a part of what it is of
    if request.selection.rows == "held_out" and request.battles.fingerprint in split and not _averages(folder):
        return HELD_OUT
    if not trainings:
        return UNKNOWN
    judged, of_human, found = _judged_too(table, pairs, human), {digest, file_sha256(human.path)[:16]}, OTHER
    for given in (given for training in trainings for given in _learned(training)):
        its_own = given.fingerprint in of_human
        keys = judged if its_own else _battles_of(given)
        if keys and not keys.isdisjoint(judged):
            raise ZooError(
                f"{path}: {card.member if card else path.name} has learned from {human.path.name}, and these are no rows that "
                f"it held out; give a table of `zoo data judge --judge {request.entry} --data {human.path.name}`"
            )
        found = UNKNOWN if keys is None or its_own else found
    return found


def _judged_too(table: JudgeTable, pairs: Battles, human: Battles) -> set[Key]:
    """The human battles that a table has verdicts on, by their own ids or as pairs of the same texts."""
    here, there = (frame[frame["id"].isin(table.rows.keys())] for frame in (human.frame, pairs.frame))
    return _keys(here) | (_keys(human.frame) & _keys(there))


def _keys(frame: pd.DataFrame) -> set[Key]:
    return {(prompt, frozenset((a, b))) for prompt, a, b in battle_digests(frame)}


def _battles_of(given: Input) -> set[Key] | None:
    """The battles of a file that was learned from; None where it is gone or changed."""
    if given.place is None or not given.place.is_file():
        return None
    battles = read_battles(given.place, strict=False)
    same = given.fingerprint in (file_sha256(given.place)[:16], dataset_digest(battles))
    return _keys(battles.frame) if same else None


def _averages(folder: Path) -> bool:
    """Whether a table is of several folds' models in one checkpoint, which has seen every prompt."""
    merge = source_of(read_manifest(folder), folder, "merge") if (folder / MANIFEST).is_file() else None
    request = merge.manifest.request if merge else None
    return isinstance(request, MergeRequest) and bool(request.more_adapters)


def _trainings(request: ScoringRequest, folder: Path) -> Iterator[TrainRequest | LexicalTrainRequest]:
    """The requests of all trainings of a score table's model, as far as the store of its artifact has them."""
    if not (folder / MANIFEST).is_file():
        return
    found = source_of(read_manifest(folder), folder, "train", "lexical-train")
    while found is not None:
        if isinstance(found.manifest.request, TrainRequest | LexicalTrainRequest):
            yield found.manifest.request
        found = source_of(found.manifest, found.path, "train", depth=0)


def _learned(training: TrainRequest | LexicalTrainRequest) -> Iterator[Input]:
    """The files that a training learned from: main ones are known by their rows, extra ones by their bytes."""
    yield training.battles
    yield from (extra.battles for extra in training.extra_files)
