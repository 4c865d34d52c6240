"""Entries: what people declare of a model, from its base weights to how it is scored."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from zoo.contracts.base import LABELS, Contract, Name, Positive, added_later, changed
from zoo.contracts.forms import QuantizeSpec, Scheme
from zoo.contracts.model import Base, Encoder, PromptSpec, Shape
from zoo.contracts.scoring import ScoreSpec, ServeSpec
from zoo.contracts.training import CHOSEN, ExtraFiles, Head, MergeSpec, Targets, TrainSpec

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]  # of a folder's files or of a file
Answer = Literal["a", "b", "tie"]


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
        if self.kind == "lexical":
            raise ValueError(f"[elsewhere] is of language models and encoders; {self.a_kind} has none, leave it out")
        if self.kind == "encoder" and (made.kind == "adapter" or made.quantized):
            raise ValueError("[elsewhere] of an encoder is a checkpoint, not quantized; merge an adapter where it was trained")
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
        if self.quantize and self.quantize.backend != "autoawq" and "awq" in forms_of(self) and not made_so:
            raise ValueError(
                f"quantize.backend = {self.quantize.backend!r} is not supported with head = 'classifier'; "
                "set 'autoawq' or another scheme"
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
