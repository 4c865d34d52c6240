"""Triton kernels of a training pass: products with dropout, and gated activations.

Each reads its large operand once. Dropout's mask is a hash of seed and place, drawn in registers by each kernel that needs it.
Sizes are no part of what is compiled, but for the rank and whether rows are aligned: nothing is compiled in mid-training.
Sums are split over blocks and added in a fixed order: the same batch gives the same bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCKS = 528  # that sums are split into at most: four at a time on each of an H100's 132 multiprocessors, in one wave
VALUES = 1024  # of a block of a pointwise kernel
SMALLEST_RANK, LARGEST_RANK = 16, 128  # of a tensor core's product; of what is held in registers
# (tokens, inputs, warps, stages) of a block of each kernel, for ranks up to 32 and above: benchmarks/dropout_kernels.py
Tile = tuple[int, int, int, int]
FORWARD: tuple[Tile, Tile] = ((64, 64, 4, 3), (64, 64, 4, 2))
GRADIENT_A: tuple[Tile, Tile] = ((64, 64, 4, 3), (32, 64, 4, 3))
GRADIENT_X: tuple[Tile, Tile] = ((32, 128, 4, 1), (64, 64, 4, 1))


# --- dropout -----------------------------------------------------------------------------------------------------------


@triton.jit
def _bits(index, low, high):
    """32 random bits of an index: Wellons' lowbias32, half of the seed before and half within.

    https://nullprogram.com/blog/2018/07/31/ ("Prospecting for Hash Functions", public domain). Seeds are to be drawn, not
    counted: those that differ in one of the upper bits alone would give masks that resemble each other.
    """
    x = index ^ low
    x ^= x >> 16
    x *= 0x7FEB352D
    x += high
    x ^= x >> 15
    x *= 0x846CA68B
    x ^= x >> 16
    return x


@triton.jit
def _kept(rows, columns, half, low, high, threshold):
    """Which of x[row, column] and x[row, half + column] are kept: one hash serves both.

    It has 16 bits for each. The place is counted modulo 2^32: nothing overflows, and masks come again after 2^33 values.
    """
    index = rows.to(tl.uint32)[:, None] * half.to(tl.uint32) + columns.to(tl.uint32)[None, :]
    bits = _bits(index, low.to(tl.uint32), high.to(tl.uint32))
    limit = threshold.to(tl.uint32) << 16
    return (bits << 16) >= limit, bits >= limit


@triton.jit(do_not_specialize=["tokens", "blocks", "low", "high", "threshold"])
def _forward(
    x, a, parts, tokens, inputs, half, blocks, low, high, threshold,
    RANK: tl.constexpr, PADDED: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """parts[p] = kept(x) a^T, (tokens, rank), over the p-th `blocks` of inputs."""
    part = tl.program_id(1)
    first = tl.program_id(0) * BLOCK_T
    places, ranks = tl.arange(0, BLOCK_T), tl.arange(0, PADDED)
    here, trained = (first + places < tokens)[:, None], (ranks < RANK)[:, None]
    x += first.to(tl.int64) * inputs  # beyond the block's first row offsets fit into 32 bits
    sums = tl.zeros((BLOCK_T, PADDED), tl.float32)
    for block in range(part * blocks, tl.minimum((part + 1) * blocks, tl.cdiv(half, BLOCK_K))):
        columns = block * BLOCK_K + tl.arange(0, BLOCK_K)
        in_left, in_right = (columns < half)[None, :], (columns < inputs - half)[None, :]
        from_x, from_a = x + places[:, None] * inputs + columns[None, :], a + ranks[:, None] * inputs + columns[None, :]
        left = tl.load(from_x, here & in_left, other=0.0)
        right = tl.load(from_x + half, here & in_right, other=0.0)
        a_left = tl.load(from_a, trained & in_left, other=0.0)
        a_right = tl.load(from_a + half, trained & in_right, other=0.0)
        keep_left, keep_right = _kept(first + places, columns, half, low, high, threshold)
        sums = tl.dot(tl.where(keep_left, left, 0.0), tl.trans(a_left), sums)
        sums = tl.dot(tl.where(keep_right, right, 0.0), tl.trans(a_right), sums)
    to = parts + (part * tokens + first + places).to(tl.int64)[:, None] * RANK + ranks[None, :]
    tl.store(to, sums, here & (ranks < RANK)[None, :])


@triton.jit(do_not_specialize=["tokens", "blocks", "low", "high", "threshold"])
def _gradient_a(
    x, through, parts, tokens, inputs, half, blocks, low, high, threshold,
    RANK: tl.constexpr, PADDED: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """parts[p] = through^T kept(x), (rank, inputs), over the p-th `blocks` of tokens."""
    part = tl.program_id(1)
    columns = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    places, ranks = tl.arange(0, BLOCK_T), tl.arange(0, PADDED)
    in_left, in_right, trained = (columns < half)[None, :], (columns < inputs - half)[None, :], (ranks < RANK)[None, :]
    sums_left, sums_right = tl.zeros((PADDED, BLOCK_K), tl.float32), tl.zeros((PADDED, BLOCK_K), tl.float32)
    for block in range(part * blocks, tl.minimum((part + 1) * blocks, tl.cdiv(tokens, BLOCK_T))):
        first = block * BLOCK_T
        here = (first + places < tokens)[:, None]
        from_x = x + first.to(tl.int64) * inputs + (places[:, None] * inputs + columns[None, :])
        left = tl.load(from_x, here & in_left, other=0.0)
        right = tl.load(from_x + half, here & in_right, other=0.0)
        t = tl.load(through + (first + places)[:, None] * RANK + ranks[None, :], here & trained, other=0.0)
        keep_left, keep_right = _kept(first + places, columns, half, low, high, threshold)
        sums_left = tl.dot(tl.trans(t), tl.where(keep_left, left, 0.0), sums_left)
        sums_right = tl.dot(tl.trans(t), tl.where(keep_right, right, 0.0), sums_right)
    to = parts + (part * RANK + ranks)[:, None] * inputs + columns[None, :]
    tl.store(to, sums_left, (ranks < RANK)[:, None] & in_left)
    tl.store(to + half, sums_right, (ranks < RANK)[:, None] & in_right)


@triton.jit(do_not_specialize=["tokens", "low", "high", "threshold"])
def _gradient_x(
    gradient, through, a, tokens, inputs, half, scale, low, high, threshold,
    RANK: tl.constexpr, PADDED: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """gradient += scale * kept(through a), in place."""
    first = tl.program_id(1) * BLOCK_T
    columns = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    places, ranks = tl.arange(0, BLOCK_T), tl.arange(0, PADDED)
    here, in_left, in_right = (first + places < tokens)[:, None], (columns < half)[None, :], (columns < inputs - half)[None, :]
    t = tl.load(through + (first + places)[:, None] * RANK + ranks[None, :], here & (ranks < RANK)[None, :], other=0.0)
    from_a, trained = a + ranks[:, None] * inputs + columns[None, :], (ranks < RANK)[:, None]
    keep_left, keep_right = _kept(first + places, columns, half, low, high, threshold)
    place = gradient + first.to(tl.int64) * inputs + (places[:, None] * inputs + columns[None, :])
    added = tl.dot(t, tl.load(from_a, trained & in_left, other=0.0))
    before = tl.load(place, here & in_left, other=0.0).to(tl.float32)
    tl.store(place, (before + tl.where(keep_left, added, 0.0) * scale).to(gradient.dtype.element_ty), here & in_left)
    added = tl.dot(t, tl.load(from_a + half, trained & in_right, other=0.0))
    before = tl.load(place + half, here & in_right, other=0.0).to(tl.float32)
    tl.store(place + half, (before + tl.where(keep_right, added, 0.0) * scale).to(gradient.dtype.element_ty), here & in_right)


@triton.jit(do_not_specialize=["count", "parts"])
def _add_up(source, target, count, parts, scale, VALUES: tl.constexpr):
    """target = scale * the sum of `parts` of `count` values each."""
    place = tl.program_id(0) * VALUES + tl.arange(0, VALUES)
    sums, of_part = tl.zeros((VALUES,), tl.float32), source + place
    for _ in range(parts):
        sums += tl.load(of_part, place < count, other=0.0)
        of_part += count
    tl.store(target + place, (sums * scale).to(target.dtype.element_ty), place < count)


def _tile(tiles: tuple[Tile, Tile], rank: int) -> dict[str, int]:
    padded = max(SMALLEST_RANK, triton.next_power_of_2(rank))
    block_t, block_k, warps, stages = tiles[padded > 32]
    blocks = {"BLOCK_T": block_t, "BLOCK_K": block_k, "num_warps": warps, "num_stages": stages}
    return {"RANK": rank, "PADDED": padded, **blocks}


def _sizes(x: torch.Tensor) -> tuple[int, int, int]:
    """(tokens, inputs, half): the second half of a row begins at an aligned place."""
    return x.shape[0], x.shape[1], (x.shape[1] + 31) // 32 * 16


def _seeds(rate: float, seed: int) -> tuple[int, int, int]:
    """Two halves of a seed of 62 bits, and the threshold under which a value is dropped."""
    return seed & 0x7FFFFFFF, seed >> 31 & 0x7FFFFFFF, threshold_of(rate)


def threshold_of(rate: float) -> int:
    return min(round(rate * 2**16), 2**16 - 1)


def kept_scale(rate: float) -> float:
    """By what kept values are multiplied: one over the share that is kept."""
    return 2**16 / (2**16 - threshold_of(rate))


def _split(blocks: int, others: int) -> tuple[int, int]:
    """(parts, blocks of each) of a sum over `blocks` that is made `others` times side by side."""
    each = triton.cdiv(blocks, max(1, min(blocks, BLOCKS // others)))
    return triton.cdiv(blocks, each), each


def _added(parts: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor:
    target = torch.empty(parts.shape[1:], dtype=dtype, device=parts.device)
    _add_up[(triton.cdiv(target.numel(), 256),)](parts, target, target.numel(), len(parts), scale, VALUES=256)
    return target


def dropped_product(x: torch.Tensor, a: torch.Tensor, rate: float, seed: int) -> torch.Tensor:
    """drop(x) a^T, (tokens, rank), for x (tokens, inputs) and a (rank, inputs), in their dtype."""
    (tokens, inputs, half), tile = _sizes(x), _tile(FORWARD, len(a))
    across = triton.cdiv(tokens, tile["BLOCK_T"])
    count, each = _split(triton.cdiv(half, tile["BLOCK_K"]), across)
    parts = torch.empty(count, tokens, len(a), dtype=torch.float32, device=x.device)
    _forward[(across, count)](x, a, parts, tokens, inputs, half, each, *_seeds(rate, seed), **tile)
    return _added(parts, kept_scale(rate), x.dtype)


def gradient_of_a(x: torch.Tensor, through: torch.Tensor, rate: float, seed: int, scale: float) -> torch.Tensor:
    """scale * through^T drop(x), (rank, inputs) in float32, for through (tokens, rank)."""
    (tokens, inputs, half), rank = _sizes(x), through.shape[1]
    tile = _tile(GRADIENT_A, rank)
    across = triton.cdiv(half, tile["BLOCK_K"])
    count, each = _split(triton.cdiv(tokens, tile["BLOCK_T"]), across)
    parts = torch.empty(count, rank, inputs, dtype=torch.float32, device=x.device)
    _gradient_a[(across, count)](x, through, parts, tokens, inputs, half, each, *_seeds(rate, seed), **tile)
    return _added(parts, scale * kept_scale(rate), torch.float32)


def add_gradient_of_x(
    gradient: torch.Tensor, through: torch.Tensor, a: torch.Tensor, rate: float, seed: int, scale: float
) -> None:
    """gradient += scale * drop(through a), in place, by the mask that x had."""
    (tokens, inputs, half), tile = _sizes(gradient), _tile(GRADIENT_X, len(a))
    grid = (triton.cdiv(half, tile["BLOCK_K"]), triton.cdiv(tokens, tile["BLOCK_T"]))
    whole = scale * kept_scale(rate)
    _gradient_x[grid](gradient, through, a, tokens, inputs, half, whole, *_seeds(rate, seed), **tile)


# --- gated activations -------------------------------------------------------------------------------------------------


@triton.jit
def _activated(x, GELU: tl.constexpr):
    """act(x) and its slope, in float32; gelu by its tanh approximation."""
    if GELU:
        y = 0.7978845608028654 * (x + 0.044715 * x * x * x)  # sqrt(2 / pi), and the approximation's own constant
        s = tl.sigmoid(2 * y)  # (1 + tanh(y)) / 2
        slope = s + 2 * x * s * (1 - s) * 0.7978845608028654 * (1 + 3 * 0.044715 * x * x)
    else:
        s = tl.sigmoid(x)
        slope = s * (1 + x * (1 - s))
    return x * s, slope


@triton.jit  # counts are multiples of 16 where widths are: else values would be read one by one
def _product(gate, up, out, count, GELU: tl.constexpr, VALUES: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * VALUES + tl.arange(0, VALUES)
    here = place < count
    active, _ = _activated(tl.load(gate + place, here, other=0.0).to(tl.float32), GELU)
    rounded = active.to(gate.dtype.element_ty).to(tl.float32)  # as torch's two kernels do
    tl.store(out + place, (rounded * tl.load(up + place, here, other=0.0).to(tl.float32)).to(out.dtype.element_ty), here)


@triton.jit  # counts are multiples of 16 where widths are: else values would be read one by one
def _gradients(g, gate, up, to_gate, to_up, count, GELU: tl.constexpr, VALUES: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * VALUES + tl.arange(0, VALUES)
    here = place < count
    active, slope = _activated(tl.load(gate + place, here, other=0.0).to(tl.float32), GELU)
    wide = tl.load(g + place, here, other=0.0).to(tl.float32)
    other = tl.load(up + place, here, other=0.0).to(tl.float32)
    tl.store(to_gate + place, (wide * other * slope).to(to_gate.dtype.element_ty), here)
    tl.store(to_up + place, (wide * active).to(to_up.dtype.element_ty), here)


def gated_product(act: str, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """act(gate) * up, of any shape."""
    gate, up = gate.contiguous(), up.contiguous()
    out = torch.empty_like(gate)
    _product[(triton.cdiv(out.numel(), VALUES),)](gate, up, out, out.numel(), GELU=act == "gelu", VALUES=VALUES)
    return out


def gated_gradients(act: str, g: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of gate and up for the gradient g of act(gate) * up."""
    g, gate, up = g.contiguous(), gate.contiguous(), up.contiguous()
    to = torch.empty_like(gate), torch.empty_like(up)
    _gradients[(triton.cdiv(g.numel(), VALUES),)](g, gate, up, *to, g.numel(), GELU=act == "gelu", VALUES=VALUES)
    return to
