"""A stand-in for the process of an engine: it computes something simple, and dies, hangs or waits as its environment says."""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np


def is_to(deed):  # once, where a folder is given to remember it in
    folder = os.environ.get(deed)
    if folder and folder != "always":
        try:
            Path(folder).mkdir()
        except FileExistsError:
            return False
    return bool(folder)


channel, job = os.fdopen(int(sys.argv[2]), "w"), json.loads(Path(sys.argv[1]).read_text())


def say(**message):
    channel.write(json.dumps(message) + "\n")
    channel.flush()


memory = {"loading_bytes": 0, "allocated_bytes": 0, "card_bytes": 0}
asked = os.environ.get("WANTS_ARGUMENT", "")  # NAME=VALUE, without which it cannot load; what it says of that
if asked and json.dumps(job["arguments"].get(asked.partition("=")[0])) != asked.partition("=")[2]:
    say(kind="error", message=os.environ["SAYS"])
    os._exit(1)
if is_to("DIE_LOADING"):
    os._exit(9)
crashed = os.environ.get("CRASH", "")  # at the first chunk, and then it cannot load so many times
if Path(crashed).exists() and crashed and len(list(Path(crashed).iterdir())) < int(os.environ["SHORT"]):
    (Path(crashed) / str(os.getpid())).touch()
    say(kind="error", message="ValueError: Free memory on device is less than desired")
    os._exit(1)
say(kind="ready", memory=memory, seconds=1000.0)
for line in sys.stdin:
    command, tokens, spans = json.loads(line), np.fromfile(job["tokens"], "<i4"), np.load(job["spans"])
    if is_to("HANG"):
        say(kind="step", rows=0, tokens=0)
        Path(os.environ["HANG"], str(os.getpid())).touch()
        time.sleep(1000)
    if is_to("CRASH"):
        os.abort()
    if is_to("LEAVE_WORKER"):  # in a session of its own, under another title, as vLLM's are
        import subprocess

        deed = "import os, time; os.setsid(); from setproctitle import setproctitle; setproctitle('VLLM::Worker_TP1' * 99)"
        ready = "; print(os.getpid(), flush=True); time.sleep(1000)"
        worker = subprocess.Popen([sys.executable, "-c", deed + ready], stdout=subprocess.PIPE)
        Path(os.environ["LEAVE_WORKER"], "pid").write_bytes(worker.stdout.readline())
        os.abort()
    while "WAIT_FOR" in os.environ and not Path(os.environ["WAIT_FOR"]).exists():
        time.sleep(0.01)
    time.sleep(float(os.environ.get("PACE", 0)))  # seconds that a chunk takes
    if is_to("LACK_MEMORY"):
        say(kind="error", message="OutOfMemoryError: CUDA out of memory")
        os._exit(1)
    rows = [tokens[a:b] for a, b in spans[command["first"] : command["last"]]]
    if "SHUN_COMPANY" in os.environ and len(rows) > 1:
        os.abort()
    poison = os.environ.get("POISON", "").split(",")
    if poison == ["all"] or any(hashlib.sha256(row.tobytes()).hexdigest() in poison for row in rows):
        os.abort()
    logits = [[int(row.sum()) % 7, len(row) % 5, int(row[-1]) % 3] for row in rows]
    cached = [0] * len(rows)
    say(kind="chunk", chunk=command["chunk"], logits=logits, cached=cached, refused={}, seconds=0.01, memory=memory)
