"""Run one stage in its own process, resume a killed one, or take it from the store.

A process of its own frees all GPU memory, survives a crash of the engine, and may use an interpreter of its own. It gets an
allow-listed environment, so that no secret of the caller reaches a log, and it dies with its runner.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import IO

from zoo.contracts import FileRecord, Manifest, Request, Say, StageResult, TrainRequest, inputs_of
from zoo.errors import OutOfMemory, ZooError
from zoo.pipeline.fold_rules import check_fold_rules
from zoo.pipeline.provenance import git_commit, package_versions
from zoo.pipeline.runners.environment import RUNNER, stage_environment
from zoo.pipeline.starts import CHECKPOINT, check_start, stopped_earlier
from zoo.settings import interpreter
from zoo.store import (
    ERROR,
    LOG,
    MANIFEST,
    PARTIAL,
    REQUEST,
    RESULT,
    SMALL_BYTES,
    Artifact,
    artifact_name,
    check_files,
    commit,
    differing_field,
    find,
    fingerprint,
    identity,
    locked,
    read_manifest,
    write_atomic,
)

GRACE_SECONDS = 10.0  # for a stage to end by itself after Ctrl-C
POLL_SECONDS = 0.2  # between two looks at whether a stage that may be stopped is to be
Watch = Callable[[Path], AbstractContextManager[object]]  # shows the stage that runs in a folder, while the block runs


class Stopped(Exception):
    """A stage was ended because its caller wants it no more.

    What it has done so far is kept as that of a killed one.
    """


@dataclass(frozen=True)
class Watched:
    """How stages run for a caller that watches them.

    `environment`: added to theirs; `keep_open`: descriptors that they hold to their end; `stopped`: ends them once it is set.
    With that they hear of Ctrl-C from the caller alone, who knows then that they did not fail.
    """

    watch: Watch
    environment: Mapping[str, str] = field(default_factory=dict)
    keep_open: tuple[int, ...] = ()
    stopped: Event | None = None


_watched: ContextVar[Watched | None] = ContextVar("watched", default=None)


@contextmanager
def watched(
    watch: Watch,
    *,
    environment: Mapping[str, str] | None = None,
    keep_open: tuple[int, ...] = (),
    stopped: Event | None = None,
) -> Iterator[None]:
    """Have the stages that run within the block shown by `watch` and not on the terminal.

    For callers that have none, as a notebook, or that run several side by side: what a stage would write there goes to its log.
    The rest as in `Watched`; a stage that is ended by `stopped` raises Stopped.
    """
    token = _watched.set(Watched(watch, environment or {}, keep_open, stopped))
    try:
        yield
    finally:
        _watched.reset(token)


def run_stage(request: Request, store: Path, *, say: Say = lambda _: None) -> Artifact:
    """The artifact of a request.

    It is taken from the store, or the stage is run to its end. Two calls for the same request do not both run: the second waits
    and takes the first one's result. A folder left by a killed run is handed to the stage again, which goes on from what is
    there. Raises ZooError with the stage's own message.
    """
    name = artifact_name(request)
    with locked(store, name, on_wait=lambda: say(f"{name}: another process is making it; waiting")) as lock:
        found = find(store, request)
        if found:
            return found
        _check_inputs(request)
        check_fold_rules(request)
        if isinstance(request, TrainRequest):
            check_start(request)
        partial = store / PARTIAL / name
        fresh = not partial.exists()
        _prepare(partial, request)
        if fresh and isinstance(request, TrainRequest) and (stopped := stopped_earlier(request, store)):
            say(f"{name}: goes on from {stopped.path.name}, which train.max_hours stopped")
            shutil.copytree(stopped.path / CHECKPOINT, partial / CHECKPOINT)
        _launch(request, partial, lock)
        result = StageResult.model_validate_json((partial / RESULT).read_text())
        return commit(partial, store / name, lambda files: _manifest(request, result, files))


def _check_inputs(request: Request) -> None:
    """ZooError naming the file, where an artifact that the stage reads is not as it was made.

    Sizes of all its files, SHA-256 of the small ones: weights take minutes to hash, which `zoo verify` does.
    """
    for given in inputs_of(request):
        if given.place is not None and (given.place / MANIFEST).exists():
            check_files(Artifact(given.place, read_manifest(given.place)), hash_below=SMALL_BYTES)


def _prepare(partial: Path, request: Request) -> None:
    """Make the partial folder, or check that the one there is of this very request."""
    if (partial / REQUEST).exists():
        try:
            place = differing_field(identity(request), identity(json.loads((partial / REQUEST).read_text())))
        except (OSError, ValueError, AttributeError):
            place = REQUEST
        if place:
            raise ZooError(f"{partial}: `{place}` differs from the request; remove the folder and run again")
    elif partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    write_atomic(partial / REQUEST, request.model_dump_json(indent=1))


def start_stage(
    request: Request,
    out_dir: Path,
    *,
    keep_open: tuple[int, ...] = (),
    environment: Mapping[str, str] | None = None,
    terminal: IO[bytes] | None = None,
    own_group: bool = False,
) -> subprocess.Popen[bytes]:
    """Launch a stage's process on a folder that holds its request.json; the caller waits for it.

    `environment` is added to the allow-listed one; `terminal` takes its output instead of this process's. `own_group`
    puts it into a process group (and session) of its own, so that the caller can end it with everything it has started.
    """
    command = [str(interpreter(request.stage)), "-m", "zoo.stages", request.stage, str(out_dir / REQUEST), str(out_dir)]
    return subprocess.Popen(
        command,
        env={**stage_environment(request.stage), RUNNER: str(os.getpid()), **(environment or {})},
        pass_fds=keep_open,
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        start_new_session=own_group,
    )


def _launch(request: Request, partial: Path, lock: int) -> None:
    with ExitStack() as stack:
        caller, log = _watched.get(), None
        if caller is None:
            _wait(request, partial, start_stage(request, partial, keep_open=(lock,)))
            return
        log = stack.enter_context((partial / LOG).open("ab"))
        stack.enter_context(caller.watch(partial))
        keep_open = (lock, *caller.keep_open)
        own = caller.stopped is not None
        process = start_stage(
            request, partial, keep_open=keep_open, environment=caller.environment, terminal=log, own_group=own
        )
        _wait(request, partial, process, caller.stopped)


def _wait(request: Request, partial: Path, process: subprocess.Popen[bytes], stopped: Event | None = None) -> None:
    """Wait for a stage's process, and pass on what this one is told.

    ZooError where it fails, Stopped where it is stopped.
    """

    def forward(signum: int, _: object) -> None:
        process.send_signal(signum)

    try:
        previous = signal.signal(signal.SIGTERM, forward)
    except ValueError:  # not the main thread: the caller handles signals
        previous = None
    try:
        code = process.wait() if stopped is None else _wait_unless(process, stopped)
    except KeyboardInterrupt:
        interrupt(process)
        raise
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
        if process.poll() is None:
            process.kill()
            process.wait()
    if code != 0:
        raise stage_error(request, partial, code)


def _wait_unless(process: subprocess.Popen[bytes], stopped: Event) -> int:
    """The exit code of a process that ends by itself; Stopped where it had to be ended."""
    while process.poll() is None:
        if stopped.wait(POLL_SECONDS) and process.poll() is None:
            interrupt(process)
            raise Stopped
    return process.returncode


def interrupt(process: subprocess.Popen[bytes], *, grace_seconds: float = GRACE_SECONDS) -> None:
    """End a process as Ctrl-C does, by force where that takes longer than the grace twice over.

    A terminal has told it already; `kill -INT` on this process alone has not. A long native call keeps Python from noticing
    SIGINT, so SIGTERM follows, which ends a stage at once, then SIGKILL. A second Ctrl-C passes over the waiting.
    """
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
            try:
                process.wait(timeout=grace_seconds)
                return
            except subprocess.TimeoutExpired:
                continue
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def stage_error(request: Request, partial: Path, code: int) -> ZooError:
    """What a failed stage said, as one line with the log's place.

    A stage's own ZooError comes through as it is.
    """
    again = "the same command goes on from where it stopped"
    where = f"{request.stage} of {request.entry}"
    if code < 0:
        kind = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
        if kind == "SIGKILL":
            return OutOfMemory(f"{where} was ended by {kind} (often out of memory); log: {partial / LOG}; {again}")
        return ZooError(f"{where} was ended by {kind}; log: {partial / LOG}; {again}", exit_code=1)
    try:
        error = json.loads((partial / ERROR).read_text())
        message, known = str(error["message"]), error["known"] is True
    except (OSError, ValueError, KeyError, TypeError):
        message, known = f"exit code {code} without a message", False
    if known:
        return ZooError(message, exit_code=code)
    told = f"{where} failed: {message}; log: {partial / LOG}; {again}"
    return OutOfMemory(told) if OutOfMemory.is_told_by(message) else ZooError(told, exit_code=1)


def _manifest(request: Request, result: StageResult, files: dict[str, FileRecord]) -> Manifest:
    from zoo.targets import machine_fingerprint

    return Manifest(
        stage=request.stage,
        fingerprint=fingerprint(request),
        request=request,
        files=files,
        metrics=result.metrics,
        measurements=result.measurements,
        hardware={"machine": machine_fingerprint(), "platform": platform.platform()},
        packages=package_versions(),
        git_commit=git_commit(),
        argv=tuple(Path(a).name if os.sep in a else a for a in sys.argv),
        created_at=datetime.datetime.now(datetime.UTC),
    )
