"""An engine that cannot start as it was told to is started in another way, each cause in its own, and never for ever."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.paths import HELPERS
from tests.zoo.stages.score.test_engines import chunks_of, crew_job
from zoo.contracts import ScoreSpec, ServeSpec, Variant
from zoo.stages.score import engine_handle
from zoo.stages.score.engines import Crew, EngineError, Job
from zoo.stages.score.second_start import ANY_CARD, ATTENTION, SILENCE, SecondStart, cause_of, second_starts, told_attention
from zoo.stages.score.work import Listener, Patience

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 512,
}
SPEC = ScoreSpec(variants=(Variant(order="ab", max_tokens=1024),), max_batched_tokens=8192, max_seqs=16)
TRITON = SecondStart("other", "by TRITON_ATTN", {"attention_backend": ANY_CARD})
SMALLER = SecondStart("memory", "smaller", {"max_num_batched_tokens": 1025})


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_handle, "COMMAND", (sys.executable, str(HELPERS / "stand_in_engine.py")))


def job_of(folder: Path, place: dict[str, str], *others: SecondStart, replicas: int = 1) -> Job:
    job = crew_job(folder, [place] * replicas, 3)
    return Job(job.arguments, job.label_ids, job.folder, job.places, second_starts=others)


def wanting(argument: str, value: object, said: str) -> dict[str, str]:
    return {"WANTS_ARGUMENT": f"{argument}={json.dumps(value)}", "SAYS": said}


def score(job: Job, patience: Patience | None = None) -> tuple[list[int], list[str], int]:
    done: list[int] = []
    notes: list[str] = []
    with Crew(job, patience) as crew:
        crew.score(chunks_of(3), Listener(take=lambda number, answer, memory: done.append(number), note=notes.append))
        return sorted(done), notes, crew.restarts


@pytest.mark.parametrize("replicas", [1, 2])
def test_attention_that_cannot_be_loaded_is_replaced_once_for_all(tmp_path: Path, replicas: int) -> None:
    """FlashInfer without its module says so as it answers the first row, before it is ready."""
    missing = "MissingJITCacheError: JIT compilation is disabled via FLASHINFER_DISABLE_JIT"
    job = job_of(tmp_path, wanting("attention_backend", ANY_CARD, missing), SMALLER, TRITON, replicas=replicas)
    done, notes, restarts = score(job)
    assert done == [0, 1, 2] and 1 <= restarts <= replicas
    assert missing in notes[0] and "by TRITON_ATTN" in notes[0]


def test_want_of_memory_is_met_by_smaller_batches(tmp_path: Path) -> None:
    job = job_of(tmp_path, wanting("max_num_batched_tokens", 1025, "OutOfMemoryError: CUDA out of memory"), SMALLER, TRITON)
    done, notes, restarts = score(job)
    assert done == [0, 1, 2] and restarts == 1 and "smaller" in notes[0]


def test_each_way_is_tried_once(tmp_path: Path) -> None:
    """The model does not fit with smaller batches either: the member is given up, and the plan has a fallback."""
    never = wanting("max_num_batched_tokens", 1, "OutOfMemoryError: CUDA out of memory")
    with pytest.raises(EngineError, match="out of memory"):
        score(job_of(tmp_path, never, SMALLER, TRITON))


def test_without_another_way_the_first_failure_is_the_last(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no such architecture"):
        score(job_of(tmp_path, wanting("any", 1, "ValueError: no such architecture"), SMALLER))


def test_the_ways_for_a_t4() -> None:
    smaller, split, attention = second_starts(CONFIG, SPEC, ServeSpec(layout="tensor"), {}, (7, 5), gpus=2)
    assert smaller.cause == "memory" and smaller.arguments["max_num_batched_tokens"] == 4096
    assert smaller.arguments["max_num_seqs"] == 8 and smaller.arguments["kv_cache_memory_bytes"] > 0
    assert split.cause == "silence" and split.environment == {"NCCL_P2P_DISABLE": "1"}
    assert attention.arguments == {"attention_backend": "TRITON_ATTN"} and "more time" in attention.told


def test_what_is_no_way() -> None:
    """A newer card's attention needs no modules, one card has no peers, and a batch holds its longest row."""
    short = SPEC.model_copy(update={"max_batched_tokens": 1500})
    assert second_starts(CONFIG, short, ServeSpec(), {}, (8, 0), gpus=1) == ()
    assert second_starts(CONFIG, short, ServeSpec(), {"attention_backend": ANY_CARD}, (7, 5), gpus=1) == ()


@pytest.mark.parametrize(
    ("why", "cause"),
    [
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "memory"),
        ("ValueError: No available memory for the cache blocks", "memory"),
        (f"{SILENCE} for 900 s", "silence"),
        ("RuntimeError: ninja: build stopped", "other"),
        ("ended by SIGSEGV", "other"),
    ],
)
def test_the_cause_by_what_was_said(why: str, cause: str) -> None:
    assert cause_of(why) == cause


def test_whoever_starts_a_stage_may_name_the_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told_attention(on_gpu=True) == {}
    monkeypatch.setenv(ATTENTION, ANY_CARD)
    assert told_attention(on_gpu=True) == {"attention_backend": ANY_CARD} and told_attention(on_gpu=False) == {}
