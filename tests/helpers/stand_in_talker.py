"""A stand-in for the process of an engine that answers: each answer repeats its question, and misbehaves where that says so.

It notes every answer that it makes in the file of ANSWERED. A question that begins with "loop" or "cut", or holds "nothing",
gets an answer of that kind; one that holds "poison" ends the process while POISON is set; with DIE_AFTER it ends after so many
answers, once; with LACK_MEMORY it says so at the first; with ANSWER_SECONDS each answer takes so long.
"""

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tokenizers import Tokenizer

from zoo.models.chat import context_ids

channel, job = os.fdopen(int(sys.argv[2]), "w"), json.loads(Path(sys.argv[1]).read_text())
tokenizer = Tokenizer.from_file(f"{job['arguments']['model']}/tokenizer.json")
memory = {"loading_bytes": 0, "allocated_bytes": 0, "card_bytes": 0}
made = 0


def say(**message):
    channel.write(json.dumps(message) + "\n")
    channel.flush()


say(kind="ready", memory=memory, seconds=1.0)
for line in sys.stdin:
    talk = json.loads(line)
    for turn in range(len(talk["answered"]), len(talk["asked"])):
        read = context_ids(job["literals"], talk["asked"], talk["answered"])
        question = tokenizer.decode(talk["asked"][turn])
        if "poison" in question and os.environ.get("POISON"):
            time.sleep(0.2)  # others are given meanwhile, and are as suspect
            os.abort()
        if made == int(os.environ.get("DIE_AFTER", "-1")) and not Path(os.environ["ANSWERED"] + ".died").exists():
            Path(os.environ["ANSWERED"] + ".died").touch()
            os._exit(9)
        if os.environ.get("LACK_MEMORY"):
            say(kind="error", message="OutOfMemoryError: CUDA out of memory")
            os._exit(1)
        time.sleep(float(os.environ.get("ANSWER_SECONDS", "0")))
        made += 1
        with Path(os.environ["ANSWERED"]).open("a") as log:
            log.write(json.dumps([talk["row"], turn, talk["seeds"][turn], read]) + "\n")
        ids = [] if "nothing" in question else [*talk["asked"][turn], talk["seeds"][turn] % 100 + 40]
        stop = {"loop": "loop", "cut": "length"}.get(question.split()[0], "stop")
        say(kind="answer", row=talk["row"], ids=ids, stop=stop, prompt_tokens=len(read), cached=0)
        talk["answered"].append(ids)
        if not ids or stop == "loop":
            break
    say(kind="end", row=talk["row"], why="")
