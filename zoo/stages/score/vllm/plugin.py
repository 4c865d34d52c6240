"""The vLLM plugin: model classes registered in every process of the engine.

vLLM finds it by the entry point `vllm.general_plugins`. Registering changes nothing by itself. A model is rescaled only where
its config names one of these architectures, which `rescale_overrides` makes it do for entries that ask for it.
"""

from __future__ import annotations

from typing import Any

from zoo.checks.rules import RESCALABLE
from zoo.errors import ZooError
from zoo.models.heads import causal_name

MODULE = "zoo.stages.score.vllm.gemma_float16"


def register() -> None:
    """Make vLLM know the rescaled classes by name; they are imported where one is loaded.

    Called twice, it does the same.
    """
    from vllm import ModelRegistry

    for name in RESCALABLE:
        ModelRegistry.register_model(f"Rescaled{name}", f"{MODULE}:Rescaled{name}")


def rescale_overrides(config: dict[str, Any], bits: int | None) -> dict[str, Any]:
    """The `hf_overrides` of `vllm.LLM` that make a model run rescaled.

    `config` is the model's config.json; without `bits` the result is empty. The new model type, which vLLM does not know, is
    what gets past its refusal of Gemma in float16. ZooError where the model is none that can be rescaled.
    """
    if bits is None:
        return {}
    architecture = causal_name((config.get("architectures") or ["none"])[0])
    if architecture not in RESCALABLE:
        raise ZooError(
            f"float16_rescale_bits: {architecture} cannot be rescaled, only {', '.join(sorted(RESCALABLE))}; remove it"
        )
    return {
        "architectures": [f"Rescaled{architecture}"],
        "model_type": f"{config['model_type']}_float16",
        "float16_rescale_bits": bits,
    }
