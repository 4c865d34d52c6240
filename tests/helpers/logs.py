"""Logs of conversations in LMSYS-Chat-1M's shape, and what real data tests may look at."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.paths import ROOT

REAL = Path(os.environ.get("ZOO_TEST_DATA", ROOT.parent / "shared" / "data"))
needs_real_data = pytest.mark.skipif(not (REAL / "llm_judged.csv.gz").exists(), reason="no real battles beside the repository")


def conversation(number: int, model: str, turns: Sequence[tuple[str, str]], **fields: Any) -> dict[str, Any]:
    """One row: `turns` are questions with their answers."""
    said = [(role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
    messages = [{"role": role, "content": text} for role, text in said]
    return {"conversation_id": f"p{number}-{model}", "model": model, "conversation": messages, "licence": "MIT", **fields}


def log_of(prompts: int, models: Iterable[str]) -> list[dict[str, Any]]:
    """Every model's answer to so many prompts that have little in common."""
    return [
        conversation(n, model, [(question(n), f"{model} answers {n}: " + word(7 * n + len(model)) * 3)])
        for n in range(prompts)
        for model in models
    ]


def question(number: int) -> str:
    return " ".join(word(11 * number + k) for k in range(6)) + "?"


def word(number: int) -> str:
    """Words that share few runs of five characters."""
    letters, found = "bcdfghklmnprstvz", ""
    value = (number + 1) * 2654435761 % 2**32
    for vowel in "aeioua":
        value, place = divmod(value, 16)
        found += letters[place] + vowel
    return found


def write_log(path: Path, rows: Iterable[dict[str, Any] | str]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path
