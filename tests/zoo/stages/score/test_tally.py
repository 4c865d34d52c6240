"""A run in parts is accounted for as one."""

from __future__ import annotations

from pathlib import Path

from zoo.stages.score.tally import Tally, load_tally


def test_a_run_in_parts_is_accounted_for_as_one(tmp_path: Path) -> None:
    first = Tally(run_seconds=2.0, tokens=100, cached_tokens=10)
    first.see_memory({"loading_bytes": 3, "allocated_bytes": 5, "card_bytes": 7})
    first.save(tmp_path)
    again = load_tally(tmp_path)
    again.see_memory({"loading_bytes": 2, "allocated_bytes": 6, "card_bytes": 6})
    assert again.metrics()["engine/cached_share"] == 0.1 and (again.loading_bytes, again.allocated_bytes, again.card_bytes) == (
        3,
        6,
        7,
    )
    assert load_tally(tmp_path / "nowhere") == Tally()
