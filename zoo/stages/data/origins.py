"""Whether a judge has learned from the human battles, as far as its table can tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from zoo.contracts import LexicalTrainRequest, Request, ScoringRequest, TrainRequest
from zoo.data.battles import Battles, dataset_digest
from zoo.data.judges import JudgeTable
from zoo.errors import ZooError
from zoo.scores.tables import CARD, SCORES, read_card
from zoo.store import MANIFEST, file_sha256, read_manifest, source_of

UNSEEN = "by models that had not seen its prompt (`zoo data judge`)"
HELD_OUT = "out of fold"
OTHER = "by a model of other battles; near-copies were not looked for"
UNKNOWN = "nobody can tell here whether the judge has learned from them"


def origins(paths: Sequence[Path], tables: Mapping[str, JudgeTable], names: Sequence[str], human: Battles) -> dict[str, str]:
    """What is known of each score table's verdicts on human battles, by the table's name.

    ZooError for a table of a model that has learned from them: its verdicts there say how well it remembers.
    """
    own = {name: path for name, path in zip(names, paths, strict=True) if name in tables}
    return {name: _origin(path, tables[name], human) for name, path in own.items()}


def _origin(path: Path, table: JudgeTable, human: Battles) -> str:
    if table.cross_fitted:
        return UNSEEN
    card = read_card(path.parent / CARD) if path.name == SCORES and (path.parent / CARD).is_file() else None
    request, folder = card.request if card else None, path.parent.parent
    if request is None:
        return UNKNOWN
    digest = dataset_digest(human)
    if request.selection.rows == "held_out" and request.battles.fingerprint == digest:
        return HELD_OUT
    trainings = list(_trainings(request, folder))
    if not trainings:
        return UNKNOWN
    learned = {digest, file_sha256(human.path)[:16]} & {name for training in trainings for name in _learned(training)}
    if learned and not set(human.frame["id"]).isdisjoint(table.rows):
        raise ZooError(
            f"{path}: {card.member if card else path.name} has learned from {human.path.name}, and these are no rows that it "
            f"held out; give a table of `zoo data judge --judge {request.entry} --data {human.path.name}`"
        )
    return OTHER if not learned else UNKNOWN


def _trainings(request: ScoringRequest, folder: Path) -> Iterator[Request]:
    """The requests of all trainings of a score table's model, as far as the store of its artifact has them."""
    if not (folder / MANIFEST).is_file():
        return
    found = source_of(read_manifest(folder), folder, "train", "lexical-train")
    while found is not None:
        yield found.manifest.request
        found = source_of(found.manifest, found.path, "train", depth=0)


def _learned(training: Request) -> Iterator[str]:
    """What identifies the files that a training learned from: main ones by their rows, extra ones by their bytes."""
    if isinstance(training, TrainRequest | LexicalTrainRequest):
        yield training.battles.fingerprint
        yield from (extra.battles.fingerprint for extra in training.extra_files)
