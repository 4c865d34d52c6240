"""The transformers engine: it agrees with a row at a time whatever the batches, and a killed scoring makes the same table."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.tiny_encoders import TEMPLATES, encoder_answers, write_encoder
from zoo.contracts import Held, Input, PromptSpec, ScoreRequest, ScoreSpec, Selection, ServeSpec, StageResult, Variant
from zoo.data.battles import read_battles
from zoo.errors import ZooError
from zoo.models.prompts import encode_battles, load_codec
from zoo.models.shapes import read_config
from zoo.pipeline.runners.local import descendants
from zoo.scores.tables import label_probabilities, probabilities, read_card, read_scores
from zoo.stages.score import stage as score
from zoo.stages.score.in_transformers import Engine, batches, engine_arguments, second_starts

FAMILIES = sorted(TEMPLATES)
SLUGS = ("ab-96", "ba-96")
SPEC = ScoreSpec(
    engine="transformers",
    variants=tuple(Variant(order=order, max_tokens=96) for order in ("ab", "ba")),
    chunk_rows=8,
    max_seqs=4,
    max_batched_tokens=320,
)


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of each family, as transformers saves it."""
    place = tmp_path_factory.mktemp(request.param) / "model"
    return write_encoder(place, request.param, head="ForSequenceClassification", labels=3)


def drawn_rows(lengths: list[int]) -> list[np.ndarray]:
    """Rows of random tokens, none of them special, behind the token that a row begins with."""
    draw = np.random.default_rng(3)
    return [np.concatenate([[2], draw.integers(6, 100, n - 1)]).astype(np.int32) for n in lengths]


def test_the_engine_agrees_with_a_row_at_a_time_in_float32(folder: Path) -> None:
    """Padding and neighbours are nothing to a row: neither in one batch with much longer rows, nor in batches of one."""
    rows = drawn_rows([4, 150, 33, 8, 80, 5, 149, 21])
    expected = encoder_answers(folder, [row.tolist() for row in rows])
    assert np.ptp(expected, axis=0).min() > 1e-3  # else anything would agree
    heard: list[tuple[int, int]] = []
    for tokens, seqs in ((10_000, 64), (1, 1), (320, 3)):
        spec = SPEC.model_copy(update={"max_batched_tokens": tokens, "max_seqs": seqs})
        heard.clear()
        answer = Engine(engine_arguments(folder, spec, ServeSpec())).score(rows, lambda *step: heard.append(step))
        assert np.abs(answer.logits - expected).max() < 1e-5
        assert not answer.refused and not answer.cached.any()
        assert np.sum(heard, axis=0).tolist() == [len(rows), sum(map(len, rows))]


def test_a_row_beyond_the_model_s_positions_is_refused_by_itself(folder: Path) -> None:
    """BERT and RoBERTa have no position after their last; DeBERTa and ModernBERT count distances, and go on."""
    rows = drawn_rows([20, 161, 30])
    answer = Engine(engine_arguments(folder, SPEC, ServeSpec())).score(rows)
    if read_config(folder)["model_type"] in ("bert", "roberta"):
        assert list(answer.refused) == [1] and "161 tokens" in answer.refused[1]
        assert np.isfinite(answer.logits[[0, 2]]).all() and np.isnan(answer.logits[1]).all()
    else:
        assert not answer.refused and np.isfinite(answer.logits).all()


@given(st.lists(st.integers(1, 500), max_size=60), st.integers(1, 2000), st.integers(1, 16))
def test_batches_hold_every_row_once_within_their_bounds(lengths: list[int], tokens: int, rows: int) -> None:
    found = batches(lengths, tokens, rows, without={0: "too long"} if lengths else {})
    assert sorted(i for batch in found for i in batch) == list(range(1, len(lengths)))
    for batch in found:
        longest = max(lengths[i] for i in batch)
        assert len(batch) <= rows and (len(batch) == 1 or len(batch) * longest <= tokens)
    ends = [max(lengths[i] for i in batch) for batch in found]
    assert ends == sorted(ends, reverse=True)


def test_too_little_memory_has_a_second_start_with_half_the_batch() -> None:
    (start,) = second_starts(SPEC)
    assert start.cause == "memory" and start.arguments == {"max_batched_tokens": 160, "max_seqs": 2}


# --- the stage, its engines in processes of their own -----------------------------------------------------------------


def request_for(folder: Path, family: str, csv: Path, **changed: object) -> ScoreRequest:
    settings: dict[str, object] = {
        "entry": "tiny",
        "model": Input(path=folder.parent, fingerprint="x"),
        "battles": Input(path=csv, fingerprint="y"),
        "held": Held(),
        "selection": Selection(rows="all", max_rows=24),
        "prompt": PromptSpec(template=TEMPLATES[family], max_tokens=96),
        "spec": SPEC,
        "target": "cpu",
    }
    return ScoreRequest.model_validate(settings | changed)


def run(request: ScoreRequest, out: Path, replicas: int = 1) -> StageResult:
    out.mkdir(exist_ok=True)
    return score.score(request, out, ({},) * replicas)


def tables(out: Path) -> list[pd.DataFrame]:
    return [read_scores(out / slug / "scores.parquet") for slug in SLUGS]


class Killer(threading.Thread):
    """Kills a run's engine once, as soon as a chunk of it is written."""

    def __init__(self, out: Path) -> None:
        super().__init__(daemon=True)
        self._out, self.struck = out, 0

    def run(self) -> None:
        while not self.struck:
            time.sleep(0.005)
            for process in descendants(os.getpid()):
                with suppress(psutil.Error):  # it has ended
                    engine = "zoo.stages.score.engine_process" in process.cmdline()
                    if engine and list(self._out.glob("ab-*/chunks/*.parquet")):
                        self.struck = process.pid
                        os.kill(process.pid, signal.SIGKILL)


@pytest.mark.chain
@pytest.mark.timeout(300)
def test_the_stage_scores_both_orders_and_a_killed_one_ends_with_the_same_table(sample_csv: Path, tmp_path: Path) -> None:
    """The table agrees with transformers, a row at a time; with an engine killed in between it is the same to the last bit."""
    family = "DebertaV2"
    folder = write_encoder(tmp_path / "model", family, head="ForSequenceClassification", labels=3)
    request = request_for(folder, family, sample_csv)
    result = run(request, tmp_path / "whole")
    codec = load_codec(folder, request.prompt)
    for table, order in zip(tables(tmp_path / "whole"), ("ab", "ba"), strict=True):
        assert (table["status"] == "ok").all() and len(table) == 24
        frame = read_battles(sample_csv).frame.set_index("id", drop=False).loc[table["id"]]
        turns = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
        rows = [e.ids for e in encode_battles(turns, codec, request.prompt, order)]  # type: ignore[arg-type]
        expected = label_probabilities(encoder_answers(folder, rows), order)  # type: ignore[arg-type]
        assert np.abs(probabilities(table) - expected).max() < 1e-5
    card = read_card(tmp_path / "whole" / SLUGS[0] / "scores.json")
    assert card.engine.startswith("transformers ") and card.cost.seconds_per_token > 0
    assert result.measurements.load_seconds > 0 and result.measurements.tokens > 0
    killer = Killer(tmp_path / "killed")
    killer.start()
    killed = run(request, tmp_path / "killed")
    assert killer.struck and killed.metrics["engine/restarts"] == 1
    run(request, tmp_path / "two", replicas=2)
    for name in ("killed", "two"):
        for ours, theirs in zip(tables(tmp_path / name), tables(tmp_path / "whole"), strict=True):
            pd.testing.assert_frame_equal(ours, theirs)


def test_an_encoder_is_not_emulated(sample_csv: Path, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "model", "Bert", head="ForSequenceClassification", labels=3)
    with pytest.raises(ZooError, match="emulation is of vLLM"):
        run(request_for(folder, "Bert", sample_csv, emulates="t4x2"), tmp_path / "out")
