"""How fast the kernels of LoRA's dropout and of gated activations are, beside torch's own passes and products without dropout.

    python benchmarks/dropout_kernels.py [--tokens 4096] [--inputs 4096 --inputs 14336] [--rank 16 --rank 64] [--sweep]

GB/s counts what has to be read and written once: x forward and for A's gradient, the gradient of x twice. Operands take turns,
so that none is in the cache. Ours and products without dropout are replayed as CUDA graphs: `host` is what a call costs the
processor. `--sweep` tries other blocks, compiled beforehand by processes side by side. Without a GPU, under TRITON_INTERPRET=1,
it shows that it runs: times mean nothing there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import triton

from zoo.stages.device import compute_dtype
from zoo.stages.train import dropout, kernels, pointwise

SEED, SCALE = 0x2B5AD4CE87A1F3D9, 2.0
TURNS, REPEATS = 8, 5
GPU = torch.cuda.is_available()
PLACE = "cuda" if GPU else "cpu"
DTYPE = compute_dtype() if GPU else torch.float16  # the interpreter multiplies no bfloat16
# Per kernel: (tokens, inputs, warps, stages).
TILES = {
    "FORWARD": [
        (64, 64, 4, 3),
        (64, 64, 4, 2),
        (64, 64, 4, 4),
        (32, 64, 4, 3),
        (64, 32, 4, 3),
        (64, 128, 8, 3),
        (128, 64, 8, 3),
    ],
    "GRADIENT_A": [(64, 64, 4, 3), (64, 64, 4, 2), (32, 64, 4, 3), (64, 64, 8, 3), (32, 128, 4, 3), (64, 128, 8, 2)],
    "GRADIENT_X": [(32, 128, 4, 1), (64, 64, 4, 1), (64, 128, 8, 1), (32, 64, 4, 1), (16, 128, 4, 1), (128, 64, 8, 1)],
}
BLOCKS = (264, 528, 1056)
Call = Callable[[int], Any]


def seconds_of(calls: list[Callable[[], Any]], *, graph: bool) -> float:
    """Of one call on the device, the fastest of a few rounds."""
    calls[0]()
    if not GPU:
        started = time.perf_counter()
        calls[0]()
        return time.perf_counter() - started
    run = replay(calls) if graph else lambda: [call() for call in calls]
    times = []
    for _ in range(REPEATS):
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        run()
        after.record()
        torch.cuda.synchronize()
        times.append(before.elapsed_time(after) / 1e3 / len(calls))
    return min(times)


def replay(calls: list[Callable[[], Any]]) -> Callable[[], None]:
    torch.cuda.synchronize()
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        for call in calls:
            call()
    recorded.replay()
    return recorded.replay


def host_seconds(calls: list[Callable[[], Any]]) -> float:
    """What a call costs the processor until it returns."""
    started = time.perf_counter()
    for call in calls:
        call()
    spent = time.perf_counter() - started
    if GPU:
        torch.cuda.synchronize()
    return spent / len(calls)


def row(name: str, call: Call, bytes_moved: float, *, graph: bool = True) -> float:
    calls = [partial(call, i) for i in range(TURNS)]
    seconds = seconds_of(calls, graph=graph)
    print(f"| {name} | {seconds * 1e6:.1f} | {bytes_moved / seconds / 1e9:.0f} | {host_seconds(calls) * 1e6:.0f} |", flush=True)
    return seconds


class Operands:
    """Tensors of one layer, several of each that take turns."""

    def __init__(self, tokens: int, inputs: int, rank: int) -> None:
        def drawn(*shape: int) -> list[torch.Tensor]:
            return [torch.randn(shape, device=PLACE, dtype=DTYPE) for _ in range(TURNS)]

        self.x, self.gradient = drawn(tokens, inputs), drawn(tokens, inputs)
        self.through, self.a = drawn(tokens, rank), drawn(rank, inputs)
        self.bytes = float(self.x[0].nbytes)

    def calls(self, rate: float) -> dict[str, tuple[Call, float]]:
        """Of each kernel: a call by turn, and the bytes that it has to move."""
        x, g, t, a = self.x, self.gradient, self.through, self.a
        return {
            "FORWARD": (lambda i: kernels.dropped_product(x[i], a[i], rate, SEED + i), self.bytes),
            "GRADIENT_A": (lambda i: kernels.gradient_of_a(x[i], t[i], rate, SEED + i, SCALE), self.bytes),
            "GRADIENT_X": (lambda i: kernels.add_gradient_of_x(g[i], t[i], a[i], rate, SEED + i, SCALE), 2 * self.bytes),
        }


def compare(tokens: int, inputs: int, rank: int, rate: float) -> None:
    """The kernels that training would take here, torch's own passes, and products without dropout."""
    o = Operands(tokens, inputs, rank)
    x, g, t, a, size = o.x, o.gradient, o.through, o.a, o.bytes
    print(f"\n{tokens} tokens, {inputs} inputs, rank {rank}, {DTYPE}, rate {rate}\n")
    if GPU and dropout.kernels_for(DTYPE, rank, inputs) is None:
        print("**FALLS BACK to torch's own passes: the note above says why.**\n")
    else:
        off = dropout.largest_difference(kernels, DTYPE, rank, inputs, PLACE)
        print(f"kernels are {off:.2g} off torch in float32 (taken under {dropout.CLOSE})\n")
    print("| | µs | GB/s | host µs |\n|---|---|---|---|")
    for name, (call, moved) in o.calls(rate).items():
        row(f"{name.lower()}, kernel", call, moved)

    def torch_forward(i: int) -> torch.Tensor:
        return (x[i] * dropout._mask(x[i], rate, SEED + i)) @ a[i].T

    def torch_backward(i: int) -> torch.Tensor:
        mask = dropout._mask(x[i], rate, SEED + i)
        g[i].add_((t[i] @ a[i]).mul_(mask), alpha=SCALE)
        return (t[i].T @ mask.mul_(x[i])).float().mul_(SCALE)

    row("forward, torch's passes", torch_forward, size, graph=False)
    row("both gradients, torch's passes", torch_backward, 3 * size, graph=False)
    row("forward without dropout", lambda i: x[i] @ a[i].T, size)
    row("gradient of a without dropout", lambda i: (t[i].T @ x[i]).float().mul_(SCALE), size)
    row("gradient of x without dropout", lambda i: g[i].addmm_(t[i], a[i], alpha=SCALE), 2 * size)


def compare_activations(tokens: int, inputs: int) -> None:
    gate, up, g = ([torch.randn(tokens, inputs, device=PLACE, dtype=DTYPE) for _ in range(TURNS)] for _ in range(3))
    size = float(gate[0].nbytes)
    print(f"\ngated activations, {tokens} tokens, {inputs} values\n\n| | µs | GB/s | host µs |\n|---|---|---|---|")
    for act in pointwise.PRODUCTS:
        if GPU and pointwise.kernels_for(act, DTYPE) is None:
            print(f"**{act} FALLS BACK to torch's own passes: the note above says why.**")
        row(f"{act} product, kernel", partial(lambda act, i: kernels.gated_product(act, gate[i], up[i]), act), 3 * size)
        row(
            f"{act} gradients, kernel",
            partial(lambda act, i: kernels.gated_gradients(act, g[i], gate[i], up[i]), act),
            5 * size,
        )
        row(f"{act} product, torch", partial(lambda act, i: pointwise.PRODUCTS[act](gate[i], up[i]), act), 3 * size)
        row(f"{act} gradients, torch", partial(lambda act, i: pointwise.GRADIENTS[act](g[i], gate[i], up[i]), act), 5 * size)


# --- other blocks ------------------------------------------------------------------------------------------------------


def use(name: str, tile: tuple[int, int, int, int], blocks: int = kernels.BLOCKS) -> None:
    setattr(kernels, name, (tile, tile))
    kernels.BLOCKS = blocks


def tried(ranks: list[int]) -> Iterator[tuple[int, str, tuple[int, int, int, int]]]:
    for rank in ranks:
        for name, tiles in TILES.items():
            for tile in tiles:
                yield rank, name, tile


def compile_one(task: tuple[int, str, tuple[int, int, int, int]]) -> None:
    """Into Triton's cache on the disk, from which the timing process loads it."""
    rank, name, tile = task
    use(name, tile)
    try:
        Operands(16, 256, rank).calls(0.05)[name][0](0)
    except Exception as error:
        print(f"{name} {tile} at rank {rank}: {type(error).__name__}: {str(error)[:120]}", flush=True)


def sweep(tokens: int, inputs: list[int], ranks: list[int], rate: float) -> None:
    """Every kernel's fastest blocks first, the constants of kernels.py marked."""
    own = {name: getattr(kernels, name) for name in TILES}
    if GPU:
        with multiprocessing.get_context("spawn").Pool(12) as pool:
            pool.map(compile_one, tried(ranks), chunksize=1)
    for rank in ranks:
        for width in inputs:
            operands = Operands(tokens, width, rank)
            for name in TILES:
                print(f"\n{name}, {tokens} tokens, {width} inputs, rank {rank} (* the constants)")
                for line in sorted(timed_tiles(operands, name, rate, own[name][rank > 32])):
                    print("  {:8.1f} µs  {}".format(*line), flush=True)
                use(name, own[name][rank > 32])


def timed_tiles(operands: Operands, name: str, rate: float, own: tuple[int, int, int, int]) -> Iterator[tuple[float, str]]:
    call, standard = operands.calls(rate)[name][0], kernels.BLOCKS
    for tile in TILES[name]:
        for blocks in BLOCKS if name != "GRADIENT_X" else (standard,):
            use(name, tile, blocks)
            try:
                seconds = seconds_of([partial(call, i) for i in range(TURNS)], graph=True)
            except Exception as error:
                yield float("inf"), f"{tile}: {type(error).__name__}: {str(error)[:80]}"
                continue
            yield seconds * 1e6, f"{tile} in {blocks} blocks{' *' if (tile, blocks) == (own, standard) else ''}"
    kernels.BLOCKS = standard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--inputs", type=int, action="append", help="of the layer; 4096 and 14336")
    parser.add_argument("--rank", type=int, action="append", help="16 and 64")
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--sweep", action="store_true", help="other blocks of each kernel, too")
    args = parser.parse_args()
    inputs, ranks = args.inputs or [4096, 14336], args.rank or [16, 64]
    started = time.monotonic()
    card = torch.cuda.get_device_name() if GPU else "no GPU, interpreted: times mean nothing"
    print(f"{card}, torch {torch.__version__}, triton {triton.__version__}")
    for rank in ranks:
        for width in inputs:
            compare(args.tokens, width, rank, args.rate)
    compare_activations(args.tokens, max(inputs))
    if args.sweep:
        sweep(args.tokens, inputs, ranks, args.rate)
    print(f"\n{time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
