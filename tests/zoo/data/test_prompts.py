"""Prompts of files: the same ones from every form they come in, copies and what cannot be used counted by reason."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.data.prompts import (
    COPY,
    MOST_TURNS,
    NO_OBJECT,
    NO_PROMPT,
    NO_TEXT,
    TOO_LONG,
    TOO_MANY,
    Prompt,
    choose,
    prompt_id,
    read_prompts,
)
from zoo.errors import ZooError

TURNS = [("What is hot?",), ("Who are you?", "And who am I?"), ('He said ["no"].',)]


def lines(path: Path, rows: list[Any]) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def talk(turns: tuple[str, ...]) -> list[dict[str, str]]:
    said = [[{"role": "user", "content": turn}, {"role": "assistant", "content": "Well."}] for turn in turns]
    return [message for pair in said for message in pair]


def test_every_form_of_file_has_the_same_prompts(tmp_path: Path) -> None:
    texts = {"response_a": '["x"]', "response_b": '["y"]'}
    frame = pd.DataFrame([{"id": i, "prompt": json.dumps(turns), **texts} for i, turns in enumerate(TURNS)])
    frame.to_csv(tmp_path / "battles.csv", index=False)
    frame.to_parquet(tmp_path / "battles.parquet")
    files = [
        tmp_path / "battles.csv",
        tmp_path / "battles.parquet",
        lines(tmp_path / "prompts.jsonl", [{"prompt": list(turns)} for turns in TURNS]),
        lines(tmp_path / "log.jsonl.gz", [{"conversation": talk(turns), "model": "m"} for turns in TURNS]),
        lines(tmp_path / "open.jsonl", [{"messages": talk(turns)[:-1]} for turns in TURNS]),
        lines(tmp_path / "arena.jsonl", [{"conversation_a": talk(turns), "conversation_b": talk(turns)} for turns in TURNS]),
    ]
    read = [read_prompts(file) for file in files]
    assert [[prompt.turns for prompt in one.prompts] for one in read] == [TURNS] * len(files)
    assert len({one.digest for one in read}) == 1


def test_plain_texts_are_one_turn_each(tmp_path: Path) -> None:
    found = read_prompts(lines(tmp_path / "p.jsonl", [{"prompt": "hello"}, {"prompt": "[INST] hello"}]))
    assert [prompt.turns for prompt in found.prompts] == [("hello",), ("[INST] hello",)]


def test_what_cannot_be_used_is_counted_by_reason(tmp_path: Path) -> None:
    rows = [
        *({"prompt": [text], "source": "here", "licence": "CC0"} for text in ("one", "two", "one")),
        *("{not JSON", '["a list"]'),
        {"prompt": ["", "x"]},
        {"prompt": []},
        {"answer": "x"},
        {"conversation": [3]},
        {"prompt": ["x" * 200_001]},
        {"prompt": ["x"] * (MOST_TURNS + 1)},
    ]
    found = read_prompts(lines(tmp_path / "p.jsonl", rows))
    assert [(p.turns, p.source, p.licence) for p in found.prompts] == [(("one",), "here", "CC0"), (("two",), "here", "CC0")]
    assert found.left_out == {COPY: 1, NO_OBJECT: 2, NO_TEXT: 2, NO_PROMPT: 2, TOO_LONG: 1, TOO_MANY: 1}
    assert found.rows == len(rows) == len(found.prompts) + sum(found.left_out.values())
    assert f"11 rows, 2 prompts; left out: 1 {COPY} (first: row 3)" in found.told


@pytest.mark.parametrize(
    ("rows", "why"), [([], "empty"), ([{"x": 1}], "1 x no prompt"), ([{"prompt": ""}], "1 x an empty prompt")]
)
def test_a_file_without_any_prompt_is_refused(rows: list[Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=why):
        read_prompts(lines(tmp_path / "p.jsonl", rows))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 5))
def test_a_larger_sample_holds_the_smaller_in_the_file_s_order(most: int, fewer: int, seed: int) -> None:
    prompts = [Prompt(prompt_id([str(i)]), (str(i),)) for i in range(40)]
    small, large = choose(prompts, min(fewer, most), seed), choose(prompts, max(fewer, most), seed)
    assert len(small) == min(fewer, most, 40) and set(small) <= set(large)
    assert [int(p.turns[0]) for p in large] == sorted(int(p.turns[0]) for p in large)


def test_samples_of_other_seeds_differ() -> None:
    prompts = [Prompt(prompt_id([str(i)]), (str(i),)) for i in range(40)]
    assert choose(prompts, 20, 0) != choose(prompts, 20, 1) and choose(prompts, None, 3) == prompts
