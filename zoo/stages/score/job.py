"""How the engines of a scoring run are started, by its request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from zoo.contracts import ScoreRequest
from zoo.models.shapes import SCHEME_KEY, read_config
from zoo.stages.score.engines import Job
from zoo.stages.score.placement import gpus_of
from zoo.stages.score.second_start import second_starts, told_attention
from zoo.stages.score.vllm.emulation import emulation_arguments, emulation_environment
from zoo.stages.score.vllm.engine import engine_arguments
from zoo.stages.score.vllm.kernels import form_environment
from zoo.targets import load_target


def engine_job(
    request: ScoreRequest,
    folder: Path,
    label_ids: tuple[int, int, int],
    where: Sequence[Mapping[str, str]],
    *,
    on_gpu: bool,
) -> Job:
    """How the engines are started.

    They serve as the entry says on the target, or on the target that is emulated.
    """
    model = request.model.path / "model"
    serving = load_target(request.emulates or request.target)
    gpus = max(1, gpus_of(request.serve, serving))
    arguments = engine_arguments(model, request.spec, request.serve, gpus=gpus, on_gpu=on_gpu) | told_attention(on_gpu)
    environment = form_environment(read_config(model).get(SCHEME_KEY), on_gpu=on_gpu)
    if request.emulates:
        arguments = emulation_arguments(serving, request.serve, arguments, on_gpu)
        environment = emulation_environment(serving) | environment
    capability = serving.compute_capability
    others = second_starts(read_config(model), request.spec, request.serve, arguments, capability, gpus=gpus) if on_gpu else ()
    return Job(
        arguments=arguments,
        label_ids=label_ids,
        folder=folder,
        places=tuple({**place, **environment} for place in where),
        model_bytes=sum(file.stat().st_size for file in model.glob("*.safetensors")),
        second_starts=others,
    )
