"""How often stages call an MLflow server: by rows, by time, and by runner.

    python benchmarks/tracking_calls.py --rows 2000 10000 --battles 64 256

A real `mlflow server` on SQLite counts, by the log of what it was asked. A tiny Llama (random weights) on processors is trained
on so many battles, and scores so many rows, each in a home of its own. Prints JSON: a line a
run, with the calls by what was asked.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.runner_overhead import request_of, write_battles
from tests.helpers.jobs import asked_folds, bring, tiny_entry
from tests.helpers.tiny_models import write_tiny_llama
from zoo.contracts import Entry, Request
from zoo.data.sample import write_sample
from zoo.experiments.run import run_chain
from zoo.pipeline.runners.session import running_on
from zoo.targets import machine_fingerprint

ASKED = re.compile(r'"(GET|POST|PATCH|PUT|DELETE) (\S+) HTTP')


@contextmanager
def server(folder: Path) -> Iterator[Path]:
    """A tracking server that this process logs to; the log of what it is asked."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", (folder / "kept").as_uri()]
    command += ["--uvicorn-opts", "--log-level info"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    uri, log = f"http://127.0.0.1:{port}", folder / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
    try:
        while not _answers(uri):
            if process.poll() is not None:
                sys.exit(log.read_text()[-2000:])
            time.sleep(0.5)
        os.environ["MLFLOW_TRACKING_URI"] = uri
        yield log
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def _answers(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=10):
            return True
    except OSError:
        return False


def counted(log: Path, work: Callable[[], float]) -> dict[str, object]:
    """What the server is asked while something is done: how often, and what most."""
    place = log.stat().st_size
    seconds = work()
    with log.open() as file:
        file.seek(place)
        asked = ASKED.findall(file.read())
    kinds = Counter(re.sub(r"[0-9a-f]{32}.*|\?.*", "", path.rpartition("/mlflow/")[2]) for _, path in asked)
    kinds.pop("/health", None)
    return {"calls": kinds.total(), "seconds": round(seconds, 1), "by": dict(kinds.most_common())}


def timed(requests: Sequence[Request], entry: Entry, store: Path) -> Callable[[], float]:
    def work() -> float:
        begun = time.monotonic()
        run_chain(list(requests), entry, store, say=lambda text: print(text, file=sys.stderr, flush=True))
        return time.monotonic() - begun

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 10_000], help="rows that are scored")
    parser.add_argument("--battles", type=int, nargs="*", default=[64, 256], help="battles that a training learns from")
    parser.add_argument("--runners", nargs="+", default=["local", "ray"], help="of the scoring")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiny_llama(folder / "model")
        write_sample(folder / "sample.csv", 600, 7)
        print(json.dumps({"machine": machine_fingerprint()}), flush=True)
        with server(folder) as log:
            for battles in args.battles:
                os.environ["ZOO_HOME"] = str(folder / f"train-{battles}")
                store, entry = folder / f"train-{battles}" / "store", tiny_entry("tiny", max_rows=battles)
                asked = asked_folds(entry, folder / "sample.csv", store, folder / "model")[:2]
                bring(asked, store)
                found = counted(log, timed([asked[1].request], entry, store))
                print(json.dumps({"stage": "train", "battles": battles, **found}), flush=True)
            for runner in args.runners:
                for rows in args.rows:
                    home = folder / f"{runner}-{rows}"
                    os.environ["ZOO_HOME"] = str(home)
                    write_battles(folder / "battles.csv", rows)
                    request = request_of(folder, 512)
                    own = request.battles.model_copy(update={"fingerprint": f"{runner}-{rows}"})  # else it is logged already
                    request = request.model_copy(update={"battles": own})
                    with running_on(runner, home / "store", lambda text: print(text, file=sys.stderr)):
                        found = counted(log, timed([request], tiny_entry("tiny"), home / "store"))
                    print(json.dumps({"stage": "score", "runner": runner, "rows": rows, **found}), flush=True)


if __name__ == "__main__":
    main()
