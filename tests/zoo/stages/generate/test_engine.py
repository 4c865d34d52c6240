"""What an engine that answers is told, where others are at work on its card."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo.stages.generate.engine import BESIDE_CACHE_BYTES, within_share


def test_the_cache_is_what_weights_leave_of_a_share_and_others_on_the_card_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    found = within_share({"model": str(tmp_path), "gpu_memory_utilization": 0.9}, BESIDE_CACHE_BYTES + 1500)
    assert found == {"model": str(tmp_path), "gpu_memory_utilization": 0.05, "kv_cache_memory_bytes": 500}


def test_a_share_without_room_for_a_cache_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    with pytest.raises(ZooError, match=r"2\.0 GiB of the card are lent, the model takes 3\.0"):
        within_share({"model": str(tmp_path)}, 2 << 30)
