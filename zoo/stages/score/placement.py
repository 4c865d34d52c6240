"""Placement of a model's copies on the GPUs at hand, by the layout."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.contracts import ServeSpec
from zoo.errors import ZooError
from zoo.targets import Target, only_gpus


def places(serve: ServeSpec, target: Target, gpus: tuple[str, ...]) -> tuple[Mapping[str, str], ...]:
    """The environment of each copy.

    A GPU each as replicas, else one copy on as many GPUs as the target has. Fewer replicas than the target's run where fewer
    GPUs are at hand; a copy that is split has to have them all.
    """
    if target.gpus == 0 or (not gpus and serve.layout == "replicas"):
        return ({},)
    if serve.layout == "replicas":
        return tuple(only_gpus([gpu]) for gpu in gpus[: target.gpus])
    if len(gpus) < target.gpus:
        raise ZooError(
            f"serve.layout = {serve.layout!r}: {target.name} has {target.gpus} GPUs, {len(gpus)} are visible here; "
            "score on a machine that has them"
        )
    return (only_gpus(gpus[: target.gpus]),)


def gpus_of(serve: ServeSpec, target: Target) -> int:
    """GPUs that one copy of the model takes; 0 on processors."""
    return min(target.gpus, 1) if serve.layout == "replicas" else target.gpus
