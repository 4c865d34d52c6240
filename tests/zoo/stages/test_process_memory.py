"""The memory of a stage is that of its own processes: children count, whoever launched it does not."""

from __future__ import annotations

import subprocess
import sys

from zoo.stages.process_memory import PeakWatch, own_peak_bytes, tree_bytes

MIB = 2**20
HOLD = "import sys; held = bytearray(b'x') * (150 * 2**20); print('held', flush=True); sys.stdin.read()"


def test_what_a_child_holds_counts() -> None:
    watch, before = PeakWatch(), tree_bytes()
    child = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        assert watch.peak_bytes() >= before + 150 * MIB
    finally:
        child.communicate()
    assert tree_bytes() < before + 150 * MIB


def test_what_the_launcher_held_does_not_count() -> None:
    held = bytearray(b"x") * (300 * MIB)
    code = "from zoo.stages.process_memory import PeakWatch; print(PeakWatch().peak_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert 0 < int(done.stdout) < 300 * MIB < own_peak_bytes()
    assert len(held) == 300 * MIB
