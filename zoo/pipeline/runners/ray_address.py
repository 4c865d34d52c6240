"""Which Ray cluster is joined: one that was named, else one is started.

Who joins a cluster runs what others put into it, so none is joined because it happens to be on this host.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

import psutil

from zoo.errors import ZooError

ADDRESS = "RAY_ADDRESS"  # Ray's own: host:port of a cluster
CURRENT = "ray_current_cluster"  # Ray's file of the cluster that `ray start` joined last on this host
REACH_SECONDS = 5.0
LOOPBACK = "127.0.0.1"
# Ray's switch for systems that it has no clusters of: its processes listen on loopback then, and else on every interface.
CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def cluster_address() -> str | None:
    """HOST:PORT of the cluster to join; None where one is to be started.

    That of `RAY_ADDRESS`; for `auto` that which this user's `ray start` has joined.
    """
    given = os.environ.get(ADDRESS) or "local"
    if given == "local":
        return None
    return begun_here() if given == "auto" else given


def checked_address() -> str | None:
    """`cluster_address`, once something answers there.

    ZooError where it is no address, nothing answers, or a running one was asked for and there is none.
    """
    found = cluster_address()
    if found is not None:
        check_reached(found)
    elif os.environ.get(ADDRESS) == "auto":
        raise ZooError(f"{ADDRESS}=auto: no `ray start` of yours is at work on this host; give HOST:PORT, or leave it out")
    return found


def begun_here() -> str | None:
    """The cluster that `ray start` of this user has joined on this host, if it runs still."""
    file = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray" / CURRENT
    try:
        found = file.lstat()
        address = file.read_text().strip() if stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid() else ""
    except (OSError, ValueError):
        return None
    return address if address and _runs_here(address) else None


def _runs_here(address: str) -> bool:
    """Whether a process of this user works on this host for the cluster.

    The file may be older than who listens at that address now.
    """
    for process in psutil.process_iter(["name"]):
        with suppress(psutil.Error):
            is_own = process.info["name"] == "raylet" and process.uids().real == os.getuid()
            if is_own and f"--gcs-address={address}" in process.cmdline():
                return True
    return False


def check_reached(address: str) -> None:
    """ZooError where nothing answers.

    Ray itself tries for more than a minute, and ends the process then.
    """
    if "://" in address:
        raise ZooError(f"{ADDRESS}={address}: a client's address; give HOST:PORT of the cluster and run on one of its hosts")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ZooError(f"{ADDRESS}={address}: give HOST:PORT, as `ray start --head` tells it")
    try:
        socket.create_connection((host, int(port)), REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        told = getattr(error, "strerror", None) or error
        raise ZooError(f"{ADDRESS}={address}: no cluster answers there ({told}); start one: ray start --head") from error
