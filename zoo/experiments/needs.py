"""What a run of an experiment needs of a GPU's memory, counted as `zoo check` does."""

from __future__ import annotations

from pathlib import Path

from zoo.checks import entry_shape, training_need
from zoo.contracts import Entry
from zoo.errors import ZooError
from zoo.experiments.cards import Need
from zoo.models.memory import evaluation_bytes
from zoo.pipeline.weights import fetched_folder

SAFETY = 1.1  # the arithmetic is good to 5 %


def need_of(entry: Entry, store: Path) -> Need:
    """The largest of what a run's stages take of each of its cards.

    Those are training, and evaluating the model as it was. The bytes are not known before an entry without `[shape]` is
    fetched. With gradient checkpointing training makes do with what it is told that it has; the bytes are the least.
    """
    if entry.base is None or entry.train is None:
        return Need()
    try:
        shape = entry_shape(entry, fetched_folder(entry, store))
    except ZooError:  # a broken checkpoint is the run's own to tell
        shape = None
    if shape is None:
        return Need(entry.train.gpus)
    longest = entry.prompt.max_tokens if entry.prompt else 0
    filled = min(entry.train.micro_batch_tokens, entry.train.batch_rows * longest)  # a micro-batch is of one batch's rows
    spec = entry.train.model_copy(update={"micro_batch_tokens": max(filled, longest)})
    training = training_need(entry.base, spec, shape).total
    least = round(SAFETY * max(training, evaluation_bytes(shape, entry.base.parameters)))
    return Need(entry.train.gpus, least, elastic=entry.train.gradient_checkpointing)
