"""The rows of a training: which are learned from and how, held out, or set apart."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.contracts import TrainRequest
from zoo.data.battles import Battles
from zoo.data.splits import sample_rows, select_apart, select_training
from zoo.errors import ZooError
from zoo.models.prompts import Codec
from zoo.stages import progress
from zoo.stages.train.examples import Example, examples, learned_targets, read_teacher
from zoo.stages.train.extra_battles import all_extra_rows, share_apart


@dataclass(frozen=True)
class Rows:
    """Examples to learn from, held out, and set apart to choose a scale by.

    Those of extra files are among the first; the others are samples. `counts`: how many are of what kind.
    """

    train: list[Example]
    held: list[Example]
    apart: list[Example]
    counts: dict[str, float]


def read_examples(request: TrainRequest, codec: Codec, battles: Battles) -> Rows:
    """The rows of a training.

    ZooError where there is nothing to learn from, or nothing held out.
    """
    spec = request.spec
    share = share_apart(battles, request.held, spec)
    train_frame, held_frame = select_training(
        battles, request.held, max_rows=spec.max_rows, seed=spec.seed, apart=share, say=progress.note
    )
    if spec.only_extra:
        train_frame = train_frame.iloc[:0]
    if held_frame.empty or (train_frame.empty and not spec.only_extra):
        together = f" (folds by {request.held.rule} keep near-copies of a prompt together)" if request.held.rule else ""
        found_rows = f"{len(train_frame)} rows to train on, {len(held_frame)} held out{together}"
        raise ZooError(f"{request.battles.path}: {found_rows}; label more rows")
    teacher = read_teacher(request.teacher.path) if request.teacher else None
    votes = spec.targets == "votes" and not spec.only_extra
    learned = learned_targets(train_frame, battles, spec, votes=votes, teacher=teacher)
    extra, counts = all_extra_rows(request, battles, teacher if request.teaches_extra else None)
    counts |= {"train/rows_with_votes": float(learned.voted)} if votes else {}
    if request.teacher:
        counts["train/rows_with_teacher"] = float(learned.taught)
        if not learned.taught and not any(one.taught for one in extra):
            raise ZooError(
                f"{request.teacher.path}: has none of the rows to train on; score the teacher on the same battles, out of fold"
            )
    train = examples(train_frame, codec, request.prompt, learned.targets)
    for one in extra:
        train += examples(one.frame, codec, request.prompt, one.targets)
    apart_frame = select_apart(battles, request.held, share)
    if spec.scales and apart_frame.empty:
        raise ZooError(f"{request.battles.path}: too few prompts to set some apart for train.scales; take the setting out")
    held, apart = (examples(sample_rows(f, spec.eval_rows), codec, request.prompt) for f in (held_frame, apart_frame))
    return Rows(train, held, apart, counts)
