"""Answers as a log in the shape of LMSYS-Chat-1M, with what made them.

A row is of one prompt and seed.

Every row has a status, also the one that nothing was answered to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.contracts import GenerateRequest
from zoo.data.prompts import Prompt
from zoo.stages.generate.answers import Answer
from zoo.store import replacing

ANSWERS = "answers.jsonl"
OK, CUT, EMPTY, LOOP, TOO_LONG, NO_TEMPLATE = "ok", "cut", "empty", "loop", "too long", "no chat template"


@dataclass(frozen=True)
class Row:
    """A prompt, the answers to it under one seed, and whether they are whole."""

    prompt: Prompt
    seed: int
    answers: Sequence[Answer]
    status: str


def status_of(answers: Sequence[Answer]) -> str:
    """Of a conversation that was held to its end.

    `loop` and `empty` where an answer is that; `cut` where one is, at max_tokens, and all others are whole.
    """
    if any(answer.stop == "loop" for answer in answers):
        return LOOP
    if not answers or any(not answer.text.strip() for answer in answers):
        return EMPTY
    other = next((answer.stop for answer in answers if answer.stop not in ("stop", "length")), "")
    if other:
        return f"stopped: {other}"
    return CUT if any(answer.stop == "length" for answer in answers) else OK


def status_slug(status: str) -> str:
    """What a status is counted under: without its particulars, in one word."""
    return status.partition(":")[0].replace(" ", "_")


def settings_digest(request: GenerateRequest) -> str:
    """What beside prompt, name and seed makes an answer that very answer.

    Weights and sampling, as 8 hexadecimal digits.
    """
    settings = {"model": request.model.fingerprint, **request.sampling.model_dump()}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def write_rows(rows: Sequence[Row], request: GenerateRequest, path: Path) -> None:
    """A file of JSON lines, whole or not at all."""
    with replacing(path) as file:
        for row in rows:
            file.write(json.dumps(record(row, request), ensure_ascii=False).encode() + b"\n")


def record(row: Row, request: GenerateRequest) -> dict[str, Any]:
    """One row of the log.

    The conversation ends with the first question that has no answer, where there is one.
    """
    conversation = []
    for turn, asked in enumerate(row.prompt.turns[: len(row.answers) + 1]):
        conversation.append({"role": "user", "content": asked})
        if turn < len(row.answers):
            conversation.append({"role": "assistant", "content": row.answers[turn].text})
    licence = row.prompt.licence or request.prompt_licence or ""
    return {
        "conversation_id": f"{row.prompt.id}-{request.entry}-{row.seed}-{settings_digest(request)}",
        "model": request.entry,
        "conversation": conversation,
        "turn": len(row.prompt.turns),
        "status": row.status,
        "prompt_id": row.prompt.id,
        "seed": row.seed,
        **request.sampling.model_dump(include={"temperature", "top_p", "max_tokens"}),
        "stop_reasons": [answer.stop for answer in row.answers],
        "prompt_tokens": [answer.prompt_tokens for answer in row.answers],
        "answer_tokens": [len(answer.ids) for answer in row.answers],
        "source": row.prompt.source or request.source,
        "licence": f"prompts: {licence}; model: {request.licence}",
        "prompt_licence": licence,
        "model_licence": request.licence,
        "model_fingerprint": request.model.fingerprint,
        "engine": row.answers[-1].engine if row.answers else "",
    }
