"""Forms of a checkpoint: how weights and activations are quantized."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

from pydantic import Field, model_validator

from zoo.contracts.base import Contract, Fraction, Positive, added_later, changed

Quantizer = Literal["autoawq", "llm-compressor", "auto-round"]  # what each can quantize: zoo/checks/quantizers.py
Scheme = Literal["awq", "int8", "w4a8", "fp8"]  # what each is, and what it asks of a machine: docs/quantization.md
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)


class QuantizeSpec(Contract):
    """How the merged weights are quantized.

    `awq`: 4 bit weights, 16 bit activations (Lin et al. 2023, arXiv 2306.00978), by a backend. The others have activations of
    8 bits with a scale a token, and are made by this project (zoo/stages/quantize/forms.py): `int8` and `fp8` have 8 bit
    weights with a scale an output channel, `w4a8` symmetric 4 bit weights in groups.
    """

    scheme: Scheme = added_later("awq", description="the form of a checkpoint whose variant names none")
    backend: Quantizer = Field(
        "autoawq",
        description="others need environments of their own: `make setup-llmcompressor`, `setup-autoround`",
    )
    bits: Literal[4] = Field(4, description="of an AWQ weight")
    group_size: Positive = Field(128, description="weights that share a scale: 32 or 64 for small models")
    zero_point: bool = Field(True, description="whether a group of AWQ weights has a zero of its own")
    calibration_rows: Positive = Field(128, description="blocks of calibration tokens")
    calibration_tokens: Positive = Field(512, description="tokens a calibration block; prompts are joined and cut into blocks")
    apply_clip: bool = Field(True, description="search clipping thresholds")
    skip_modules: tuple[str, ...] = Field((), description="parts of names of layers that stay in 16 bits")
    seed: int = Field(0, description="of the sample of calibration rows")
    finer_share: Fraction = added_later(
        0.25, description="of the linear layers' products: as much may stay in 16 bits beside 8 bit weights"
    )

    iterations: Positive = added_later(200, description="steps in which auto-round learns how a layer is rounded")

    @model_validator(mode="after")
    def _check(self) -> QuantizeSpec:
        for wanted, lacking in _halved(self.skip_modules):
            raise ValueError(
                f"quantize.skip_modules: engines multiply {wanted!r} and {lacking!r} as one matrix; add {lacking!r}"
            )
        if self.backend != "llm-compressor" and not self.zero_point:
            raise ValueError(
                'quantize.zero_point = false needs backend = "llm-compressor": autoawq\'s layout stores zero points'
            )
        return self

    @property
    def most_finer(self) -> float:
        """What of the products may stay in 16 bits: none of 4 bit forms, made for little memory."""
        return self.finer_share if self.scheme in ("int8", "fp8") else 0.0


# Linear layers that vLLM joins into one (qkv_proj, gate_up_proj): it refuses a checkpoint that quantizes some of them only.
JOINED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def _halved(skipped: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Names of layers among those that are skipped, each with one that is joined with it and is not."""
    for name in skipped:
        for group in JOINED:
            own = next((member for member in group if member in name), None)
            for other in group if own else ():
                twin = name.replace(str(own), other)
                if not any(part in twin for part in skipped):
                    yield name, twin


def spec_of_form(spec: QuantizeSpec, form: Scheme) -> QuantizeSpec:
    """How one form of an entry is quantized.

    What says nothing of the form has its default, so that its checkpoint stays the same one whatever others are set to.
    """
    fields = {"scheme": form, **{name: None for name in _UNUSED[form]}}
    return changed(spec, **{name: value or QuantizeSpec.model_fields[name].default for name, value in fields.items()})


_AWQ_ONLY = ("backend", "zero_point", "iterations")
_UNUSED: dict[Scheme, tuple[str, ...]] = {
    "awq": ("finer_share",),
    "int8": (*_AWQ_ONLY, "group_size", "apply_clip"),
    "w4a8": (*_AWQ_ONLY, "finer_share"),
    "fp8": (*_AWQ_ONLY, "group_size", "apply_clip"),
}
