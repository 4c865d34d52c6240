"""Adapters that a training starts from: of the same base, and blind to what is held out."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from zoo.contracts import Held, Input, TrainRequest, changed, rule_name
from zoo.errors import ZooError
from zoo.scores.named import artifacts_named
from zoo.store import MANIFEST, Artifact, fingerprint, list_artifacts, read_manifest

CHECKPOINT = "checkpoint"  # a train stage's folder of what a run that goes on needs
STATE = "state.json"  # in it, written last: a folder that holds it is whole
SAME = ("method", "rank", "alpha", "rslora", "dora", "target_modules")  # what makes two adapters the same tensors of one update


def start_input(name: str, store: Path) -> Input:
    """The train artifact that `train.start` names, as a stage's input.

    ZooError where the store has none of that name.
    """
    found = artifacts_named(store, [name])
    if len(found) != 1 or read_manifest(found[0]).stage != "train":
        raise ZooError(f"train.start: {name} is not one train artifact; name one as `zoo train` does: train-FINGERPRINT")
    return Input(path=found[0], fingerprint=fingerprint(read_manifest(found[0]).request))


def step_kept(partial: Path) -> int:
    """The step that a training in a folder would go on from.

    -1 where nothing is kept, as of stages that begin anew.
    """
    found = [-1]
    for path in partial.glob(f"{CHECKPOINT}*/{STATE}"):  # one may just be taking another's place
        with suppress(OSError, ValueError, KeyError, TypeError):
            found.append(int(json.loads(path.read_text())["progress"]["step"]))
    return max(found)


def stopped_earlier(request: TrainRequest, store: Path) -> Artifact | None:
    """The training to go on from: one that its `train.max_hours` stopped.

    It differs in these alone. Of several the one with the most hours. None where there is none, or none with fewer hours than
    are asked for now.
    """
    hours = request.spec.max_hours or float("inf")
    wanted = fingerprint(_without_hours(request))
    found = [
        (made.spec.max_hours, artifact)
        for artifact in list_artifacts(store, "train")
        if isinstance(made := artifact.manifest.request, TrainRequest)
        and made.spec.max_hours is not None
        and made.spec.max_hours < hours
        and (artifact.path / CHECKPOINT).is_dir()
        and fingerprint(_without_hours(made)) == wanted
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _without_hours(request: TrainRequest) -> TrainRequest:
    return request.model_copy(update={"spec": changed(request.spec, max_hours=None)})


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
    if made.head != request.head:
        raise ZooError(f"{name} has head = {made.head!r}, {request.entry} {request.head!r}; name one of the same head")
    spec = request.spec
    if spec.scales and (not made.spec.scales or made.spec.eval_rows != spec.eval_rows):
        raise ZooError(
            f"{name} has learned from the prompts that are set apart here to choose a scale; name one that was trained with "
            f"train.scales and train.eval_rows = {spec.eval_rows}, or take train.scales out"
        )
    for key in SAME:
        theirs, ours = getattr(made.spec, key), getattr(request.spec, key)
        if theirs != ours:
            raise ZooError(f"{name} has train.{key} = {theirs!r}, this training {ours!r}; set it to {theirs!r}")


def _split(held: Held) -> str:
    return f"fold {held.fold} of {held.n_folds} by {rule_name(held.rule)}"
