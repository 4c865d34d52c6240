"""A real PostgreSQL for tests, which is gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def postgres_tool(name: str) -> str:
    """A program of PostgreSQL: Debian keeps them off the PATH."""
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    if found is None:
        pytest.skip(f"no PostgreSQL: {name} is not installed; `sh scripts/install_services.sh` gets it as root")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def as_postgres(*command: str) -> None:
    """Run a program of PostgreSQL, which refuses to be run by root."""
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    done = subprocess.run([*prefix, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def postgres() -> Iterator[str]:
    """URI of a PostgreSQL database of its own, on a socket in a folder of its own."""
    initdb, pg_ctl = postgres_tool("initdb"), postgres_tool("pg_ctl")
    pytest.importorskip("psycopg", reason="psycopg is not installed; it is in the `dev` extra")
    folder = Path(f"/tmp/zoo-postgres-{os.getpid()}")  # a socket's path has at most 107 characters
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(folder, pwd.getpwnam("postgres").pw_uid, -1)
    port = free_port()
    try:
        as_postgres(initdb, "-D", str(folder / "data"), "-U", "zoo", "--auth=trust", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off"
        as_postgres(pg_ctl, "-D", str(folder / "data"), "-w", "-l", str(folder / "log"), "-o", options, "start")
        yield f"postgresql://zoo@127.0.0.1:{port}/postgres"
        as_postgres(pg_ctl, "-D", str(folder / "data"), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)
