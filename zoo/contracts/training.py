"""Training as entries declare it: what is learned, from what, and how it is merged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from zoo.contracts.base import Contract, Fraction, Positive, added_later, changed

Targets = Literal["hard", "votes"]  # a row's label, or its shares of votes where it has them
Head = Literal["labels", "classifier"]  # what each is, and how a checkpoint says so: zoo/models/heads.py


def _scale(value: Any) -> Any:
    """A factor of an update, or the word for that which training chose."""
    if value == CHOSEN or (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LARGEST_SCALE):
        return value
    raise ValueError(f"give a factor above 0 and up to {LARGEST_SCALE:g}, or '{CHOSEN}' with train.scales")


CHOSEN = "chosen"
LARGEST_SCALE = 2.0
Factor = Annotated[float, Field(gt=0, le=LARGEST_SCALE)]
Scale = Annotated[float | Literal["chosen"], BeforeValidator(_scale)]


class ExtraFile(Contract):
    """A file of more battles to learn from, and what they count."""

    file: Path = Field(description="battles in any format that is read")
    weight: Annotated[float, Field(gt=0)] = Field(
        1.0, description="times train.extra_weight: of a battle's loss against one of the main file"
    )


def _files(given: Any) -> Any:
    """What people write as a list of files: one path alone is a list of that file."""
    if given is None:
        return ()
    return ({"file": given},) if isinstance(given, str | Path) else given


def _as_written(files: tuple[ExtraFile, ...]) -> Any:
    """One file without a weight is its path, as `_files` reads it."""
    if len(files) == 1 and files[0].weight == 1:
        return str(files[0].file)
    return [file.model_dump(mode="json") for file in files]


ExtraFiles = Annotated[tuple[ExtraFile, ...], BeforeValidator(_files), PlainSerializer(_as_written, when_used="json")]


class EarlierTraining(Contract):
    """A training before an entry's own, from extra battles alone.

    The entry's own goes on from its adapter with a fresh optimizer and schedule: made rows first, human rows last. Its settings
    are those of [train] but for these; None: as there, but a teacher is not taken over.
    """

    extra: ExtraFiles = Field(min_length=1)
    extra_targets: Targets | None = Field(None, description="as train.extra_targets")
    teacher: Path | None = Field(None, description="as train.teacher")
    epochs: float | None = Field(None, gt=0, description="as train.epochs")
    learning_rate: float | None = Field(None, gt=0, description="as train.learning_rate")
    label_smoothing: Fraction | None = Field(None, description="as train.label_smoothing")


class TrainSpec(Contract):
    """Fine-tuning on the three label tokens at the last position.

    QLoRA: Dettmers et al. 2023, arXiv 2305.14314. `objective`, `text`: a row's loss is the mean over its tokens after the first
    and the label token after them, each over the whole vocabulary; soft labels are the label's target, a row's weight is that
    of its mean. Held-out loss stays the labels'. `rslora` and `dora` are peft's: alpha / sqrt(rank) for scale (Kalajdzievski
    2023, arXiv 2312.03732), and magnitude and direction apart (Liu et al. 2024, arXiv 2402.09353; slower, since its layers are
    not fused).
    """

    method: Literal["qlora", "lora", "full"] = Field(
        "qlora", description="low-rank adapter on 4 bit weights, on 16 bit weights, or all weights"
    )
    objective: Literal["labels", "text"] = added_later(
        "labels",
        description="text: next-token cross-entropy of the whole prompt and its label, instead of the label alone",
    )
    rank: Positive = Field(16, description="of the adapter")
    alpha: Positive = Field(32, description="the update is scaled by alpha / rank")
    dropout: Fraction = Field(0.05, description="of the adapter's input")
    rslora: bool = Field(False, description="scale by alpha / sqrt(rank) instead")
    dora: bool = Field(False, description="learn magnitude and direction apart")
    target_modules: str | tuple[str, ...] = Field("all-linear", description="layers with an adapter: all-linear, or names")
    learning_rate: float = Field(2e-4, gt=0, description="highest of the schedule")
    epochs: float = Field(1.0, gt=0, description="passes over the battles")
    batch_rows: Positive = Field(16, description="battles an optimizer step")
    micro_batch_tokens: Positive = Field(4096, description="padded tokens a forward pass; more rows are accumulated")
    warmup_fraction: Fraction = Field(0.05, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.0, ge=0, description="of the optimizer")
    optimizer: Literal["auto", "adamw", "adamw8bit"] = Field(
        "auto", description="auto: paged 8-bit states on a GPU from 67M trained weights, else 32-bit ones"
    )
    targets: Targets = Field("hard", description="votes: shares of votes_a, votes_b, votes_tie where a row has them")
    teacher: Path | None = Field(None, description="score table whose probabilities are learned, where it has a row")
    teacher_weight: Fraction = Field(1.0, description="of the teacher's probabilities; the rest is the label's")
    teacher_temperature: float = Field(1.0, gt=0, description="above 1 the teacher's probabilities are softened")
    extra: ExtraFiles = added_later(
        (),
        description="more battles to learn from, never held out; near-copies of held-out prompts are left out",
    )
    extra_weight: Annotated[float, Field(gt=0)] = added_later(
        1.0, description="of an extra battle's loss against one of the main file"
    )
    extra_targets: Targets | None = added_later(
        None, description="votes: soft labels of the extra rows, whatever the main file has; None: as `targets`"
    )
    only_extra: bool = added_later(
        False, description="learn from the extra battles alone; of the main file only the held-out fold is used, to judge"
    )
    first: EarlierTraining | None = added_later(None, description="a training before this one, which goes on from its adapter")
    start: str | None = added_later(
        None, description="a train artifact whose adapter training goes on from; it must have held out the same fold"
    )
    scales: tuple[Factor, ...] = added_later(
        (),
        description="factors of the trained update, tried on prompts that are set apart; merge.scale = 'chosen' takes the best",
    )
    label_smoothing: Fraction = Field(0.0, description="share of the target that is dealt evenly over the three labels")
    swap_orders: bool = Field(True, description="show each battle in a random response order, labels swapped to match")
    gradient_checkpointing: bool = Field(False, description="compute again in the backward pass as much as memory demands")
    memory_gib: float | None = Field(None, gt=0, description="GPU memory that training may take; None: what is free")
    gpus: Positive = added_later(1, description="GPUs of one host that share each optimizer step's micro-batches")
    eval_rows: Positive = Field(256, description="held-out battles whose log loss is measured as training goes")
    evals_per_epoch: Positive = Field(4, description="evaluations on held-out battles an epoch")
    keep: Literal["last", "best"] = Field("last", description="best: the weights with the lowest held-out log loss")
    patience: Positive | None = Field(None, description="stop after so many evaluations without a lower held-out log loss")
    max_hours: float | None = added_later(
        None, description="stop after so many hours with the best weights; with more of them, or none, the training goes on"
    )
    max_rows: Positive | None = Field(None, description="train on at most this many battles of the main file, a seeded sample")
    seed: int = Field(0, description="of weights, order of rows and of answers")

    @model_validator(mode="after")
    def _check(self) -> TrainSpec:
        if self.method == "full" and (self.dora or self.rslora):
            raise ValueError("train.dora and train.rslora are forms of adapters; method = 'full' has none")
        if self.method == "full" and (self.first or self.start):
            raise ValueError("train.first and train.start go on from an adapter; method = 'full' has none")
        if isinstance(self.target_modules, str) and self.target_modules != "all-linear":  # peft would take it for a pattern
            raise ValueError(f"train.target_modules = {self.target_modules!r}: give all-linear, or a list of layers' names")
        if self.max_hours is not None and self.max_hours <= 0:
            raise ValueError(f"train.max_hours = {self.max_hours:g}: give hours above 0, or leave it out")
        if self.scales and (self.method == "full" or self.dora):
            raise ValueError("train.scales scale a low-rank update; with method = 'full' and with dora there is none")
        return self

    def earlier(self) -> TrainSpec | None:
        """The settings of the training before this one; None where there is none."""
        if self.first is None:
            return None
        own = {name: value for name, value in self.first if value is not None}
        return changed(
            self, **{"teacher": None, "extra_weight": 1.0, "max_rows": None, **own, "first": None, "only_extra": True}
        )


class MergeSpec(Contract):
    """Adapter into base weights, shard by shard as the base has them, in the base's dtype.

    `trained`: into the weights that training saw, which for QLoRA are NF4 there and back: an adapter has learned to make up for
    their rounding. `original`: into the base as it is. With a `scale` s below 1 the merged weights lie between the base's and
    the trained ones, W + s * update, as WiSE-FT has them against a shift (Wortsman et al. 2022, arXiv 2109.01903).
    """

    into: Literal["trained", "original"] = Field("trained", description="the weights that training saw, or the base as it is")
    scale: Scale = added_later(
        1.0, description="factor of the adapter's update (WiSE-FT); chosen: that which training found best, see train.scales"
    )
