"""Kernels of a form: what stands for multiplying in 8 bits, and how an engine is told to."""

from __future__ import annotations

import pytest

from zoo.stages.score.vllm.kernels import form_environment, refusal

PLAIN = {"UnquantizedLinearMethod": 64}


@pytest.mark.parametrize(
    ("scheme", "kernels", "on_gpu", "refused"),
    [
        ("int8", {"CutlassInt8ScaledMMLinearKernel": 96, **PLAIN}, True, False),
        ("int8", {"CPUInt8ScaledMMLinearKernel": 96}, False, False),
        ("int8", PLAIN, True, True),
        ("fp8", {"CutlassFP8ScaledMMLinearKernel": 96}, True, False),
        ("fp8", {"MarlinFP8ScaledMMLinearKernel": 96}, True, True),
        ("w4a8", {"MarlinLinearKernel": 96}, True, False),
        ("w4a8", {"MacheteLinearKernel": 96}, True, True),
        ("w4a8", {"CPUWNA16LinearKernel": 96}, False, False),
        (None, {"AWQLinearMethod": 96}, True, False),
    ],
)
def test_a_form_is_refused_where_another_kernel_multiplies(scheme, kernels, on_gpu: bool, refused: bool) -> None:  # type: ignore[no-untyped-def]
    why = refusal(scheme, kernels, on_gpu=on_gpu)
    assert bool(why) == refused
    assert not why or (scheme in why and all(name in why for name in kernels))


def test_marlin_is_told_of_8_bit_activations_and_what_would_come_before_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_DISABLED_KERNELS", "Other")
    found = form_environment("w4a8", on_gpu=True)
    assert found["VLLM_MARLIN_INPUT_DTYPE"] == "int8"
    assert set(found["VLLM_DISABLED_KERNELS"].split(",")) == {"Other", "MacheteLinearKernel", "CutlassW4A8LinearKernel"}
    assert form_environment("int8", on_gpu=True) == {} == form_environment("w4a8", on_gpu=False)
