"""Rounding whose errors make up for each other: exactly GPTQ's, never worse than rounding to the nearest."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zoo.errors import ZooError
from zoo.stages.quantize.compensation import DAMPING, Moments, compensated
from zoo.stages.quantize.forms import Form

FORM = Form("w4a8", 4)


def inputs(tokens: int, channels: int, seed: int) -> torch.Tensor:
    """Inputs (tokens, channels) that hang together and differ in size, as a model's do."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.exp(torch.randn(channels, generator=generator))
    return torch.randn(tokens, channels // 2, generator=generator) @ torch.randn(
        channels // 2, channels, generator=generator
    ) * (sizes) + 0.1 * torch.randn(tokens, channels, generator=generator)


def moments(x: torch.Tensor) -> torch.Tensor:
    """Added in two batches, as prompts come."""
    found = Moments()
    for part in (x[: len(x) // 3], x[len(x) // 3 :]):
        found.add(part)
    return found.total()


def damped(second: torch.Tensor) -> torch.Tensor:
    return second.double() + DAMPING[0] * float(second.diagonal().mean()) * torch.eye(len(second), dtype=torch.float64)


def output_error(off: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Squared error (out,) of the output of weights (out, in) that are off by so much."""
    return ((off.double() @ second.double()) * off.double()).sum(-1)


def one_by_one(weight: torch.Tensor, second: torch.Tensor, scales: torch.Tensor, size: int) -> torch.Tensor:
    """Levels (in,) of one output before they are rounded, in float64.

    After each input is rounded, those to come are solved anew for the least error of the output: GPTQ's definition.
    """
    target, levels = weight.double(), torch.zeros(len(weight), dtype=torch.float64)
    left = target.clone()
    for i in range(len(weight)):
        scale = float(scales[i // size])
        levels[i] = left[i] / scale
        left[i] = levels[i].round().clamp(-8, 7) * scale
        if i + 1 < len(weight):
            off = left[: i + 1] - target[: i + 1]
            left[i + 1 :] = target[i + 1 :] - torch.linalg.solve(second[i + 1 :, i + 1 :], second[i + 1 :, : i + 1] @ off)
    return levels


@given(seed=st.integers(0, 2**16))
def test_levels_are_those_of_solving_for_what_is_left_after_each_input(seed: int) -> None:
    """Oracle: the definition by linear systems, given the scales that were chosen."""
    weight, second = torch.randn(3, 12, generator=torch.Generator().manual_seed(seed)), moments(inputs(40, 12, seed + 1))
    made = compensated(FORM, weight, second, clip=True)
    for levels, scales, row in zip(made.levels, made.scales, weight, strict=True):
        expected = one_by_one(row, damped(second), scales, 4)
        differ = (levels != expected.round().clamp(-8, 7)).nonzero().flatten()
        for first in differ[:1].tolist():  # half way between two levels float32 may fall to either, and what follows differs
            assert float(expected[first] % 1) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("clip", [False, True])
def test_it_lies_between_the_best_there_is_and_rounding_to_the_nearest(clip: bool) -> None:
    """Oracle: every combination of levels of a group of 4, by brute force. On the mean: rounding in turn is greedy."""
    total = torch.zeros(3, dtype=torch.float64)
    for seed in range(20):
        weight, second = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)), moments(inputs(30, 4, seed + 1))
        made, nearest = compensated(FORM, weight, second, clip=clip), FORM.nearest(weight)
        every = torch.tensor(list(itertools.product(range(-8, 8), repeat=4)), dtype=torch.float32)
        best = torch.stack(
            [output_error(every * scale - row, damped(second)).min() for row, scale in zip(weight, made.scales, strict=True)]
        )
        of_made = output_error(made.weight() - weight, damped(second))
        assert (of_made >= best * (1 - 1e-4)).all()
        total += torch.stack([best.sum(), of_made.sum(), output_error(nearest.weight() - weight, damped(second)).sum()])
    best_there_is, ours, to_the_nearest = total.tolist()
    assert ours < 0.5 * to_the_nearest and ours < 2 * best_there_is


@given(seed=st.integers(0, 2**16), clip=st.booleans())
def test_a_matrix_output_is_nearer_than_by_rounding_to_the_nearest(seed: int, clip: bool) -> None:
    weight, x = torch.randn(16, 32, generator=torch.Generator().manual_seed(seed)), inputs(200, 32, seed + 1)
    made = compensated(Form("w4a8", 8), weight, moments(x), clip=clip)
    expected = x @ weight.T
    error, nearest = ((x @ off.T - expected).norm() for off in (made.weight(), Form("w4a8", 8).nearest(weight).weight()))
    assert error < nearest


@given(seed=st.integers(0, 2**16))
def test_inputs_that_do_not_hang_together_leave_rounding_to_the_nearest(seed: int) -> None:
    weight = torch.randn(5, 64, generator=torch.Generator().manual_seed(seed))
    made, nearest = compensated(Form("w4a8", 32), weight, 3 * torch.eye(64), clip=False), Form("w4a8", 32).nearest(weight)
    assert torch.equal(made.levels, nearest.levels) and torch.equal(made.scales, nearest.scales)


def test_cut_weights_pay_where_inputs_say_so() -> None:
    """An input that is next to never anything: its large weight need not widen the steps of the others."""
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    weight[:, 0] = 8
    second = torch.diag(torch.tensor([1e-4, 1.0, 1.0, 1.0]))
    cut, whole = (compensated(FORM, weight, second, clip=clip) for clip in (True, False))
    assert (cut.scales < whole.scales).all()
    assert output_error(cut.weight() - weight, second).sum() < output_error(whole.weight() - weight, second).sum()


def test_silent_inputs_and_too_few_prompts_can_be_rounded() -> None:
    """Moments that cannot be inverted: channels that are always 0, and fewer tokens than channels."""
    weight, x = torch.randn(4, 16, generator=torch.Generator().manual_seed(0)), inputs(5, 16, 1)
    x[:, [0, 7]] = 0
    made = compensated(FORM, weight, moments(x), clip=True)
    assert torch.isfinite(made.weight()).all()
    assert compensated(FORM, weight, torch.zeros(16, 16), clip=False).levels.equal(FORM.nearest(weight).levels)


def test_inputs_that_are_no_numbers_are_refused() -> None:
    second = torch.full((8, 8), float("nan"))
    with pytest.raises(ZooError, match="not finite"):
        compensated(FORM, torch.ones(2, 8), second, clip=False)
