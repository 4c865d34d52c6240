"""Adapters that a training starts from: of the same base, and blind to what is held out."""

from __future__ import annotations

from pathlib import Path

from zoo.contracts import Held, Input, TrainRequest, rule_name
from zoo.errors import ZooError
from zoo.scores.named import artifacts_named
from zoo.store import MANIFEST, fingerprint, read_manifest

SAME = ("method", "rank", "alpha", "rslora", "dora", "target_modules")  # what makes two adapters the same tensors of one update


def start_input(name: str, store: Path) -> Input:
    """The train artifact that `train.start` names, as a stage's input.

    ZooError where the store has none of that name.
    """
    found = artifacts_named(store, [name])
    if len(found) != 1 or read_manifest(found[0]).stage != "train":
        raise ZooError(f"train.start: {name} is not one train artifact; name one as `zoo train` does: train-FINGERPRINT")
    return Input(path=found[0], fingerprint=fingerprint(read_manifest(found[0]).request))


def check_start(request: TrainRequest) -> None:
    """ZooError where a training may not start from the adapter that it is given.

    As far as that is there. An adapter must have held out what is held out now: else it has seen these prompts, and every log
    loss on them is false. And it must be the same tensors of the same base.
    """
    if request.start is None or request.start.place is None or not (request.start.path / MANIFEST).exists():
        return
    made, name = read_manifest(request.start.path).request, f"train.start: {request.start.path.name}"
    if not isinstance(made, TrainRequest):
        raise ZooError(f"{name} is of stage {made.stage}; name a train artifact")
    if made.held != request.held:
        raise ZooError(
            f"{name} held out {_split(made.held)}, this training {_split(request.held)}: it has seen prompts that are held out "
            "here; name an adapter of the same split, or let [train.first] train one a fold"
        )
    if made.battles.fingerprint != request.battles.fingerprint:
        raise ZooError(
            f"{name} held out prompts of another file; train it on this one (with train.only_extra = true what it learns "
            "from is train.extra alone)"
        )
    if made.extra and made.extra_rule is None:
        raise ZooError(f"{name} was made before near-copies of held-out prompts were left out; train it again")
    if made.base.fingerprint != request.base.fingerprint:
        raise ZooError(f"{name} is an adapter of another base; train it on {request.entry}'s")
    for key in SAME:
        theirs, ours = getattr(made.spec, key), getattr(request.spec, key)
        if theirs != ours:
            raise ZooError(f"{name} has train.{key} = {theirs!r}, this training {ours!r}; set it to {theirs!r}")


def _split(held: Held) -> str:
    return f"fold {held.fold} of {held.n_folds} by {rule_name(held.rule)}"
