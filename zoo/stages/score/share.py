"""A share of a scoring run, on any host that sees its folder.

`python -m zoo.stages.score.share OUT LAPSE NUMBER OF`.
Whoever shares a run out has written its rows and chunks (`keep_share`). A process of this kind claims one chunk after another,
has it scored by engines of its own host, and writes it where every chunk of the run lies. What a holder that fell silent had
claimed, others take over. It ends when every chunk is there.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.contracts import ScoreRequest, Variant
from zoo.errors import ZooError
from zoo.models.prompts import load_codecs
from zoo.pipeline.runners.hosts import HostFacts, facts_here, fault_of, kind_of
from zoo.stages import progress
from zoo.stages.score.chunks import PLAN, Answer, Chunk, plan_chunks, write_chunk
from zoo.stages.score.engines import Crew
from zoo.stages.score.job import engine_job
from zoo.stages.score.placement import places
from zoo.stages.score.tally import Tally
from zoo.stages.score.token_file import Encoding
from zoo.stages.score.work import Listener
from zoo.store import REQUEST, write_atomic
from zoo.store.leases import LEASES, Leases
from zoo.targets import load_target, machine_fingerprint, visible_gpus

WORK, ROWS, TOLD, TOKEN = "work", "share.npz", "share.json", "token"


@dataclass(frozen=True)
class Share:
    """Rows and chunks of a run, as `keep_share` left them."""

    request: ScoreRequest
    ids: list[str]
    chunks: list[Chunk]


def keep_share(folder: Path, encodings: Sequence[Encoding], ids: Sequence[str]) -> None:
    """Write what processes on other hosts have to know of a run's rows.

    Their token file is there already.
    """
    arrays = {f"{name}_{v}": getattr(e, name) for v, e in enumerate(encodings) for name in ("starts", "lengths", "truncated")}
    with (folder / f"{ROWS}.tmp").open("wb") as file:
        np.savez(file, **arrays)
    (folder / f"{ROWS}.tmp").replace(folder / ROWS)
    variants = [encoding.variant.model_dump(mode="json") for encoding in encodings]
    if not (folder / TOKEN).exists():  # tasks of an array that waits may be comparing it just now
        write_atomic(folder / TOKEN, secrets.token_hex(16))
    facts = asdict(facts_here(folder / TOKEN))
    write_atomic(folder / TOLD, json.dumps({"ids": list(ids), "variants": variants, "facts": facts}))


def open_share(out_dir: Path) -> Share:
    """The share as it was kept.

    ZooError naming this host where it differs from the one that kept it, and the mend.
    """
    request = ScoreRequest.model_validate_json((out_dir / REQUEST).read_text())
    told = json.loads((out_dir / WORK / TOLD).read_text())
    if fault := fault_of(facts_here(out_dir / WORK / TOKEN), HostFacts(**told["facts"]), out_dir):
        raise ZooError(fault)
    with np.load(out_dir / WORK / ROWS) as arrays:
        encodings = [
            Encoding(Variant.model_validate(variant), *(arrays[f"{name}_{v}"] for name in ("starts", "lengths", "truncated")))
            for v, variant in enumerate(told["variants"])
        ]
    return Share(request, told["ids"], plan_chunks(encodings, request.spec, listed=request.selection.rows == "listed"))


def settle_machine(out_dir: Path, machine: str) -> str:
    """The machine that the run's chunks are of: that of whoever is first.

    ZooError where this one is of another kind: a table is of one.
    """
    plan = json.loads((out_dir / PLAN).read_text())
    first, own = out_dir / WORK / "machine", out_dir / WORK / f".machine-{socket.gethostname()}-{os.getpid()}"
    write_atomic(own, plan["machine"] or machine)
    try:
        os.link(own, first)
    except FileExistsError:
        pass
    finally:
        own.unlink()
    settled = first.read_text()
    if not plan["machine"]:  # whoever was first may have ended before it wrote this
        write_atomic(out_dir / PLAN, json.dumps({**plan, "machine": settled}))
    if kind_of(settled) != kind_of(machine):
        raise ZooError(
            f"{socket.gethostname()}: {machine}; the run is of {settled}, and one table is of one kind of machine; have "
            f"the array run on hosts of that kind (`[slurm] options`), or remove {out_dir} to begin anew"
        )
    return settled


class Claimed:
    """Which chunks a process may score: asked as each is about to be given to an engine."""

    def __init__(self, leases: Leases, chunks: Sequence[Chunk], out_dir: Path) -> None:
        self._leases, self._chunks, self._out = leases, chunks, out_dir

    def __call__(self, number: int) -> bool | None:
        """True: it is this process's. False: another has it. None: it is done."""
        if self._chunks[number].done(self._out):
            return None
        return self._leases.claim(self._chunks[number].index)


def run_share(out_dir: Path, share: Share, turn: int, holder: str, lapse_seconds: float) -> None:
    """Score what nobody else does, until all chunks are there.

    Each process begins at another place, its `turn`.
    """
    request, own = share.request, out_dir / WORK / holder
    own.mkdir(parents=True, exist_ok=True)
    serving = load_target(request.emulates or request.target)
    where = places(request.serve, serving, visible_gpus())
    settle_machine(out_dir, machine_fingerprint())
    label_ids = next(iter(load_codecs(request.model.path / "model", request.prompt, request.spec.variants).values())).label_ids
    job = engine_job(request, own, label_ids, where, on_gpu=bool(visible_gpus()))
    job = replace(job, shared=out_dir / WORK)
    chunks = [*share.chunks[turn:], *share.chunks[:turn]]
    leases = Leases(out_dir / WORK / LEASES, holder, lapse_seconds)
    threading.Thread(target=_beat, args=(leases,), daemon=True).start()
    tally = Tally(replicas=len(where))
    with Crew(job) as crew:

        def ready(replica: int, load_seconds: float, memory: Any) -> None:
            tally.see_memory(memory)
            tally.load_seconds = max(tally.load_seconds, crew.lead_seconds + load_seconds)

        def take(number: int, answer: Answer, memory: Any) -> None:
            tally.see_memory(memory)
            tally.tokens += chunks[number].tokens
            tally.cached_tokens += int(answer.cached.sum())
            tally.restarts = crew.restarts
            tally.save(own)  # before the file by which others know that it is done
            write_chunk(chunks[number], share.ids, answer, out_dir)

        crew.score(
            chunks,
            Listener(take=take, ready=ready, note=progress.note),
            may=Claimed(leases, chunks, out_dir),
        )


def _beat(leases: Leases) -> None:
    """Renew the leases as long as this process lives: a stopped one falls silent, and a hung engine is its crew's business."""
    while True:
        try:
            leases.renew()
        except FileNotFoundError:  # the run is over, and its folder removed
            return
        except OSError:  # a file server that is away for a moment: who falls silent for that loses all it has
            pass
        time.sleep(1)


def main(argv: list[str]) -> int:
    out_dir, lapse_seconds, turn, tasks = Path(argv[0]), float(argv[1]), int(argv[2]), int(argv[3])
    holder = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}"
    try:
        share = open_share(out_dir)
        run_share(out_dir, share, turn * len(share.chunks) // tasks, holder, lapse_seconds)
    except (ZooError, RuntimeError, OSError) as error:
        if not (out_dir / WORK / TOLD).exists():
            print(f"{out_dir.name}: over, its table is made", flush=True)
            return 0
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code if isinstance(error, ZooError) else 1
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # engines leave threads and atexit hooks behind that can hang
