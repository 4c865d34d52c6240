"""Files of a model's makers, handled in a child process within limits.

A chat template is a program, and a tokenizer.json holds regular expressions that a native library carries out: either can loop
for ever, take all memory or end the process that loads it. A question about such files is a function of this package by name,
called in a child with limits on processor time, memory and the length of its answer; wall-clock time is the parent's to see to.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import IO, Any

from zoo.errors import ZooError

GIB = 2**30
MEMORY_GIB = 4  # of address space, for what says nothing else: the tokenizers of 256,000 words take below 1.5
ANSWER_BYTES = 4 << 20
START_SECONDS = 60  # of wall-clock time to import what the child needs, and beyond what a question takes
WAITING = 6  # wall-clock seconds for each of processor time: other processes want the same cores
ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
# One thread, and few of malloc's arenas, which take address space and not memory.
QUIET = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "PYTHONSAFEPATH": "1"}


def ask(question: str, arguments: Mapping[str, Any], *, mend: str) -> Any:
    """What a function answers in a child process.

    `question` is `module:name`; its arguments and its answer are JSON.
    ZooError: the function's own, or where the child was ended the file that it was at (`at`), why, and `mend`.
    """
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    with subprocess.Popen(
        [sys.executable, "-m", __name__],
        env=environment | QUIET,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            said, why = _listen(process, json.dumps({"question": question, "arguments": dict(arguments)}).encode())
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    last: dict[str, Any] = said[-1] if said else {}
    if "answer" in last:
        return last["answer"]
    if "error" in last:
        raise ZooError(last["error"])
    raise ZooError(f"{last.get('at', question)}: {why or _ended(process.returncode, last)}; {mend}")


def _listen(process: subprocess.Popen[bytes], message: bytes) -> tuple[list[dict[str, Any]], str]:
    """What the child said, and why it was given up, if it was."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(message)
        process.stdin.close()
    except BrokenPipeError:
        return [], ""
    heard, deadline = b"", time.monotonic() + START_SECONDS
    lines = 0
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(timeout=max(0.0, deadline - time.monotonic())):
                return _parsed(heard), "takes too long"
            part = os.read(process.stdout.fileno(), 1 << 16)
            heard += part
            if len(heard) > ANSWER_BYTES:
                return _parsed(heard), f"makes more than {ANSWER_BYTES >> 20} MiB"
            if not part:
                process.wait()
                return _parsed(heard), ""
            if heard.count(b"\n") > lines:
                lines = heard.count(b"\n")
                deadline = time.monotonic() + START_SECONDS + WAITING * _parsed(heard)[-1].get("seconds", 0)


def _parsed(heard: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in heard.splitlines(keepends=True) if line.endswith(b"\n")]


def _ended(code: int, last: Mapping[str, Any]) -> str:
    """Why a child ended without an answer."""
    if code == -signal.SIGXCPU:
        return f"takes more than {last.get('seconds', '?')} s"
    if code in (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS):
        gib = last.get("gib", MEMORY_GIB)
        return f"ends the program that reads it ({signal.Signals(-code).name}; often more than {gib} GiB of memory)"
    return f"ends the program that reads it ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"


# --- in the child -------------------------------------------------------------------------------------------------------

_parent: IO[bytes] | None = None
_place, _gib = "a file of the model", MEMORY_GIB


def at(path: object, *, seconds: int, gib: int = MEMORY_GIB) -> None:
    """Say which file is next, and what processor time and address space it may take.

    Without a parent that listens, nothing is limited.
    """
    global _place, _gib
    if _parent is None:
        return
    _place, _gib = str(path), gib
    resource.setrlimit(resource.RLIMIT_AS, (gib * GIB, MEMORY_GIB * GIB))
    used = resource.getrusage(resource.RUSAGE_SELF)
    now = int(used.ru_utime + used.ru_stime) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (now + seconds, resource.RLIM_INFINITY))
    _say({"at": str(path), "seconds": seconds, "gib": gib})


def _say(message: Mapping[str, Any]) -> None:
    assert _parent is not None
    _parent.write(json.dumps(message).encode() + b"\n")
    _parent.flush()


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_GIB * GIB, MEMORY_GIB * GIB))


def main() -> None:
    """Answer the question on stdin on what was stdout; whatever libraries print is not heard."""
    global _parent
    _parent = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _limit()
    asked = json.load(sys.stdin)
    try:
        module, _, name = asked["question"].partition(":")
        _say({"answer": getattr(importlib.import_module(module), name)(**asked["arguments"])})
    except ZooError as error:
        _say({"error": str(error)})
    except MemoryError:
        _say({"error": f"{_place}: takes more than {_gib} GiB of memory; copy the model again, or choose another"})


if __name__ == "__main__":
    from zoo.models import bounded  # the module that the functions know, not this one that runs as __main__

    bounded.main()
