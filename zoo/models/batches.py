"""Batches: which rows share a step and a pass, and the learning-rate schedule.

Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from zoo.contracts import TrainSpec

Lengths = Sequence[int] | Mapping[int, int]  # tokens of a row by its number
WINDOW = 8  # optimizer steps whose rows are sorted by length together: longer sorts more, shuffles less


def plan_steps(lengths: list[int], spec: TrainSpec, epoch: int) -> list[list[list[int]]]:
    """Optimizer steps of one epoch: each a list of micro-batches of row indexes.

    Rows are shuffled by seed and epoch, sorted by length within windows of `WINDOW` steps, and cut into micro-batches of at
    most `micro_batch_tokens` padded tokens (one row always fits). The steps of a window are shuffled again, so that length and
    time are not tied. Every row stands in exactly one micro-batch.
    """
    generator = np.random.default_rng((spec.seed, epoch))
    rows = generator.permutation(len(lengths))
    steps: list[list[list[int]]] = []
    for start in range(0, len(rows), WINDOW * spec.batch_rows):
        window = sorted(rows[start : start + WINDOW * spec.batch_rows].tolist(), key=lambda i: lengths[i])
        batches = [window[i : i + spec.batch_rows] for i in range(0, len(window), spec.batch_rows)]
        for i in generator.permutation(len(batches)):
            steps.append(list(micro_batches(batches[i], lengths, spec.micro_batch_tokens)))
    return steps


def micro_batches(rows: list[int], lengths: list[int], max_tokens: int) -> Iterator[list[int]]:
    """Cut rows, sorted by length, so that rows x longest stays within `max_tokens`."""
    batch: list[int] = []
    for row in rows:
        if batch and (len(batch) + 1) * lengths[row] > max_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def dealt(batches: list[list[int]], lengths: Lengths, count: int) -> list[list[int]]:
    """The micro-batches cut further, the costliest first, for `count` processes.

    Afterwards their number is a multiple of `count`. Rows keep their order. Fewer than `count` are left where there are fewer
    rows.
    """
    pieces = list(batches)
    while len(pieces) % count and max(map(len, pieces)) > 1:
        i = max((i for i, piece in enumerate(pieces) if len(piece) > 1), key=lambda i: padded_tokens(pieces[i], lengths))
        half = len(pieces[i]) // 2
        pieces[i : i + 1] = [pieces[i][:half], pieces[i][half:]]
    return pieces


def shared(costs: Sequence[float], count: int) -> list[list[int]]:
    """Positions of pieces of work for each of `count` processes, ascending.

    The costliest first, each to the process with the least so far.
    """
    loads, taken = [0.0] * count, [[] for _ in range(count)]  # type: tuple[list[float], list[list[int]]]
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        lightest = min(range(count), key=loads.__getitem__)
        loads[lightest] += costs[i]
        taken[lightest].append(i)
    return [sorted(own) for own in taken]


def padded_tokens(batch: list[int], lengths: Lengths) -> int:
    """Positions that a pass of these rows computes."""
    return len(batch) * max(lengths[i] for i in batch)


def padding_share(lengths: list[int], spec: TrainSpec) -> float:
    """Share of an epoch's computed positions that hold no token."""
    batches = [batch for step in plan_steps(lengths, spec, 0) for batch in step]
    computed = sum(padded_tokens(batch, lengths) for batch in batches)
    return 1 - sum(lengths) / computed


def all_steps(lengths: list[int], spec: TrainSpec, total: int) -> Iterator[list[list[int]]]:
    """`total` optimizer steps over as many epochs as that takes."""
    done = 0
    for epoch in range(math.ceil(spec.epochs)):
        for batches in plan_steps(lengths, spec, epoch):
            if done == total:
                return
            yield batches
            done += 1


def total_steps(rows: int, spec: TrainSpec) -> int:
    """Optimizer steps of a whole training on so many rows."""
    return max(1, round(math.ceil(rows / spec.batch_rows) * spec.epochs))


def largest_batch(lengths: list[int], spec: TrainSpec, ranks: int = 1) -> list[int]:
    """The rows of the training's micro-batch with the most padded tokens.

    They are cut as `ranks` processes get them.
    """
    steps = all_steps(lengths, spec, total_steps(len(lengths), spec))
    batches = (batch for step in steps for batch in dealt(step, lengths, ranks))
    return max(batches, key=lambda batch: padded_tokens(batch, lengths))


def schedule(step: int, total: int, warmup_fraction: float) -> float:
    """Learning-rate factor: linear warm-up, then linear decay to zero."""
    warmup = max(1, round(total * warmup_fraction))
    return min((step + 1) / warmup, (total - step) / max(1, total - warmup + 1))
