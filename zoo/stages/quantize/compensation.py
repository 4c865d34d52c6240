"""Rounding whose errors make up for each other (GPTQ).

Frantar et al. 2022, arXiv 2210.17323. A weight's inputs are rounded one after the other, and what a linear layer's output is
off by is taken up by the inputs that are still to come, as far as the inputs' second moments say that they can. Of the scales
that are tried for a group the one whose output is nearest is taken, compensation within the group included.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from zoo.errors import ZooError
from zoo.stages.quantize.forms import Form, Rounded

DAMPING = (0.01, 0.1, 1.0)  # of the moments' mean diagonal, added to it: the least that can be inverted, as in the paper
GRID = 20  # clipping tries the upper half of as many steps, as AWQ's does


class Moments:
    """The sum of X^T X (channels, channels) over inputs X (tokens, channels), in float32."""

    def __init__(self) -> None:
        self._total: torch.Tensor | None = None

    def add(self, x: torch.Tensor) -> None:
        with _exact_products():
            product = x.float().T @ x.float()
            self._total = product if self._total is None else self._total.add_(product)

    def total(self) -> torch.Tensor:
        assert self._total is not None, "inputs were added"
        return self._total


def compensated(form: Form, weight: torch.Tensor, second: torch.Tensor, *, clip: bool) -> Rounded:
    """Round a weight (out, in) in groups so that the output on given inputs stays near.

    `second`: those inputs' `Moments` (in, in). `clip`: try also scales that cut a group's largest weights. ZooError where the
    moments cannot be inverted.
    """
    size = form.group_size
    assert size, "of a form with groups"
    with _exact_products():
        factor = inverse_factor(second)
        left = weight.float().T.clone(memory_format=torch.contiguous_format)  # (in, out): with what it has taken up
        levels, scales = [], []
        for start in range(0, len(left), size):
            stop = start + size
            made = _round_group(form, left[start:stop], factor[start:stop, start:stop], clip=clip)
            levels.append(made.levels)
            scales.append(made.scales)
            left[stop:] -= factor[start:stop, stop:].T @ made.errors
    return Rounded(torch.cat(levels).T.contiguous(), torch.stack(scales, dim=1))


def inverse_factor(second: torch.Tensor) -> torch.Tensor:
    """Upper triangular U (in, in) with U^T U = the inverse of damped moments.

    Row i says, over its diagonal, how inputs after i make up for an error of input i. Inputs that are never anything but 0 are
    rounded for themselves. ZooError where no damping helps.
    """
    silent = second.diagonal() == 0
    mean = float(second.diagonal().mean())
    for share in DAMPING:
        damped = second.clone()
        damped.diagonal().add_(share * mean + silent.float())
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed and torch.isfinite(upper).all():
                return upper
    raise ZooError("inputs of a linear layer are not finite; use other calibration rows")


@dataclass(frozen=True)
class _Group:
    """A rounded group: levels (size, out), scales (out,), and errors (size, out) over the factor's diagonal."""

    levels: torch.Tensor
    scales: torch.Tensor
    errors: torch.Tensor


def _round_group(form: Form, group: torch.Tensor, factor: torch.Tensor, *, clip: bool) -> _Group:
    """Round a group (size, out) input by input, by every scale at once, and keep each output's best.

    The sum of an output's squared errors over the factor's diagonal is what it adds to the squared error of the layer's output.
    """
    widest = group.abs().amax(0)
    shares = [1 - trial / GRID for trial in range(GRID // 2)] if clip else [1.0]
    scales = torch.cat([form.scales(group.T, (share * widest).unsqueeze(1)) for share in shares])  # (trials * out, 1)
    left = group.repeat(1, len(shares))  # (size, trials * out)
    levels, errors = torch.empty_like(left), torch.empty_like(left)
    for i in range(len(left)):
        found = form.levels(left[i].unsqueeze(1), scales)
        levels[i] = found.squeeze(1)
        errors[i] = (left[i] - (found * scales).squeeze(1)) / factor[i, i]
        left[i + 1 :] -= factor[i, i + 1 :].unsqueeze(1) * errors[i]
    best = errors.pow(2).sum(0).view(len(shares), -1).argmin(0)
    at = best * len(widest) + torch.arange(len(widest), device=best.device)
    return _Group(levels[:, at], scales[at, 0], errors[:, at])


@contextmanager
def _exact_products() -> Iterator[None]:
    """Without TensorFloat-32.

    After it moments of inputs with outliers may not be inverted.
    """
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
