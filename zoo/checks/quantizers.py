"""Quantization backends and the architectures that each quantizes.

`zoo register`, `zoo check` and the quantize stage all read the table below. A backend's name is also in `Quantizer`
(`zoo/contracts/forms.py`, with what `QuantizeSpec` allows of it), in its call (`run_backend` of
`zoo/stages/quantize/stage.py`), in what vLLM runs its format by (`check_kernel` in `zoo/checks/kernels.py`, `awq_converted` in
`zoo/checks/rules.py`) and, for the default, in `zoo/entries/register.py`.
"""

from __future__ import annotations

from zoo.contracts import Quantizer

# Decoders that AutoAWQ 0.2.9 can quantize (awq/models/auto.py) and vLLM 0.32 can score, without their "ForCausalLM".
# fmt: off
_AUTOAWQ = (
    "Bloom", "Cohere", "DeepseekV2", "DeepseekV3", "Exaone", "Falcon", "Gemma", "Gemma2", "GPTBigCode", "GPTJ", "GPTNeoX",
    "InternLM2", "Llama", "MiniCPM", "MiniCPM3", "Mistral", "Mixtral", "OPT", "Phi3", "Qwen2", "Qwen3", "Qwen3Moe", "StableLm",
    "Starcoder2",
)
# Those that llm-compressor 0.14 has AWQ mappings for (modifiers/transform/awq/mappings.py) and vLLM 0.32 can score.
_LLM_COMPRESSOR = (
    "Bloom", "Cohere", "Cohere2", "DeepseekV2", "DeepseekV3", "Exaone4", "Gemma2", "Gemma3", "Granite", "Llama", "Mistral",
    "Olmo", "Olmo3", "Phi3", "Qwen2", "Qwen3", "Qwen3Moe", "SeedOss",
)
# Those of Llama's names whose checkpoints auto-round 0.16 writes in autoawq's layout, which vLLM reads whatever the decoder.
_AUTO_ROUND = ("Gemma", "Gemma2", "Gemma3", "Llama", "Mistral", "Qwen2", "Qwen3")
# fmt: on
BACKEND_ARCHITECTURES: dict[Quantizer, frozenset[str]] = {  # the one that is preferred first
    "autoawq": frozenset(f"{name}ForCausalLM" for name in _AUTOAWQ),
    "llm-compressor": frozenset(f"{name}ForCausalLM" for name in _LLM_COMPRESSOR),
    "auto-round": frozenset(f"{name}ForCausalLM" for name in _AUTO_ROUND),
}


# Decoders of Llama's names and order, norm by norm, which zoo/stages/quantize/smoothing.py takes apart.
SMOOTHED = frozenset(f"{name}ForCausalLM" for name in ("Gemma", "Gemma2", "Gemma3", "Llama", "Mistral", "Qwen2", "Qwen3"))


def quantizer_of(architecture: str, preferred: Quantizer = "autoawq") -> Quantizer | None:
    """The backend that quantizes an architecture.

    The preferred one where it can, else the first that can; None where no backend can.
    """
    able = [backend for backend, known in BACKEND_ARCHITECTURES.items() if architecture in known]
    return preferred if preferred in able else next(iter(able), None)


def supported_decoders() -> str:
    """Names of every architecture that some backend quantizes, for a message."""
    known = sorted(set().union(*BACKEND_ARCHITECTURES.values()))
    return ", ".join(name.removesuffix("ForCausalLM") for name in known)
