"""vLLM's CPU worker with fused norms and a head of three labels.

Imported by vLLM, in each of an engine's worker processes. Without compilation vLLM (0.32) computes norms on CPUs by a handful
of plain torch operations each, though fused kernels are in its build; its float32 head copies the whole vocabulary's weights at
every step, for three rows of them; and activations go back to Linux after every layer. Together these were a third of a small
model's time (benchmarks/score_speed.md).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from vllm import ir
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod
from vllm.v1.worker.cpu_worker import CPUWorker

from zoo.stages.score.vllm.cpu_dequantized import replace_kernels
from zoo.stages.score.vllm.engine import FUSED_NORMS, LABEL_IDS

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of glibc
KERNEL_WIDTH = 8  # VEC_ELEM_NUM of csrc/cpu/layernorm.cpp, which refuses other widths
PLAIN_HEADS = (UnquantizedEmbeddingMethod, UnquantizedLinearMethod)


class ScoringWorker(CPUWorker):
    """Fused norms, a head of the label rows alone, and memory that is kept between steps."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        register_norms()  # before vLLM looks up by which implementations its operations run
        replace_kernels()
        super().__init__(*args, **kwargs)

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        super().load_model(*args, **kwargs)
        label_ids = self.vllm_config.additional_config.get(LABEL_IDS)
        for module in self.model_runner.get_model().modules():
            if label_ids and isinstance(module, LogitsProcessor) and module.head_dtype == torch.float32:
                module._apply_head = label_head(module._apply_head, label_ids)
        keep_freed_memory()  # now that weights lie in pages of their own


def register_norms() -> None:
    """Make vLLM's C++ norms known as implementations of its norm operations on CPUs.

    Called twice, it does the same. Nothing runs by them unless `ir_op_priority` names them. In float32 within, rounded once
    where the plain ones round twice.
    """
    if FUSED_NORMS in ir.ops.rms_norm.impls:
        return
    ir.ops.rms_norm.register_impl(FUSED_NORMS, supports_args=takes)(rms_norm)
    ir.ops.fused_add_rms_norm.register_impl(FUSED_NORMS, supports_args=takes_sum, inplace=True)(fused_add_rms_norm)


def takes(x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None) -> bool:
    """What the kernels can do.

    Gemma's norms, whose weights are float32, they cannot, nor widths that are no multiple of 8.
    """
    plain = variance_size is None and (weight is None or weight.dtype == x.dtype)
    return plain and x.is_contiguous() and x.shape[-1] % KERNEL_WIDTH == 0


def takes_sum(
    x: torch.Tensor, x_residual: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
) -> bool:
    return takes(x, weight, epsilon, variance_size) and x_residual.dtype == x.dtype and x_residual.is_contiguous()


def rms_norm(x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None) -> torch.Tensor:
    out = torch.empty_like(x)
    torch.ops._C.rms_norm(out, x, weight, epsilon)
    return out


def fused_add_rms_norm(
    x: torch.Tensor, x_residual: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
    return x, x_residual


def label_head(whole: Callable[..., torch.Tensor], label_ids: Sequence[int]) -> Callable[..., torch.Tensor]:
    """A head that computes the labels' logits in float32.

    All other tokens get minus infinity. `whole` is vLLM's, and does what this one does not: heads that are quantized or split
    over processes.
    """
    rows = torch.tensor(list(label_ids))

    def apply(lm_head: Any, hidden: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if lm_head.tp_size > 1 or not isinstance(lm_head.quant_method, PLAIN_HEADS):
            return whole(lm_head, hidden, bias)
        logits = torch.full((*hidden.shape[:-1], len(lm_head.weight)), -torch.inf)
        logits[..., rows] = torch.nn.functional.linear(
            hidden.float(), lm_head.weight[rows].float(), None if bias is None else bias[rows].float()
        )
        return logits

    return apply


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next layer.

    Otherwise it gives megabytes back to Linux and faults them in again. Of 10 s on two cores 1 s went there. Resident memory
    stays at its highest: that of the first step, and a tenth more where later rows are much shorter and want other sizes.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(M_MMAP_MAX, 0)
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
