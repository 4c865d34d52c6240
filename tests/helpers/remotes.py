"""Artifacts of several files for remotes, and processes that push and pull them and are killed."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.helpers.manifests import finished, input_of, partial_folder
from tests.helpers.requests import merge_request
from zoo.remote import RemoteFiles, parse_address, pull_artifact, push_artifact, push_earlier, read_index, read_kept
from zoo.store import Artifact, list_artifacts, locked, verify_artifacts


def quiet(description: str, size: int) -> Any:
    """A bar that shows nothing."""
    return nullcontext(SimpleNamespace(update=lambda more: None))


def made(store: Path, *, seed: int = 0, size: int = 100_000, fingerprint: str = "a") -> Artifact:
    """An artifact of files of several sizes, one of them empty and two alike."""
    request, rng = merge_request(store, fingerprint=fingerprint), random.Random(seed)
    folder = partial_folder(store, request)
    (folder / "model").mkdir(parents=True)
    for number in range(3):
        (folder / "model" / f"part-{number}.safetensors").write_bytes(rng.randbytes(size * (number + 1)))
    for name in ("one.txt", "other.txt"):
        (folder / name).write_text(f"alike {seed}")
    (folder / "empty").touch()
    return finished(store, request)


def made_of(artifact: Artifact, seed: int = 1) -> Artifact:
    """A small artifact that was made from another."""
    store = artifact.path.parent
    request = merge_request(store).model_copy(update={"adapter": input_of(artifact)})
    (partial_folder(store, request) / "small.txt").write_text(str(seed))
    return finished(store, request)


def push(artifact: Artifact, address: str, bar: Any = quiet) -> bool:
    with RemoteFiles(parse_address(address)) as files:
        push_earlier(artifact, files, read_index(files))
        return push_artifact(artifact, files, bar)


def pull(name: str, address: str, store: Path, bar: Any = quiet) -> Artifact | None:
    """Fetch an artifact; None where none is to be seen."""
    with RemoteFiles(parse_address(address)) as files, locked(store, name):
        kept = read_kept(files, name)
        return pull_artifact(kept, files, store, bar) if kept else None


def same_files(one: Artifact, other: Artifact) -> bool:
    """Whether two artifacts are whole and of the same content."""
    assert not list(verify_artifacts([one.path, other.path]))
    return one.manifest == other.manifest


def visible(store: Path) -> list[str]:
    """Artifacts that commands of a home see; each of them is whole."""
    found = list_artifacts(store)
    assert not list(verify_artifacts([artifact.path for artifact in found]))
    return [artifact.path.name for artifact in found]


def forked(work: Callable[[], object], *, after: float | None = None) -> int:
    """Run something in a process of its own, killed after so many seconds; its exit code, negative where it was killed.

    The clock is the kernel's and the signal's own action ends the process: no line of Python runs in between.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if after is not None:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.setitimer(signal.ITIMER_REAL, after)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
