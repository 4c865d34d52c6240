"""Quantized weights on processors for which vLLM has no kernel, or one whose sums saturate: the same function otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.helpers.paths import ROOT
from tests.zoo.stages.score.vllm.test_cpu_worker import on_cpus


@pytest.mark.chain
@pytest.mark.timeout(300)
@pytest.mark.skipif(not on_cpus(), reason="needs vLLM for CPUs")
def test_layers_are_what_their_levels_say_and_replace_only_a_kernel_that_is_missing_or_wrong() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-m", "tests.helpers.cpu_dequantized"], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    assert max(found["errors"].values()) < 1e-4
    there = [found["kernels"].count(name) for name in ("CPUWNA16LinearKernel", "DequantizedLinearKernel")]
    assert there == ([1, 0] if found["built"] else [0, 1])
    there = [found["kernels"].count(name) for name in ("CPUInt8ScaledMMLinearKernel", "ExactInt8ScaledMMLinearKernel")]
    assert there == ([0, 1] if found["saturates"] else [1, 0])
