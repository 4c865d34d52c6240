"""Which cluster is joined: one that was named; what is started here listens on loopback alone, and ends with its command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo.pipeline.runners import ray_address
from zoo.pipeline.runners.ray_address import ADDRESS, CURRENT, checked_address, cluster_address

STARTED = """
import psutil
from zoo.pipeline.runners.ray import address, connected
with connected():
    host = address().rpartition(":")[0]
    started = psutil.Process().children(recursive=True)
    assert {"gcs_server", "raylet"} <= {process.name() for process in started}
    listening = {c.laddr.ip for process in started for c in process.net_connections("inet") if c.status == "LISTEN"}
    print(host, *sorted(listening))
"""


@pytest.fixture
def current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ray's file of the cluster that `ray start` has joined."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv(ADDRESS, "auto")
    file = tmp_path / "ray" / CURRENT
    file.parent.mkdir()
    file.write_text("10.0.0.1:6379")
    return file


def test_a_cluster_that_this_user_began_is_joined(current: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_address, "_runs_here", lambda address: address == "10.0.0.1:6379")
    assert cluster_address() == "10.0.0.1:6379"
    for none in ("local", ""):
        monkeypatch.setenv(ADDRESS, none)
        assert cluster_address() is None, "it was not asked for"
    monkeypatch.setenv(ADDRESS, "head:1")
    assert cluster_address() == "head:1"


def test_no_other_one_is(current: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster_address() is None, "the file says of a cluster that no process of this user works for"
    monkeypatch.setattr(ray_address, "_runs_here", lambda address: True)
    monkeypatch.setattr(os, "getuid", lambda: current.stat().st_uid + 1)
    assert cluster_address() is None, "somebody else's file"
    monkeypatch.undo()
    monkeypatch.setenv("RAY_TMPDIR", str(current.parents[1]))
    monkeypatch.setenv(ADDRESS, "auto")
    monkeypatch.setattr(ray_address, "_runs_here", lambda address: True)
    current.rename(current.with_name("theirs"))
    current.symlink_to("theirs")
    assert cluster_address() is None, "a link"


def test_a_running_one_that_is_asked_for_has_to_be_there(current: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZooError, match="no `ray start` of yours"):
        checked_address()


@pytest.mark.chain
@pytest.mark.timeout(300)
def test_what_is_started_here_listens_on_loopback_alone() -> None:
    pytest.importorskip("ray")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", STARTED], env={**environment, ADDRESS: "local"}, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-2000:]
    host, *listening = done.stdout.split()
    assert host == "127.0.0.1"
    assert listening and all(ip.removeprefix("::ffff:").startswith("127.") for ip in listening), listening
