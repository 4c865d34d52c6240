"""Claims on pieces of work: one holder a piece, whoever tries when; a silent holder's pieces go to exactly one other."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from zoo.store.leases import Leases, forget, living


def test_of_many_who_claim_at_once_one_has_each_piece(tmp_path: Path) -> None:
    holders = [Leases(tmp_path, f"h{i}") for i in range(8)]

    def claims(leases: Leases) -> list[int]:
        return [number for number in range(200) if leases.claim(number)]

    with ThreadPoolExecutor(len(holders)) as pool:
        claimed = [number for each in pool.map(claims, holders) for number in each]
    assert sorted(claimed) == list(range(200))


def test_a_claim_stays_its_holders(tmp_path: Path) -> None:
    one, other = Leases(tmp_path, "one"), Leases(tmp_path, "other")
    assert one.claim(3) and one.claim(3) and not other.claim(3) and other.claim(4) and not one.claim(4)


@given(st.permutations(range(6)))
def test_what_a_silent_holder_had_goes_to_one_of_those_who_try(tmp_path_factory, order: list[int]) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("leases")
    gone = Leases(folder, "gone", lapse_seconds=60)
    assert gone.claim(0)
    others = [Leases(folder, f"h{i}", lapse_seconds=60) for i in order]
    assert not any(each.claim(0) for each in others)  # it lives
    beat = folder / "gone.alive"
    os.utime(beat, (beat.stat().st_atime, beat.stat().st_mtime - 61))
    assert [each.claim(0) for each in others] == [True, False, False, False, False, False]
    assert not gone.claim(0)  # it comes back, and another has it now


def test_what_is_given_back_anybody_may_have_at_once(tmp_path: Path) -> None:
    one, other, third = (Leases(tmp_path, name) for name in ("one", "other", "third"))
    for first, second in ((one, other), (other, one), (one, third)):
        assert first.claim(0) and first.holds(0) and not second.claim(0)
        second.release(0)  # not its own: nothing happens
        assert first.holds(0)
        first.release(0)
        assert not first.holds(0) and second.claim(0) and not first.claim(0)
        second.release(0)


def test_who_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    one, other = Leases(tmp_path, "host-1-7"), Leases(tmp_path, "host-12-7")
    assert one.claim(0) and living(tmp_path) == {"host-1-7", "host-12-7"}
    forget(tmp_path, "host-1-")
    assert living(tmp_path) == {"host-12-7"} and other.claim(0) and not one.holds(0)
    other.leave()
    assert living(tmp_path) == set() and living(tmp_path / "none") == set()
    assert not list(tmp_path.glob(".now-*"))
