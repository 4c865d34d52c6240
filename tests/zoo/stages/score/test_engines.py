"""Watching over engines, with real processes that compute something simple in place of a model: who dies, hangs and goes on."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel, Field, ValidationError

from tests.helpers.clocks import Clock
from tests.helpers.paths import HELPERS
from tests.helpers.tiny_models import TEMPLATE
from tests.helpers.waiting import is_alive
from zoo.contracts import Held, Input, PromptSpec, ScoreRequest, ScoreSpec, Selection, StageResult, Variant
from zoo.data.battles import read_battles
from zoo.errors import ZooError
from zoo.models.prompts import encode_battles, load_codec
from zoo.pipeline.runners.local import compiled_folder
from zoo.scores.tables import probabilities, read_card, read_scores
from zoo.stages.score import engine_handle, engines
from zoo.stages.score import stage as score
from zoo.stages.score.chunks import Answer, Chunk
from zoo.stages.score.engine_handle import Replica
from zoo.stages.score.engine_process import told
from zoo.stages.score.engines import Crew, EngineError, Job
from zoo.stages.score.tally import Tally
from zoo.stages.score.token_file import TOKEN, Encoding
from zoo.stages.score.work import QUEUE, Listener, Patience

pytestmark = pytest.mark.timeout(300)

PROMPT = PromptSpec(template=TEMPLATE, max_tokens=160)
MEMORY = {"loading_bytes": 0, "allocated_bytes": 0, "card_bytes": 0}


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_handle, "COMMAND", (sys.executable, str(HELPERS / "stand_in_engine.py")))


def chunks_of(count: int) -> list[Chunk]:
    lengths = np.full(count, 5)
    encoding = Encoding(Variant(max_tokens=9), np.arange(count) * 5, lengths, 0 * lengths)
    return [Chunk((encoding,), i, np.array([i])) for i in range(count)]


def crew_job(folder: Path, places: Sequence[dict[str, str]], count: int) -> Job:
    job = Job(arguments={}, label_ids=(1, 2, 3), folder=folder / "work", places=tuple(places))
    job.folder.mkdir()
    job.tokens.write_bytes(np.arange(5 * count, dtype=TOKEN).tobytes())
    return job


def test_an_idle_replica_takes_what_a_failed_one_gives_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The idle one has been silent for longer than a busy one may be, which is no fault of its."""
    done: list[int] = []
    hung = tmp_path / "hung"
    job = crew_job(tmp_path, [{"WAIT_FOR": str(hung)}, {"HANG": str(hung)}], 2 * QUEUE)
    with Crew(job, Patience(factor=0, floor_seconds=2)) as crew:
        # Time passes while one has done what it was given and the other hangs on the rest.
        clock = Clock(lambda: len(done) == QUEUE and any(is_alive(int(file.name)) for file in hung.iterdir()))
        monkeypatch.setattr(engines, "time", clock.as_module())
        monkeypatch.setattr(engine_handle, "time", clock.as_module(sleep=time.sleep))
        crew.score(chunks_of(2 * QUEUE), Listener(take=lambda number, answer, memory: done.append(number)))
    assert sorted(done) == list(range(2 * QUEUE)) and crew.restarts == 1  # the other's


def test_the_rest_goes_on_without_a_replica_that_fails_for_good(tmp_path: Path) -> None:
    done: list[int] = []
    job = crew_job(tmp_path, [{}, {"DIE_LOADING": "always"}], 3)
    with Crew(job) as crew:
        crew.score(chunks_of(3), Listener(take=lambda number, answer, memory: done.append(number)))
    assert sorted(done) == [0, 1, 2]


def test_an_ended_process_is_not_signalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be another process's by then."""
    job = crew_job(tmp_path, [{}], 1)
    replica = Replica(0, {"DIE_LOADING": "always"})
    replica.start(job.write())
    assert replica.process is not None and replica.process.wait() == 9
    signalled: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: signalled.append(pid))
    assert replica.kill() and not signalled and replica.process is None


def test_what_an_engine_left_behind_is_gone_before_the_next_starts(tmp_path: Path) -> None:
    """A split engine's workers hold their GPUs when the process that started them has crashed."""
    done: list[int] = []
    left: list[bool] = []

    def note(text: str) -> None:
        assert "ended by SIGABRT; started again" in text
        with suppress(OSError):
            left.append(is_alive(int((tmp_path / "left" / "pid").read_text())))

    with Crew(crew_job(tmp_path, [{"LEAVE_WORKER": str(tmp_path / "left")}], 2)) as crew:
        crew.score(chunks_of(2), Listener(take=lambda number, answer, memory: done.append(number), note=note))
        assert crew.restarts == 1 and (tmp_path / "left" / "pid").exists()
    assert sorted(done) == [0, 1] and not any(left)


@pytest.mark.parametrize("short", [1, 2])
def test_an_engine_that_could_load_before_is_given_a_second_try(tmp_path: Path, short: int) -> None:
    """What the crashed one held may not be free yet; one that lacks memory again says so."""
    done: list[int] = []
    listener = Listener(take=lambda number, answer, memory: done.append(number))
    with Crew(crew_job(tmp_path, [{"CRASH": str(tmp_path / "crashed"), "SHORT": str(short)}], 2)) as crew:
        if short == 1:
            crew.score(chunks_of(2), listener)
            assert sorted(done) == [0, 1] and crew.restarts == 2
        else:
            with pytest.raises(EngineError, match="Free memory on device"):
                crew.score(chunks_of(2), listener)
            assert crew.restarts == 2 and not done


def request_for(model: Path, csv: Path) -> ScoreRequest:
    variants = (Variant(order="ab", max_tokens=160), Variant(order="ba", max_tokens=160))
    return ScoreRequest(
        entry="tiny",
        model=Input(path=model.parent, fingerprint="x"),
        battles=Input(path=csv, fingerprint="y"),
        held=Held(),
        selection=Selection(rows="all", max_rows=12),
        prompt=PROMPT,
        spec=ScoreSpec(variants=variants, chunk_rows=8, max_seqs=4, max_batched_tokens=512, dtype="float32"),
        target="cpu",
    )


def run(request: ScoreRequest, out: Path, **place: str) -> StageResult:
    out.mkdir(exist_ok=True)
    return score.score(request, out, (place,))


def tables(out: Path) -> list[pd.DataFrame]:
    return [read_scores(out / slug / "scores.parquet") for slug in ("ab-160", "ba-160")]


def test_a_run_killed_at_its_very_end_is_resumed(tiny_llama: Path, sample_csv: Path, tmp_path: Path) -> None:
    """After the work folder is removed and before the runner has committed: nothing is scored again, nothing is forgotten."""
    request, out = request_for(tiny_llama, sample_csv), tmp_path / "out"
    first = run(request, out)
    before = tables(out)
    assert not (out / "work").exists()
    again = run(request, out, DIE_LOADING="always")  # no engine is started
    assert again.measurements.load_seconds == first.measurements.load_seconds > 1000
    assert again.measurements.run_seconds == first.measurements.run_seconds > 0
    next(out.glob("ab-160/chunks/*.parquet")).unlink()
    run(request, out)
    for ours, theirs in zip(tables(out), before, strict=True):
        pd.testing.assert_frame_equal(ours, theirs)


def test_an_engine_started_again_while_loading_is_priced(tiny_llama: Path, sample_csv: Path, tmp_path: Path) -> None:
    result = run(request_for(tiny_llama, sample_csv), tmp_path / "out", DIE_LOADING=str(tmp_path / "died"))
    assert result.metrics["engine/restarts"] == 1 and result.measurements.load_seconds > 1000  # as the engine says
    assert read_card(tmp_path / "out" / "ab-160" / "scores.json").cost.load_seconds == result.measurements.load_seconds


def test_a_replica_that_is_ready_later_does_not_set_the_clock_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading counts to the slowest replica's first row; a replica that is started again changes nothing."""
    clock = Clock()
    monkeypatch.setattr(score, "time", clock.as_module())
    tally, answer = Tally(), Answer(np.zeros((1, 3)), np.zeros(1, np.int64), {}, 0.1)

    def play(todo: Sequence[Chunk], listener: Listener) -> None:
        listener.ready(0, 5.0, MEMORY)
        clock.seconds += 3
        listener.ready(1, 7.0, MEMORY)
        listener.ready(0, 50.0, MEMORY)
        listener.take(0, answer, MEMORY)

    crew = SimpleNamespace(score=play, restarts=1, lead_seconds=2.0)
    score.score_chunks(crew, chunks_of(1), ["x"], tally, tmp_path)  # type: ignore[arg-type]
    assert tally.load_seconds == 9.0 and tally.run_seconds == 3.0


def test_a_row_that_crashes_engines_is_recorded_and_the_others_are_scored(
    tiny_llama: Path, sample_csv: Path, tmp_path: Path
) -> None:
    """Both orders of the longest battle, the first rows of all: with no row scored in between, no engine is given up."""
    request = request_for(tiny_llama, sample_csv)
    run(request, tmp_path / "whole")
    whole = tables(tmp_path / "whole")
    total = whole[0]["n_tokens"] + whole[1]["n_tokens"]
    bad = whole[0]["id"][int(np.argmax(total))]
    frame = read_battles(sample_csv).frame.set_index("id", drop=False).loc[[bad]]
    turns = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
    codec = load_codec(tiny_llama, PROMPT)
    rows = [encode_battles(turns, codec, PROMPT, order, 160)[0].ids for order in ("ab", "ba")]  # type: ignore[arg-type]
    poison = [hashlib.sha256(np.asarray(row, dtype=TOKEN).tobytes()).hexdigest() for row in rows]
    result = run(request, tmp_path / "out", POISON=",".join(poison))
    assert result.metrics["engine/restarts"] == 4  # twice the chunk, once each row
    for ours, theirs in zip(tables(tmp_path / "out"), whole, strict=True):
        struck = (ours["id"] == bad).to_numpy()
        assert ours["status"][struck].tolist() == ["refused: the engine crashed on it (ended by SIGABRT)"]
        assert np.isnan(probabilities(ours)[struck]).all()
        pd.testing.assert_frame_equal(ours[~struck], theirs[~struck])


@pytest.mark.parametrize(
    ("place", "last"),
    [({"POISON": "all"}, "ended by SIGABRT"), ({"LACK_MEMORY": "always"}, "OutOfMemoryError: CUDA out of memory")],
)
def test_an_engine_that_can_score_nothing_ends_the_run(
    place: dict[str, str], last: str, tiny_llama: Path, sample_csv: Path, tmp_path: Path
) -> None:
    """It is not the rows then, and none is recorded as bad."""
    with pytest.raises(EngineError, match=f"failed 3 times in a row, last: {last}"):
        run(request_for(tiny_llama, sample_csv), tmp_path / "out", **place)
    assert not list((tmp_path / "out").glob("*/chunks/*.parquet"))


def test_engines_that_die_of_every_chunk_are_given_up_with_what_was_kept(
    tiny_llama: Path, sample_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row by itself is scored, so no engine fails often in a row: the run would load two engines a chunk to its end."""
    monkeypatch.setattr(engines, "RUN_RESTARTS", 3)
    request, out = request_for(tiny_llama, sample_csv), tmp_path / "out"
    told = "started again 3 times, .*last: ended by SIGABRT; 1 of 3 chunks are kept$"
    with pytest.raises(EngineError, match=told):
        run(request, out, SHUN_COMPANY="always")
    kept = {file: file.stat().st_mtime_ns for file in out.glob("*/chunks/*.parquet")}
    assert len(kept) == 2  # both orders
    run(request, out)  # mended
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in kept.items())
    run(request, tmp_path / "whole")
    for ours, theirs in zip(tables(out), tables(tmp_path / "whole"), strict=True):
        pd.testing.assert_frame_equal(ours, theirs)


def test_a_run_that_is_resumed_with_another_engine_mixes_no_numbers(
    tiny_llama: Path, sample_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, out = request_for(tiny_llama, sample_csv), tmp_path / "out"
    run(request, out)
    before = {file: file.stat().st_mtime_ns for file in out.glob("*/chunks/*.parquet")}
    monkeypatch.setattr(score, "engine_version", lambda spec: "vllm 99.0")
    run(request, out)
    assert before and all(file.stat().st_mtime_ns != stamp for file, stamp in before.items())
    assert read_card(out / "ab-160" / "scores.json").engine == "vllm 99.0"


def test_compiled_code_is_kept_in_a_folder_of_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name can be guessed and its files are run: a link that somebody planted there is refused."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = compiled_folder()
    assert folder == compiled_folder() and folder.stat().st_mode & 0o077 == 0
    (tmp_path / "theirs").mkdir()
    folder.rmdir()
    folder.symlink_to(tmp_path / "theirs")
    with pytest.raises(ZooError, match="not a folder of your own"):
        compiled_folder()


def test_an_engine_that_refuses_its_settings_says_which_and_why() -> None:
    """As vLLM does: by pydantic's errors, whose first line only counts them."""

    class Settings(BaseModel):
        max_model_len: int = Field(le=512)

    with pytest.raises(ValidationError) as refused:
        Settings(max_model_len=1025)
    assert told(refused.value) == "ValidationError: max_model_len: Input should be less than or equal to 512"
    assert told(RuntimeError("out of blocks\nof the cache")) == "RuntimeError: out of blocks"
    assert told(RuntimeError()) == "RuntimeError: no message"
