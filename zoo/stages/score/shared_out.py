"""A run that an array of tasks scores: submitted once, then watched.

Whoever watches may come and go.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from zoo.errors import ZooError
from zoo.pipeline.runners.slurm import array_script, at_work, end, is_over, log_end, submitted, task_environment
from zoo.settings import load_settings
from zoo.stages import progress
from zoo.stages.score.chunks import PLAN, Chunk
from zoo.stages.score.engines import EngineError
from zoo.stages.score.share import WORK, keep_share
from zoo.stages.score.tally import TALLY, Tally
from zoo.stages.score.token_file import Encoding
from zoo.store.leases import LAPSE_SECONDS

ASK_SECONDS, LOOK_SECONDS = 10.0, 1.0


def script_of(name: str, out_dir: Path, lapse_seconds: float = LAPSE_SECONDS) -> str:
    """The array's script of a run in `out_dir`."""
    command = (sys.executable, "-m", "zoo.stages.score.share", str(out_dir), f"{lapse_seconds:g}")
    return array_script(name, command, out_dir / WORK, load_settings().slurm, task_environment("score"))


def score_by_array(
    chunks: Sequence[Chunk], encodings: Sequence[Encoding], ids: Sequence[str], tally: Tally, out_dir: Path
) -> None:
    """Have all chunks scored by an array of tasks, the one that runs already where there is one.

    EngineError, with the end of a log, where the array is over and chunks are missing.
    """
    folder, begun = out_dir / WORK, time.monotonic()
    keep_share(folder, encodings, ids)
    if job := at_work(folder):
        progress.note(f"Slurm job {job} is at work on it")
    else:
        job = submitted(script_of(out_dir.name, out_dir), folder)
        progress.note(f"Slurm job {job} is submitted; Ctrl-C leaves it at work, and the same command comes back to it")
    left = [chunk for chunk in chunks if not chunk.done(out_dir)]
    next_ask, say_once = time.monotonic() + ASK_SECONDS, functools.cache(progress.note)
    with progress.TokenBar(sum(chunk.tokens for chunk in left), sum(len(chunk.spans) for chunk in left)) as bar:
        while left:
            time.sleep(LOOK_SECONDS)
            for chunk in [chunk for chunk in left if chunk.done(out_dir)]:
                bar.update(len(chunk.spans), chunk.tokens)
                left.remove(chunk)
            if left and time.monotonic() >= next_ask:
                next_ask = time.monotonic() + ASK_SECONDS
                if is_over(job, say_once) and (missing := [chunk for chunk in left if not chunk.done(out_dir)]):
                    raise EngineError(f"Slurm job {job} is over, {len(missing):,} chunks are missing; {log_end(folder)}")
    end(job)
    gather(tally, folder)
    tally.run_seconds += time.monotonic() - begun
    tally.save(out_dir)


def gather(tally: Tally, folder: Path) -> None:
    """Add what each task has told of itself: sums of what it did, the largest of what it took."""
    for path in sorted(folder.glob(f"*/{TALLY}")):
        one = Tally(**json.loads(path.read_text()))
        for field in fields(Tally):
            mine, theirs = getattr(tally, field.name), getattr(one, field.name)
            added = field.name in ("tokens", "cached_tokens", "restarts", "replicas")
            setattr(tally, field.name, mine + theirs if added else max(mine, theirs))


def check_alone(out_dir: Path) -> None:
    """ZooError where a Slurm array is at work on the run.

    Two who share it would not agree whose machine it is of.
    """
    if job := at_work(out_dir / WORK):
        raise ZooError(
            f"Slurm job {job} is at work on these rows: come back to it with --runner slurm, or end it first: scancel {job}"
        )


def machine_of(out_dir: Path) -> str:
    """The machine that a run's chunks are of, by its first task; empty where none has begun."""
    try:
        return str(json.loads((out_dir / PLAN).read_text())["machine"])
    except (OSError, ValueError, KeyError):
        return ""
