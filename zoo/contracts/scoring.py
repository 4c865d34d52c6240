"""Scoring: how an entry's rows are read, by what engine, and what differs on a target."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import Field, model_validator

from zoo.contracts.base import Contract, Order, Positive, added_later, changed
from zoo.contracts.forms import Scheme
from zoo.contracts.model import Keep, PromptSpec, Shares, check_reading

EngineName = Literal["vllm", "transformers"]  # what scores: the second is for encoders


class Variant(Contract):
    """One way of scoring an entry: the answer shown first, the token cap, the form.

    Each is priced by itself. `shares`, `keep` and `template` take the place of the entry's in [prompt], for this variant alone:
    training and calibration read rows as [prompt] says. `zoo caps` measures what they are worth.
    """

    order: Order = Field("ab", description="which answer is shown first: `ab` as in the file, `ba` swapped")
    max_tokens: Positive | None = Field(None, description="token cap; None where the entry reads no tokens")
    form: Scheme | None = added_later(None, description="of the checkpoint; None: that of `quantize.scheme`")
    shares: Shares | None = added_later(None, description="in place of prompt.shares")
    keep: Keep | None = added_later(None, description="in place of prompt.keep")
    template: str | None = added_later(None, description="in place of prompt.template, with the same label tokens")

    @model_validator(mode="after")
    def _check(self) -> Variant:
        check_reading("variants", self.template, self.shares)
        return self

    @property
    def slug(self) -> str:
        """Short name in folders and member names: `ab`, `ba-512`, `ab-512-int8`.

        With all that a variant may have: `ab-512-shares10_45_45-both_ends-t3fa2c1-int8`.
        """
        shares = None if self.shares is None else "shares" + "_".join(f"{100 * share:g}" for share in self.shares)
        template = None if self.template is None else "t" + hashlib.sha256(self.template.encode()).hexdigest()[:6]
        parts = (self.order, self.max_tokens, shares, self.keep, template, self.form)
        return "-".join(str(part) for part in parts if part is not None)

    @property
    def reads(self) -> tuple[int | None, Shares | None, Keep | None, str | None]:
        """What a row is read as, in either order of the answers and any form of the checkpoint."""
        return self.max_tokens, self.shares, self.keep, self.template

    def prompt(self, prompt: PromptSpec) -> PromptSpec:
        """The entry's prompt as this variant has it."""
        own = {"max_tokens": self.max_tokens, "shares": self.shares, "keep": self.keep, "template": self.template}
        return changed(prompt, **{name: value for name, value in own.items() if value is not None})


class ScoreSpec(Contract):
    """How an engine scores: which variants, in what chunks, with what settings.

    `kv_cache_bytes`, `prefix_caching` and `enforce_eager` are vLLM's alone.
    """

    engine: EngineName = added_later("vllm", description="transformers: length-sorted batches, for encoders")
    variants: tuple[Variant, ...] = (Variant(max_tokens=1024),)
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = Field(
        "auto", description="of activations in the engine; auto: as the checkpoint is stored, where the target has that"
    )
    chunk_rows: Positive = Field(64, description="rows between two files on disk: what a killed run can lose")
    max_batched_tokens: Positive = Field(8192, description="tokens of a batch at most, padding among them")
    max_seqs: Positive = Field(32, description="rows of a batch at most")
    kv_cache_bytes: Positive | None = Field(None, description="None: room for one full batch and one longest row")
    prefix_caching: bool = Field(True, description="compute a beginning that rows share once")
    enforce_eager: bool = Field(True, description="no CUDA graphs: less to compile and to hold")

    @model_validator(mode="after")
    def _check(self) -> ScoreSpec:
        if not self.variants or len(set(self.variants)) < len(self.variants):
            raise ValueError("variants: give at least one, each once")
        if len({variant.slug for variant in self.variants}) < len(self.variants):
            raise ValueError("variants: two have the same short name; write their shares with fewer digits")
        return self


class ServeSpec(Contract):
    """What differs on one target: `[serve.t4x2]` in an entry."""

    layout: Literal["replicas", "pipeline", "tensor"] = Field("replicas", description="how the model lies on the target's GPUs")
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = Field("auto", description="as score.dtype, on this target")
    gpu_memory_bytes: Positive | None = Field(
        None, description="what `zoo check` and `zoo score --as` count on of each GPU; other scoring is not held to it"
    )
    float16_rescale_bits: Annotated[int, Field(ge=1, le=12)] | None = added_later(
        None,
        description="Gemma 2 and 3 in float16: the residual stream is kept times 2^-bits (stages/score/vllm/gemma_float16.py)",
    )
