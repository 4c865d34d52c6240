"""Answers of tiny models under the real engine: killed and resumed, reused, and ended where they go round in circles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.requests import BASE
from tests.helpers.tiny_models import write_chat_template, write_tiny_llama
from tests.helpers.waiting import wait_until
from zoo.contracts import FetchRequest, GenerateRequest, Input, Sampling
from zoo.data.prompts import prompt_id, read_prompts
from zoo.pipeline.runner import run_stage, start_stage
from zoo.stages.generate.answers import read_answers
from zoo.store import PARTIAL, REQUEST, Artifact, artifact_name, folder_fingerprint, write_atomic

pytestmark = [pytest.mark.chain, pytest.mark.timeout(900)]

TURNS = [[f"What is the answer to {i}?", "And because of what?", "Who wins?"][: 1 + i % 3] for i in range(24)]
LONG = ["What?", "the capital of what " * 150]  # of the tiny model's 512 tokens the second turn leaves too few
NUCLEUS = Sampling(temperature=1.0, top_p=0.95, max_tokens=40)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose store has two tiny models, and the prompts beside it."""
    root = tmp_path_factory.mktemp("generate")
    for seed, name in enumerate(("tiny-a", "tiny-b")):
        folder = write_chat_template(write_tiny_llama(root / name, seed=seed))
        given = Input(path=folder, fingerprint=folder_fingerprint(folder))
        run_stage(FetchRequest(entry=name, base=BASE, source="folder", folder=given), root / "store")
    lines = [*({"prompt": turns} for turns in [*TURNS, LONG]), {"prompt": ""}, {"other": 1}, {"prompt": ["x" * 300_000]}]
    (root / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def models(home: Path) -> dict[str, Path]:
    found = {json.loads((p / "manifest.json").read_text())["request"]["entry"]: p for p in (home / "store").glob("fetch-*")}
    return dict(sorted(found.items()))


def request(home: Path, **fields: Any) -> GenerateRequest:
    path, model = home / "prompts.jsonl", models(home)["tiny-a"]
    whole = {"sampling": NUCLEUS, "samples": 2, "chunk_answers": 4, **fields}
    return GenerateRequest(
        entry="tiny-a",
        model=Input(path=model, fingerprint=model.name.partition("-")[2]),
        prompts=Input(path=path, fingerprint=read_prompts(path).digest),
        licence="unknown",
        source="prompts.jsonl",
        prompt_licence="mine",
        **whole,
    )


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def resumed(home: Path) -> Artifact:
    """A run that was killed at its third file, and gone on with."""
    asked = request(home)
    out = home / "store" / PARTIAL / artifact_name(asked)
    out.mkdir(parents=True)
    write_atomic(out / REQUEST, asked.model_dump_json())
    process = start_stage(asked, out)
    wait_until(lambda: len(list(out.glob("chunks/*/*.parquet"))) >= 3, "three files", process)
    process.kill()
    process.wait()
    first = {path.relative_to(out): path.stat().st_mtime_ns for path in out.glob("chunks/*/*.parquet")}
    assert len(first) >= 3 and not (out / "result.json").exists()
    artifact = run_stage(asked, home / "store")
    assert all((artifact.path / path).stat().st_mtime_ns == stamp for path, stamp in first.items())
    return artifact


def test_a_killed_run_makes_no_answer_twice(resumed: Artifact) -> None:
    answers = [answer for file in resumed.path.glob("chunks/*/*.parquet") for answer in read_answers(file)]
    made = Counter((answer.context, answer.seed) for answer in answers)
    assert set(made.values()) == {1}
    assert len(made) == 2 * (sum(map(len, TURNS)) + 1) == resumed.manifest.metrics["generate/made"]
    rows = rows_of(resumed.path / "answers.jsonl")
    assert [row["prompt_id"] for row in rows] == 2 * [prompt_id(turns) for turns in [*TURNS, LONG]]
    assert {row["status"] for row in rows if row["turn"] != 2 or "capital" not in str(row)} <= {"ok", "cut", "loop", "empty"}
    assert [row["status"] for row in rows if row["prompt_id"] == prompt_id(LONG)] == ["too long: turn 2"] * 2
    assert resumed.manifest.measurements.peak_bytes > 0 and resumed.manifest.metrics["generate/tokens_per_second"] > 0


def test_the_same_seeds_give_the_same_answers(resumed: Artifact, home: Path, tmp_path: Path) -> None:
    """In another store, not killed, so that other answers were computed beside each."""
    again = run_stage(request(home), tmp_path / "store")
    ours, theirs = (rows_of(artifact.path / "answers.jsonl") for artifact in (resumed, again))
    first = [[row["conversation"][1]["content"] for row in rows] for rows in (ours, theirs)]
    assert first[0] == first[1] and len(set(first[0])) > len(TURNS)  # and not one answer to all


def test_what_goes_round_in_circles_is_ended_and_marked(home: Path) -> None:
    """The likeliest tokens of an untrained model repeat before long."""
    greedy = request(home, sampling=Sampling(temperature=0, max_tokens=300), samples=1, rows=8)
    rows = rows_of(run_stage(greedy, home / "store").path / "answers.jsonl")
    loops = [row for row in rows if row["status"] == "loop"]
    assert loops and all(row["answer_tokens"][-1] < 300 and row["stop_reasons"][-1] == "loop" for row in loops)


def test_from_the_command_line_a_second_model_is_asked_and_the_first_one_is_not(resumed: Artifact, home: Path) -> None:
    named = [word for path in models(home).values() for word in ("--model", path.name)]
    sampling = ["--temperature", "1.0", "--top-p", "0.95", "--max-tokens", "40", "--samples", "2"]
    command = [sys.executable, "-m", "zoo", "data", "generate", str(home / "prompts.jsonl"), *named, *sampling]
    out = home / "answers.jsonl"
    done = subprocess.run(
        [*command, "--licence", "mine", "-o", str(out), "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "ZOO_HOME": str(home)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "28 rows, 25 prompts" in done.stderr and "1 more than 200,000 characters" in done.stderr
    table = {line["model"]: line for line in json.loads(done.stdout)}
    answers = resumed.manifest.metrics["generate/made"]
    assert (table["tiny-a"]["made"], table["tiny-a"]["reused"]) == (0, answers)
    assert (table["tiny-b"]["made"], table["tiny-b"]["reused"]) == (answers, 0)
    rows = rows_of(out)
    assert Counter(row["model"] for row in rows) == {"tiny-a": 50, "tiny-b": 50}
    assert rows[:50] == rows_of(resumed.path / "answers.jsonl")
    assert {row["licence"] for row in rows} == {"prompts: mine; model: unknown"}
