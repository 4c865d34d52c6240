"""Micro-batches: every row once, within the tokens that fit."""

from __future__ import annotations

import numpy as np

from zoo.contracts import (
    TrainSpec,
)
from zoo.models import batches


def test_every_row_stands_in_one_micro_batch_within_its_tokens() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 300, 137).tolist()
    spec = TrainSpec(batch_rows=16, micro_batch_tokens=600)
    steps = batches.plan_steps(lengths, spec, epoch=0)
    flat = [i for step in steps for batch in step for i in batch]
    assert sorted(flat) == list(range(137))
    assert all(len(b) * max(lengths[i] for i in b) <= 600 or len(b) == 1 for step in steps for b in step)
    assert batches.plan_steps(lengths, spec, epoch=0) == steps != batches.plan_steps(lengths, spec, epoch=1)
