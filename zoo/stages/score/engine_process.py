"""What runs inside an engine process: one engine that scores the chunks it is told to.

It is vLLM's or transformers'. It is run as `python -m zoo.stages.score.engine_process JOB.json FD`. Commands come as lines of
JSON on the standard input, answers go as lines of JSON to file descriptor FD. The process that started it (by an
`engine_handle`) watches over it, and it dies with that process. It reads token ids and returns logits, nothing else: tables,
labels and probabilities are its parent's business, so that the engine goes on with the next chunk while files are written.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TextIO

from pydantic import ValidationError

from zoo.contracts import first_fault
from zoo.errors import ZooError
from zoo.models.shapes import SCHEME_KEY
from zoo.pipeline.runners.local import PARENT
from zoo.targets import process_age_seconds

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """End at once when the parent ends, whatever ended it.

    An engine alone would hold its GPU for ever.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ[PARENT]):  # it ended before the line above
        os._exit(1)


def send(channel: TextIO, **message: Any) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()


def serve(job: dict[str, Any], commands: TextIO, channel: TextIO) -> None:
    """Load the engine, say so, then answer commands until there are no more."""
    engine = load(job)
    import numpy as np

    engine.score([np.array(job["label_ids"], dtype=np.int32)])
    send(channel, kind="ready", memory=engine.memory(), seconds=process_age_seconds())
    tokens = spans = None
    for line in commands:
        command = json.loads(line)
        if tokens is None or spans is None:
            from zoo.stages.score.token_file import open_tokens

            tokens, spans = open_tokens(Path(job["tokens"])), np.load(job["spans"], mmap_mode="r")
        rows = [tokens[start:stop] for start, stop in spans[command["first"] : command["last"]]]
        answer = engine.score(rows, lambda rows, tokens: send(channel, kind="step", rows=rows, tokens=tokens))
        send(
            channel,
            kind="chunk",
            chunk=command["chunk"],
            logits=answer.logits.tolist(),
            cached=answer.cached.tolist(),
            refused=answer.refused,
            seconds=answer.seconds,
            memory=engine.memory(),
        )


def load(job: dict[str, Any]) -> Any:
    """The engine that the job names, loaded: vLLM's where it names none."""
    if job["arguments"].get("engine") == "transformers":
        from zoo.stages.score.in_transformers import Engine as Encoder

        return Encoder(job["arguments"])
    from zoo.stages.score.vllm.engine import Engine, prepare_environment

    prepare_environment(eager=job["arguments"]["enforce_eager"])
    engine = Engine(job["arguments"], job["label_ids"])
    check_kernels(engine.kernels(), job["arguments"])
    return engine


def check_kernels(kernels: dict[str, int], arguments: dict[str, Any]) -> None:
    """Tell the log which kernels multiply.

    ZooError where they are not those of the checkpoint's form.
    """
    from zoo.models.shapes import read_config
    from zoo.stages.score.vllm.engine import CPU_WORKER
    from zoo.stages.score.vllm.kernels import refusal

    print("linear layers by", ", ".join(f"{name} ({count})" for name, count in kernels.items()), flush=True)
    scheme = read_config(Path(arguments["model"])).get(SCHEME_KEY)
    if why := refusal(scheme, kernels, on_gpu=arguments["worker_cls"] != CPU_WORKER):
        raise ZooError(why)


def told(error: Exception) -> str:
    """An engine's error in one line.

    vLLM refuses settings by errors of pydantic, whose first line only counts them.
    """
    if isinstance(error, ValidationError):
        return f"{type(error).__name__}: {first_fault(error)}"
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


def main(argv: list[str], serve: Callable[[dict[str, Any], TextIO, TextIO], None] = serve) -> int:
    """Serve until there is nothing more to do.

    An error is told by a message of one line, and by its traceback in the log.
    """
    die_with_parent()
    job = json.loads(Path(argv[0]).read_text())
    with os.fdopen(int(argv[1]), "w", encoding="utf-8") as channel:
        try:
            serve(job, sys.stdin, channel)
        except Exception as error:
            traceback.print_exc()
            send(channel, kind="error", message=told(error))
            return 1
    return 0


def leave(code: int) -> NoReturn:
    """End this process at once: engines leave threads and atexit hooks behind that can hang."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
