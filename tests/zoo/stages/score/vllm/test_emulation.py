"""An emulated card has the target's memory, dtypes and kernels, or is refused."""

from __future__ import annotations

import pytest

from zoo.contracts import ServeSpec
from zoo.errors import ZooError
from zoo.stages.score.vllm.emulation import CAP, emulation_arguments, emulation_environment
from zoo.targets import load_target


def test_an_emulated_card_has_the_target_s_memory_dtypes_and_kernels() -> None:
    t4, arguments = load_target("t4x2"), {"dtype": "auto", "model": "m"}
    changed = emulation_arguments(t4, ServeSpec(), arguments, on_gpu=True)
    assert changed["dtype"] == "float16" and changed["attention_backend"] == "TRITON_ATTN"
    assert changed["additional_config"] == {CAP: t4.usable_bytes} and changed["model"] == "m"
    assert "MacheteLinearKernel" in emulation_environment(t4)["VLLM_DISABLED_KERNELS"]
    assert emulation_environment(load_target("h200")) == {}
    assert "attention_backend" not in emulation_arguments(load_target("l4x2"), ServeSpec(), arguments, on_gpu=True)
    small = ServeSpec(gpu_memory_bytes=2**30)
    assert emulation_arguments(t4, small, arguments, on_gpu=True)["additional_config"] == {CAP: 2**30}


@pytest.mark.parametrize(
    ("target", "dtype", "on_gpu", "message"),
    [
        ("cpu", "auto", True, "it has no GPU"),
        ("t4x2", "auto", False, "no GPU is visible"),
        ("t4x2", "bfloat16", True, 'serve.t4x2.dtype = "float16"'),
    ],
)
def test_what_cannot_be_emulated_is_refused(target: str, dtype: str, on_gpu: bool, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        emulation_arguments(load_target(target), ServeSpec(), {"dtype": dtype}, on_gpu)
