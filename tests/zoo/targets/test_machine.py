"""Targets are data; the machine at hand has a fingerprint."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo.targets import host_memory_bytes, list_targets, load_target, machine_fingerprint, only_gpus, visible_gpus


def test_targets_of_the_package() -> None:
    assert {t.name for t in list_targets()} == {"t4x2", "t4", "l4x2", "a10g", "h200", "h200x2", "cpu"}
    for target in list_targets():
        assert load_target(target.name) == target
        assert (target.gpus == 0) == (target.compute_capability is None)
        assert target.device_bytes <= (target.memory_bytes or host_memory_bytes())
        assert (target.compute_capability or (9, 9)) >= (8, 0) or "bfloat16" not in target.dtypes
        assert (target.interconnect == "none") == (target.gpus < 2)


def test_unknown_and_faulty_targets(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="no target 't5'; known: a10g, cpu"):
        load_target("t5")
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\ngpuss = 2\ndtypes = []\nmargin = 1\n')
    with pytest.raises(ZooError, match="unknown key `gpuss`; did you mean `gpus`"):
        load_target(str(path))
    path.write_text('name = "mine"\ngpus = 0\ndtypes = ["float32"]\nmargin = 1.2\n')
    assert load_target(str(path)).devices == 1


def test_machine_fingerprint_is_stable_and_tells_no_names() -> None:
    import socket

    assert machine_fingerprint() == machine_fingerprint.__wrapped__()
    assert socket.gethostname() not in machine_fingerprint()
    assert "\n" not in machine_fingerprint() and machine_fingerprint().strip()


@pytest.mark.parametrize("listed", ["-1,0", "0,-1,1", "0,,1", "", "1,0", "GPU-ab,GPU-cd", " 2 , 1", "0,none", "NoDevFiles"])
def test_the_list_of_visible_gpus_ends_where_cuda_ends_it(listed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: how torch reads CUDA's list."""
    import torch

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus() == tuple(map(str, torch.cuda._parse_visible_devices()))


def test_a_process_sees_the_gpus_it_is_given_and_all_of_them_where_it_is_given_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert only_gpus([]) == {}
    for name, value in only_gpus(["4", "GPU-5"]).items():
        monkeypatch.setenv(name, value)
    assert visible_gpus() == ("4", "GPU-5")
