"""Fused training passes: peft's and transformers' numbers with less time and memory.

Fewer kernels, fewer bytes kept, no 32-bit copies. peft's LoRA layer widens its input to float32, copies the layer's output and
adds to it, seven times a layer, and autograd keeps what each of those kernels read. Here a linear layer with its adapter is one
autograd function that keeps its input (of a norm's output what that was computed from, zoo/stages/norms.py) and A's output.
Dropout is drawn again in the backward pass instead of kept, and so is the product of gate and up projection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch.nn import functional as F

from zoo.stages import progress
from zoo.stages.device import compute_dtype
from zoo.stages.norms import fuse_norm, largest_difference, rounding, source_of, takes_one_tensor
from zoo.stages.train import dropout, pointwise


class AdaptedLinear:
    """A frozen linear layer with its LoRA pair, as `run` and its backward pass need it.

    `a` (rank, inputs) and `b` (outputs, rank) are trained in float32; `refresh` copies them to the 16 bits that products are
    made in, once after each optimizer step.
    """

    def __init__(self, layer: Any) -> None:
        base, name = layer.get_base_layer(), layer.active_adapters[0]
        self.weight, self.bias = base.weight, base.bias
        self.a, self.b = layer.lora_A[name].weight, layer.lora_B[name].weight
        self.scale = float(layer.scaling[name])
        self.dropout = float(getattr(layer.lora_dropout[name], "p", 0.0))
        self.layer = layer
        self.kept: torch.Tensor | None = None
        self.a16, self.b16 = (t.detach().to(compute_dtype()) for t in (self.a, self.b))

    def matrix(self) -> torch.Tensor:
        """The frozen weight (outputs, inputs) in 16 bits.

        NF4 dequantized, or the copy that `keep` made.
        """
        if self.kept is not None:
            return self.kept
        state = getattr(self.weight, "quant_state", None)
        if state is None:
            return self.weight.detach()
        from bitsandbytes.functional import dequantize_4bit

        restored: torch.Tensor = dequantize_4bit(self.weight.data, state)
        return restored.to(compute_dtype())

    def keep(self) -> None:
        """Hold the dequantized weight beside NF4.

        The same numbers without dequantizing them in each pass.
        """
        self.kept = self.matrix()

    def drop_rate(self) -> float:
        return self.dropout if self.layer.training else 0.0


def refresh(layers: Iterable[AdaptedLinear]) -> None:
    """Copy the trained float32 pairs to the 16-bit ones."""
    layers = list(layers)
    if layers:
        with torch.no_grad():
            torch._foreach_copy_([t for m in layers for t in (m.a16, m.b16)], [t for m in layers for t in (m.a, m.b)])


def _forward(x: torch.Tensor, m: AdaptedLinear, rate: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The output of a linear layer with its adapter, and what the backward pass needs.

    y = x W^T + bias + scale * drop(x) A^T B^T for x (tokens, inputs), and drop(x) A^T.
    """
    y = F.linear(x, m.matrix(), m.bias)
    inner = dropout.product(x, m.a16, rate, seed)
    return y.addmm_(inner, m.b16.T, alpha=m.scale), inner


def _backward(
    g: torch.Tensor, x: torch.Tensor, inner: torch.Tensor, m: AdaptedLinear, rate: float, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, A and B for the gradient g (tokens, outputs) of y."""
    through = g @ m.b16  # (tokens, rank)
    grad_b = (g.T @ inner).float().mul_(m.scale)
    grad_x = g @ m.matrix()
    grad_a = dropout.add_gradients(grad_x, x, through, m.a16, rate, seed, m.scale)
    return grad_x, grad_a, grad_b


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, m: AdaptedLinear, rate: float, seed: int
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        y, inner = _forward(flat, m, rate, seed)
        source, ctx.again = source_of(x)
        ctx.save_for_backward(source, inner)
        ctx.rest = (m, rate, seed)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[Any, ...]:
        source, inner = ctx.saved_tensors
        x = source if ctx.again is None else ctx.again(source)
        flat = x.reshape(-1, x.shape[-1])
        grads = _backward(g.reshape(-1, g.shape[-1]), flat, inner, *ctx.rest)
        return grads[0].view_as(x), grads[1], grads[2], None, None, None


class _GatedLinear(torch.autograd.Function):
    """The down projection of act(gate) * up.

    The product is computed again in the backward pass instead of kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        gate: torch.Tensor,
        up: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        m: AdaptedLinear,
        act: str,
        rate: float,
        seed: int,
    ) -> torch.Tensor:
        x = pointwise.product(act, gate, up)
        y, inner = _forward(x.reshape(-1, x.shape[-1]), m, rate, seed)
        ctx.save_for_backward(gate, up, inner)
        ctx.rest, ctx.act = (m, rate, seed), act
        return y.view(*gate.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[Any, ...]:
        gate, up, inner = ctx.saved_tensors
        x = pointwise.product(ctx.act, gate, up)
        grads = _backward(g.reshape(-1, g.shape[-1]), x.reshape(-1, x.shape[-1]), inner, *ctx.rest)
        grad_gate, grad_up = pointwise.gradients(ctx.act, grads[0].view_as(gate), gate, up)
        return grad_gate, grad_up, grads[1], grads[2], None, None, None, None


# --- putting them into a model ------------------------------------------------------------------------------------------


def fuse(model: Any) -> list[AdaptedLinear]:
    """Replace the forward passes of a peft model's layers by the ones here.

    These are plain LoRA layers, gated feed-forward parts and norms. What is not known to compute the same is left as it is:
    DoRA and other variants, biases in adapters, other activations. A norm or a feed-forward part is replaced only if it gives
    what the replacement gives. Empty where any LoRA layer cannot be replaced.
    """
    from peft.tuners.lora import LoraLayer

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    if not layers or not all(map(_is_plain, layers)):
        return []
    adapted = {id(layer): AdaptedLinear(layer) for layer in layers}
    for layer in layers:
        layer.forward = _linear_forward(adapted[id(layer)])
    for module in model.modules():
        _fuse_gate(module, adapted)
        fuse_norm(module)
    _compile(adapted.values())
    return list(adapted.values())


def _compile(layers: Iterable[AdaptedLinear]) -> None:
    """Compile and try the kernels that training will use, for which its first steps would wait."""
    for m in layers:
        if m.weight.is_cuda and m.dropout:
            dropout.kernels_for(compute_dtype(), *m.a.shape)


def _is_plain(layer: Any) -> bool:
    names = list(layer.active_adapters)
    if len(names) != 1 or layer.lora_variant or layer.merged or names[0] not in getattr(layer, "lora_A", {}):
        return False
    base = layer.get_base_layer()
    pair = (layer.lora_A[names[0]], layer.lora_B[names[0]])
    # Other subclasses of Linear (FP8, ternary weights) have passes of their own, of which the weight tells nothing.
    is_known = type(base) is torch.nn.Linear or hasattr(base.weight, "quant_state")
    is_linear = is_known and all(type(half) is torch.nn.Linear for half in pair)
    return is_linear and all(half.bias is None for half in pair)


def _seed() -> int:
    """A seed for dropout, drawn from the CPU's generator.

    Activation checkpointing winds that back, so that a pass that is repeated draws the same masks.
    """
    return int(torch.randint(2**62, ()))


def _linear_forward(m: AdaptedLinear) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        rate = m.drop_rate()
        result: torch.Tensor = _Linear.apply(x, m.a, m.b, m, rate, _seed() if rate else 0)
        return result

    return forward


def _fuse_gate(module: Any, adapted: dict[int, AdaptedLinear]) -> None:
    """Gated feed-forward parts, by the names that Llama, Mistral, Qwen and Gemma share.

    Others with these names clamp, scale or norm in between (Falcon H1, BitNet, Gemma 3n): they are left as they are.
    """
    gate_proj, up_proj = getattr(module, "gate_proj", None), getattr(module, "up_proj", None)
    act = _activation(getattr(module, "act_fn", None))
    down = adapted.get(id(getattr(module, "down_proj", None)))
    if act is None or down is None or gate_proj is None or up_proj is None or not takes_one_tensor(module):
        return
    if down.weight.is_cuda:  # compiled now, not in the first steps
        pointwise.kernels_for(act, compute_dtype())

    def forward(x: torch.Tensor) -> torch.Tensor:
        rate = down.drop_rate()
        gate, up = gate_proj(x), up_proj(x)
        result: torch.Tensor = _GatedLinear.apply(gate, up, down.a, down.b, down, act, rate, _seed() if rate else 0)
        return result

    if _gives_the_same(module, forward, down):
        module.forward = forward
    else:
        _left_alone(type(module).__name__)


@cache
def _left_alone(kind: str) -> None:
    progress.note(f"{kind} is left to transformers' own pass, slower: the fused one gives other numbers")


def _gives_the_same(module: Any, forward: Callable[[torch.Tensor], torch.Tensor], down: AdaptedLinear) -> bool:
    """Whether a pass gives what a module's own does, tried without dropout on rows from small to large."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([0.1, 1.0, 10.0, 100.0])[:, None]
    x = torch.randn(len(sizes), module.gate_proj.in_features, generator=generator) * sizes
    x = x.to(down.weight.device, down.a16.dtype)
    was_training = module.training
    module.eval()
    with torch.no_grad():
        apart = largest_difference(forward(x), module(x))
    module.train(was_training)
    return apart <= rounding(x.dtype)


def _activation(act: Any) -> str | None:
    """`silu` or `gelu` where a module computes that, judged by what it gives."""
    if act is None:
        return None
    x = torch.linspace(-4, 4, 65)
    candidates = {"silu": F.silu(x), "gelu": F.gelu(x, approximate="tanh")}
    return next((name for name, y in candidates.items() if torch.allclose(act(x), y, atol=1e-6)), None)
