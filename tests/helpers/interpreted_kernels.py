"""What the Triton kernels of training compute on a processor, into a file: `TRITON_INTERPRET=1 python -m ... FILE`.

Triton decides at import whether it interprets, so that this is a process of its own. Its interpreter multiplies bfloat16 by its
bits (3.6 to 3.9): products are in float16 here, in both on a GPU.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import torch
from safetensors.torch import save_file

from zoo.stages.train import dropout, kernels, pointwise

# (tokens, inputs, rank): ragged, rows that are not aligned, sums in one part and in several, the smallest and largest rank.
SIZES = ((1, 64, 1), (17, 100, 8), (100, 160, 16), (300, 96, 16), (17, 576, 64), (40, 70, 100), (5, 48, 128))
RATE, SEED, SCALE = 0.3, 0x1F3C_5A96_D2E4_8B71, 0.5


def products(tokens: int, inputs: int, rank: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(tokens)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).half()

    x, a, through, before = drawn(tokens, inputs), drawn(rank, inputs), drawn(tokens, rank), drawn(tokens, inputs)
    grad_x = before.clone()
    kernels.add_gradient_of_x(grad_x, through, a, RATE, SEED, SCALE)
    return {
        "x": x,
        "a": a,
        "through": through,
        "before": before,
        "product": kernels.dropped_product(x, a, RATE, SEED),
        "grad_a": kernels.gradient_of_a(x, through, RATE, SEED, SCALE),
        "grad_x": grad_x,
    }


def checks() -> dict[str, torch.Tensor]:
    """What the checks at the start of a training say of these kernels, and of some that are wrong."""
    right = vars(kernels)
    wrong = {
        "right": kernels,
        "another mask going back": SimpleNamespace(
            **{**right, "gradient_of_a": lambda x, t, rate, seed, scale: kernels.gradient_of_a(x, t, rate, seed + 1, scale)}
        ),
        "another scale": SimpleNamespace(
            **{**right, "dropped_product": lambda x, a, rate, seed: kernels.dropped_product(x, a, rate, seed) * 1.05}
        ),
        "all kept": SimpleNamespace(
            **{**right, "add_gradient_of_x": lambda g, t, a, _, seed, s: kernels.add_gradient_of_x(g, t, a, 0.0, seed, s)}
        ),
    }
    found = {f"check/{name}": dropout.largest_difference(k, torch.float16, 8, 96, "cpu") for name, k in wrong.items()}
    for act in pointwise.PRODUCTS:
        for dtype in (torch.float16, torch.bfloat16):
            found[f"{act}/{dtype}"] = pointwise.largest_difference(kernels, act, dtype, "cpu")
    return {name: torch.tensor(value) for name, value in found.items()}


def main() -> None:
    found = {f"{size}/{name}": value for size in SIZES for name, value in products(*size).items()}
    save_file({name: value.contiguous() for name, value in {**found, **checks()}.items()}, sys.argv[1])


if __name__ == "__main__":
    main()
