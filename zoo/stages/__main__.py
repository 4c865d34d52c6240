"""`python -m zoo.stages NAME request.json OUT`: run one stage in this process.

Libraries write a great deal to stdout and stderr: both go to OUT/stage.log, and only progress reaches the terminal. The stage
ends with OUT/result.json, or with OUT/error.json and a non-zero exit code.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path

from zoo.contracts import REQUESTS, StageResult
from zoo.errors import ZooError
from zoo.pipeline.runners.local import die_with_parent
from zoo.pipeline.stage_table import STAGES
from zoo.stages import progress
from zoo.stages.process_memory import PeakWatch
from zoo.store import ERROR, LIVE, LOG, RESULT, write_atomic

RUNNABLE = tuple(name for name, stage in STAGES.items() if stage.function)


def _interrupt_once() -> None:
    """Let the first SIGINT end the stage, and ignore those that follow.

    Ctrl-C reaches a stage from the terminal and again from its runner: the second must not cut off the end. Set here, since a
    stage of a program in the background would start with SIGINT ignored.
    """

    def interrupt(_: int, __: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)


def _redirect(log: Path) -> None:
    """Send file descriptors 1 and 2 to the log; progress keeps the terminal."""
    progress.use_terminal(os.dup(2))
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def run_stage(name: str, request_path: Path, out_dir: Path) -> StageResult:
    """Look the stage up, run it on the request, and write result.json."""
    module, function = STAGES[name].function.split(":")
    request = REQUESTS[name].model_validate_json(request_path.read_text())
    memory = PeakWatch()
    result: StageResult = getattr(importlib.import_module(module), function)(request, out_dir)
    if not result.measurements.peak_bytes:
        measured = result.measurements.model_copy(update={"peak_bytes": memory.peak_bytes()})
        result = result.model_copy(update={"measurements": measured})
    write_atomic(out_dir / RESULT, result.model_dump_json(indent=1))
    (out_dir / LIVE).unlink(missing_ok=True)
    return result


def main(argv: list[str]) -> int:
    if len(argv) != 3 or argv[0] not in RUNNABLE:
        print(f"usage: python -m zoo.stages {{{','.join(RUNNABLE)}}} request.json OUT", file=sys.stderr)
        return 2
    name, request_path, out_dir = argv[0], Path(argv[1]), Path(argv[2])
    die_with_parent()
    _interrupt_once()
    _redirect(out_dir / LOG)
    progress.use_live(out_dir / LIVE)
    (out_dir / ERROR).unlink(missing_ok=True)
    try:
        run_stage(name, request_path, out_dir)
    except BaseException as error:
        traceback.print_exc()
        known = isinstance(error, ZooError)
        message = str(error) if known else f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
        write_atomic(out_dir / ERROR, json.dumps({"message": message, "known": known}))
        return error.exit_code if isinstance(error, ZooError) else 1
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # engines leave threads and atexit hooks behind that can hang or turn success into failure
