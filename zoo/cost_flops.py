"""Floating-point operations of scoring a row, from a decoder's shape: what run times are forecast from before anything ran.

A row of n tokens takes per_row + per_token * n + per_token_sq * n**2 operations. Each weight of a linear layer is one multiply
and one add a token (Kaplan et al. 2020, arXiv 2001.08361, table 1); attention multiplies queries with keys and weights with
values, 2 * 2 * heads * head size a pair and layer, and half of the pairs are masked. The head is computed at one position.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.contracts import Shape
from zoo.shapes import linear_parameters


@dataclass(frozen=True)
class Flops:
    """Operations of a row of n tokens: per_row + per_token * n + per_token_sq * n**2."""

    per_row: float
    per_token: float
    per_token_sq: float

    def split(self, totals: np.ndarray) -> np.ndarray:
        """Linear and attention operations (2,) of a file with `totals` (3,): rows, tokens and tokens squared."""
        return np.array([self.per_row * totals[0] + self.per_token * totals[1], self.per_token_sq * totals[2]])


def flops_of_shape(shape: Shape) -> Flops:
    """Operations of a dense decoder with gated feed-forward layers, whatever its weights are stored in."""
    return Flops(
        per_row=2.0 * shape.hidden_size * shape.vocab_size,
        per_token=2.0 * linear_parameters(shape),
        per_token_sq=2.0 * shape.num_hidden_layers * shape.num_attention_heads * shape.head_dim,
    )
