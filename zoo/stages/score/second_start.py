"""Second starts of an engine: with smaller batches, other attention, without peer access."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from zoo.contracts import ScoreSpec, ServeSpec
from zoo.errors import OutOfMemory
from zoo.stages.score.vllm.engine import batch_tokens, cache_bytes, longest_row
from zoo.targets.capabilities import AMPERE

ATTENTION = "ZOO_ATTENTION"  # vLLM's attention backend, where whoever starts the stage knows better than vLLM
ANY_CARD = "TRITON_ATTN"  # compiles its kernels as it goes, for every card, and needs no modules compiled beforehand
SILENCE = "nothing heard"  # begins what is said of an engine that was given up

Cause = Literal["memory", "silence", "other"]


@dataclass(frozen=True)
class SecondStart:
    """Changes to an engine's arguments and environment, for failures of one cause."""

    cause: Cause
    told: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def told_attention(on_gpu: bool) -> dict[str, str]:
    """The argument for the attention backend that the environment names, if it names one."""
    name = os.environ.get(ATTENTION)
    return {"attention_backend": name} if on_gpu and name else {}


def second_starts(
    config: dict[str, Any],
    spec: ScoreSpec,
    serve: ServeSpec,
    arguments: Mapping[str, Any],
    capability: tuple[int, int] | None,
    *,
    gpus: int,
) -> tuple[SecondStart, ...]:
    """What can be tried on cards of this capability, where the engine has not loaded yet.

    Each once. Numbers of another attention, or of other batches, differ from those of the plan by rounding alone. `gpus`: of
    one copy.
    """
    found = []
    smaller = spec.model_copy(
        update={
            "max_batched_tokens": spec.max_batched_tokens // 2,
            "max_seqs": max(1, spec.max_seqs // 2),
            "kv_cache_bytes": None,
        }
    )
    if spec.max_batched_tokens // 2 > longest_row(spec):
        changed = {
            "max_num_batched_tokens": batch_tokens(smaller),
            "max_num_seqs": smaller.max_seqs,
            "kv_cache_memory_bytes": cache_bytes(config, smaller, serve, gpus=gpus, on_gpu=True),
        }
        told = f"started again with batches of {batch_tokens(smaller):,} tokens, which takes longer: how much is not measured"
        found.append(SecondStart("memory", told, changed))
    if gpus > 1:
        told = "started again without direct access between the cards, which takes longer: how much is not measured"
        found.append(SecondStart("silence", told, environment={"NCCL_P2P_DISABLE": "1"}))
    if capability is not None and capability < AMPERE and "attention_backend" not in arguments:
        told = (
            f"started again with {ANY_CARD}: without tensor cores here, by estimate 20 to 40 % more time at 1,000 tokens a row"
        )
        found.append(SecondStart("other", told, {"attention_backend": ANY_CARD}))
    return tuple(found)


def cause_of(why: str) -> Cause:
    """Which of the causes an engine's end at its start has, by what it said."""
    if why.startswith(SILENCE):
        return "silence"
    return "memory" if OutOfMemory.is_told_by(why) else "other"
