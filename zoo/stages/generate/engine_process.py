"""What runs inside an engine process: one vLLM engine that holds conversations.

It is run as `python -m zoo.stages.generate.engine_process JOB.json FD`, under the same supervision as the engine that scores.
A conversation comes as a line of JSON: the token ids of what is asked, turn by turn, and of answers known already. Each answer
goes back when it is finished, and the next turn is asked at once, while the cache holds what was said before. The engine is
never drained between conversations: a finished one makes room for the next.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from zoo.models.chat import context_ids
from zoo.stages.generate.engine import within_share
from zoo.stages.score.engine_process import leave, main, send
from zoo.targets import SHARE, process_age_seconds

STEP_SECONDS = 1.0  # between two signs of life
STOPS = {"stop": "stop", "length": "length", "repetition": "loop"}  # vLLM's finish reasons, and ours
# A loop: the same 1 to 20 tokens ten times in a row. vLLM looks for it at every token, so that longer patterns cost speed.
LOOP = {"max_pattern_size": 20, "min_pattern_size": 1, "min_count": 10}


@dataclass
class Talk:
    """A conversation in the engine."""

    row: int
    asked: list[list[int]]
    answered: list[list[int]]
    seeds: list[int]


class Talker:
    """A loaded model and the conversations that it has with users."""

    def __init__(self, job: dict[str, Any]) -> None:
        from vllm import LLM

        from zoo.stages.score.vllm.engine import import_model_class, permit_amx

        permit_amx()
        arguments = dict(job["arguments"])
        import_model_class(arguments)
        if SHARE in os.environ and "kv_cache_memory_bytes" not in arguments:
            arguments = within_share(arguments, int(os.environ[SHARE]))
        self._llm = LLM(**arguments)
        self._literals = job["literals"]
        self._stops, self._sampling = set(job["stops"]), job["sampling"]
        self._talks: dict[str, Talk] = {}

    @property
    def busy(self) -> bool:
        return bool(self._talks)

    def warm_up(self, token: int) -> None:
        """Have one token sampled: the engine is ready only then."""
        self._request("warm-up", [token], 0, 1)
        while self._llm.llm_engine.has_unfinished_requests():
            self._llm.llm_engine.step()

    def begin(self, talk: Talk) -> dict[str, Any] | None:
        """Ask the next turn of a conversation; a message in place of it where that cannot be."""
        ids, most = context_ids(self._literals, talk.asked, talk.answered), self._sampling["max_tokens"]
        if len(ids) + most > self._sampling["context"]:
            return {"kind": "end", "row": talk.row, "why": f"too long: turn {len(talk.answered) + 1}"}
        try:
            self._request(str(talk.row), ids, talk.seeds[len(talk.answered)], most)
        except ValueError as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            return {"kind": "end", "row": talk.row, "why": f"refused: {reason}"}
        self._talks[str(talk.row)] = talk
        return None

    def step(self) -> Iterator[dict[str, Any]]:
        """Compute one batch; messages of what it finished."""
        for output in self._llm.llm_engine.step():
            if output.finished:
                yield from self._take(output)

    def _request(self, name: str, ids: list[int], seed: int, most: int) -> None:
        from vllm import SamplingParams
        from vllm.exceptions import VLLMValidationError
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RepetitionDetectionParams, RequestOutputKind

        parameters = SamplingParams(
            temperature=self._sampling["temperature"],
            top_p=self._sampling["top_p"],
            max_tokens=most,
            seed=seed,
            stop_token_ids=sorted(self._stops),
            repetition_detection=RepetitionDetectionParams(**LOOP),
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        try:
            self._llm.llm_engine.add_request(name, tokens_input(ids), parameters)
        except VLLMValidationError as error:  # no ValueError in some versions
            raise ValueError(str(error)) from error

    def _take(self, output: Any) -> Iterator[dict[str, Any]]:
        talk = self._talks.pop(output.request_id, None)
        if talk is None:
            return
        found = output.outputs[0]
        ids = list(found.token_ids)
        if ids and ids[-1] in self._stops:
            ids.pop()
        stop = STOPS.get(found.finish_reason, str(found.finish_reason))
        asked, cached = len(output.prompt_token_ids), output.num_cached_tokens or 0
        yield {"kind": "answer", "row": talk.row, "ids": ids, "stop": stop, "prompt_tokens": asked, "cached": cached}
        talk.answered.append(ids)
        over = len(talk.answered) == len(talk.asked) or stop not in ("stop", "length") or not ids
        refused = None if over else self.begin(talk)
        if over or refused:
            yield refused or {"kind": "end", "row": talk.row, "why": ""}

    def memory(self) -> dict[str, int]:
        """Largest bytes on the GPU; zeros on processors."""
        from zoo.stages.score.vllm.engine import gpu_memory

        each = self._llm.collective_rpc(gpu_memory)
        return {key: max(one[key] for one in each) for key in each[0]}


def serve(job: dict[str, Any], commands: TextIO, channel: TextIO) -> None:
    """Load the engine, say so, then hold conversations until there are no more."""
    from zoo.stages.score.vllm.engine import prepare_environment

    prepare_environment(eager=job["arguments"]["enforce_eager"])
    talker = Talker(job)
    talker.warm_up(job["stops"][0] if job["stops"] else 0)
    send(channel, kind="ready", memory=talker.memory(), seconds=process_age_seconds())
    inbox: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(commands, inbox), daemon=True).start()
    told = time.monotonic()
    while (lines := _waiting(inbox, block=not talker.busy)) is not None:
        for line in lines:
            if refused := talker.begin(Talk(**json.loads(line))):
                send(channel, **refused)
        if talker.busy:
            for message in talker.step():
                send(channel, **message)
        if not talker.busy or time.monotonic() - told > STEP_SECONDS:
            told = time.monotonic()
            send(channel, kind="step", memory=talker.memory())


def _receive(commands: Iterable[str], inbox: queue.SimpleQueue[str | None]) -> None:
    for line in commands:
        inbox.put(line)
    inbox.put(None)


def _waiting(inbox: queue.SimpleQueue[str | None], *, block: bool) -> list[str] | None:
    """The commands that have come; with `block` at least one. None where there will be no more."""
    found: list[str] = []
    while True:
        try:
            line = inbox.get(block=block and not found)
        except queue.Empty:
            return found
        if line is None:
            return None
        found.append(line)


if __name__ == "__main__":
    leave(main(sys.argv[1:], serve))
