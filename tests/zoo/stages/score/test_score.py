"""Scoring with vLLM, engines in processes of their own: replicas, agreement with transformers, engines that die or hang."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from tests.helpers.battles_files import mirrored
from tests.helpers.clocks import Clock
from tests.helpers.tiny_models import TEMPLATE
from zoo.contracts import Held, Input, PromptSpec, ScoreRequest, ScoreSpec, Selection, ServeSpec, StageResult, Variant
from zoo.data.battles import read_battles
from zoo.models.prompts import encode_battles, load_codec
from zoo.pipeline.runners.local import descendants
from zoo.scores.tables import label_probabilities, probabilities, read_scores, swap_sides
from zoo.stages.score import engine_handle, engines
from zoo.stages.score import stage as score
from zoo.stages.score.chunks import Answer, Chunk
from zoo.stages.score.engines import Crew, EngineError, Job
from zoo.stages.score.token_file import Encoding
from zoo.stages.score.vllm.engine import engine_arguments
from zoo.stages.score.work import Listener, Patience
from zoo.stages.train.classifier import load_classifier

pytestmark = [pytest.mark.chain, pytest.mark.timeout(300)]

PROMPT = PromptSpec(template=TEMPLATE, max_tokens=160)
BOTH = (Variant(order="ab", max_tokens=160), Variant(order="ba", max_tokens=160))
SLUGS = ("ab-160", "ba-160")


def request_for(model: Path, csv: Path, *, rows: int = 24, **spec: object) -> ScoreRequest:
    settings = {"variants": BOTH, "chunk_rows": 8, "max_seqs": 4, "max_batched_tokens": 512, "dtype": "float32"}
    return ScoreRequest(
        entry="tiny",
        model=Input(path=model.parent, fingerprint="x"),
        battles=Input(path=csv, fingerprint="y"),
        held=Held(),
        selection=Selection(rows="all", max_rows=rows),
        prompt=PROMPT,
        spec=ScoreSpec(**{**settings, **spec}),  # type: ignore[arg-type]
        target="cpu",
    )


def run(request: ScoreRequest, out: Path, *, replicas: int = 1, patience: Patience | None = None) -> StageResult:
    out.mkdir(exist_ok=True)
    return score.score(request, out, ({},) * replicas, patience)


def tables(out: Path) -> list[pd.DataFrame]:
    return [read_scores(out / slug / "scores.parquet") for slug in SLUGS]


@pytest.fixture(scope="module")
def whole(tiny_llama: Path, sample_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StageResult]:
    """One engine scoring 24 battles in both orders, undisturbed."""
    out = tmp_path_factory.mktemp("score") / "whole"
    return out, run(request_for(tiny_llama, sample_csv), out)


def exact(model: Path, csv: Path, ids: list[str], order: str) -> np.ndarray:
    """Oracle: transformers in float32, a row at a time, over the full vocabulary and with what the model does to its logits."""
    import torch
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    codec = load_codec(model, PROMPT)
    frame = read_battles(csv).frame.set_index("id", drop=False).loc[ids]
    turns = list(zip(frame["prompt"], frame["response_a"], frame["response_b"], strict=True))
    with torch.no_grad():
        rows = [plain(torch.tensor([e.ids])).logits[0, -1] for e in encode_battles(turns, codec, PROMPT, order, 160)]  # type: ignore[arg-type]
    return label_probabilities(torch.stack(rows)[:, list(codec.label_ids)].numpy(), order)  # type: ignore[arg-type]


def test_the_engine_agrees_with_transformers(whole: tuple[Path, StageResult], tiny_llama: Path, sample_csv: Path) -> None:
    for table, order in zip(tables(whole[0]), ("ab", "ba"), strict=True):
        assert (table["status"] == "ok").all() and len(table) == 24
        expected = exact(tiny_llama, sample_csv, table["id"].tolist(), order)
        assert np.abs(probabilities(table) - expected).max() < 1e-4


def test_a_classifier_that_begins_as_the_label_rows_makes_their_table(
    whole: tuple[Path, StageResult], tiny_llama: Path, sample_csv: Path, tmp_path: Path
) -> None:
    """Both heads are one function at step 0, through the whole stage and in both orders."""
    import torch

    model = load_classifier(tiny_llama, load_codec(tiny_llama, PROMPT).label_ids, dtype=torch.float32)
    shutil.copytree(tiny_llama, tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    run(request_for(tmp_path / "model", sample_csv), tmp_path / "out")
    for ours, theirs in zip(tables(tmp_path / "out"), tables(whole[0]), strict=True):
        assert ours["id"].tolist() == theirs["id"].tolist()
        assert np.abs(probabilities(ours) - probabilities(theirs)).max() < 1e-5


def test_a_classifier_shown_the_other_way_round_answers_as_for_mirrored_battles(
    tiny_llama: Path, sample_csv: Path, tmp_path: Path
) -> None:
    """The same prompts to the token, and the same probabilities once the sides are put back: both orders are alike."""
    import torch

    model = load_classifier(tiny_llama, load_codec(tiny_llama, PROMPT).label_ids, dtype=torch.float32)
    with torch.no_grad():
        model.score.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    shutil.copytree(tiny_llama, tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    found = []
    for number, battles in enumerate((sample_csv, mirrored(sample_csv, tmp_path / "mirrored.csv"))):
        run(request_for(tmp_path / "model", battles), tmp_path / f"out-{number}")
        found.append([table.set_index("id").sort_index() for table in tables(tmp_path / f"out-{number}")])
    (ab, ba), (mirrored_ab, mirrored_ba) = found
    for own, other in ((ab, mirrored_ba), (ba, mirrored_ab)):
        assert own.index.equals(other.index) and own["n_tokens"].equals(other["n_tokens"])
        assert np.abs(probabilities(own) - swap_sides(probabilities(other))).max() < 1e-6
    assert np.abs(probabilities(ab) - probabilities(ba)).max() > 0.01, "the order is seen"


def test_two_replicas_make_the_table_of_one(
    whole: tuple[Path, StageResult], tiny_llama: Path, sample_csv: Path, tmp_path: Path
) -> None:
    result = run(request_for(tiny_llama, sample_csv), tmp_path / "two", replicas=2)
    assert result.metrics["engine/replicas"] == 2
    for ours, theirs in zip(tables(tmp_path / "two"), tables(whole[0]), strict=True):
        pd.testing.assert_frame_equal(ours, theirs)  # to the last bit: a chunk depends on its own rows alone


class Disturber(threading.Thread):
    """Sends signals to a run's engine: each once so many chunk files of a variant are there, to whatever engine runs then."""

    def __init__(self, out: Path, plan: list[tuple[int, signal.Signals]]) -> None:
        super().__init__(daemon=True)
        self._out, self._plan = out, plan
        self.seen: dict[Path, int] = {}  # chunk files at the first signal, and when they were written
        self.struck: list[int] = []

    def run(self) -> None:
        for chunks, number in self._plan:
            while len(self._files()) < chunks or not (engine := self._engine()) or engine in self.struck:
                time.sleep(0.02)  # as long as the test runs: the thread ends with it
            self.seen = self.seen or {file: file.stat().st_mtime_ns for file in self._files()}
            os.kill(engine, number)
            self.struck.append(engine)

    def hung(self) -> bool:
        """Whether an engine that it stopped is there, stopped."""
        stats = [Path(f"/proc/{pid}/stat") for pid in self.struck]
        with suppress(OSError):
            return any(stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in stats)
        return False

    def _files(self) -> list[Path]:
        return list(self._out.glob("ab-*/chunks/*.parquet"))

    def _engine(self) -> int | None:
        """The run's engine, a child of this process that has the run's folder among its arguments."""
        for process in descendants(os.getpid()):
            with suppress(psutil.Error):  # it has ended
                arguments = process.cmdline()
                if "zoo.stages.score.engine_process" in arguments and any(str(self._out) in a for a in arguments):
                    return process.pid
        return None


def test_an_engine_that_dies_and_one_that_hangs_are_started_again(
    whole: tuple[Path, StageResult], tiny_llama: Path, sample_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time passes for those who watch only while the engine hangs: however slow the machine, no other silence is a fault."""
    out = tmp_path / "disturbed"
    disturber = Disturber(out, [(1, signal.SIGKILL), (3, signal.SIGSTOP)])
    clock = Clock(disturber.hung)
    monkeypatch.setattr(engines, "time", clock.as_module())
    monkeypatch.setattr(engine_handle, "time", clock.as_module(sleep=time.sleep))
    disturber.start()
    result = run(request_for(tiny_llama, sample_csv), out, patience=Patience(factor=0, floor_seconds=3))
    assert len(disturber.struck) == 2 and result.metrics["engine/restarts"] == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in disturber.struck)
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in disturber.seen.items())  # what was done is kept
    for ours, theirs in zip(tables(out), tables(whole[0]), strict=True):
        pd.testing.assert_frame_equal(ours, theirs)  # none lost, none twice, and the same numbers to the last bit


def test_an_engine_that_never_starts_is_given_up(tiny_llama: Path, sample_csv: Path, tmp_path: Path) -> None:
    """Killed as it starts, three times: then the run ends, and says what happened."""
    disturber = Disturber(tmp_path / "out", [(0, signal.SIGKILL)] * 3)
    disturber.start()
    with pytest.raises(EngineError, match="failed 3 times in a row, last: ended by SIGKILL"):
        run(request_for(tiny_llama, sample_csv), tmp_path / "out")
    disturber.join()
    assert len(disturber.struck) == 3


@pytest.fixture(scope="module")
def tiny_gemma(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Gemma 2 whose logits are well beyond its final soft-cap of 2."""
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    folder = tmp_path_factory.mktemp("gemma") / "model"
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 32, "vocab_size": 512}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "query_pre_attn_scalar": 32, "max_position_embeddings": 512}
    model = Gemma2ForCausalLM(Gemma2Config(**shape, **heads, final_logit_softcapping=2.0))
    model.get_input_embeddings().weight.data.mul_(30)
    model.save_pretrained(folder)
    return folder


def test_label_logits_are_soft_capped_and_shared_prefixes_computed_once(tiny_gemma: Path, tmp_path: Path) -> None:
    """Oracle: transformers in float32. A row that the engine refuses keeps its reason, and its neighbours their numbers."""
    import torch
    from transformers import AutoModelForCausalLM

    generator = np.random.default_rng(0)
    prefix = generator.integers(3, 500, 256)
    rows = [np.concatenate([prefix, generator.integers(3, 500, 40)]).astype("<i4") for _ in range(2)]
    rows += [generator.integers(3, 500, n).astype("<i4") for n in (50, 310)]
    starts = np.cumsum([0, *map(len, rows)])
    spec = ScoreSpec(variants=(Variant(max_tokens=300),), max_seqs=4, max_batched_tokens=512, dtype="float32")
    job = Job(engine_arguments(tiny_gemma, spec, ServeSpec(), gpus=1, on_gpu=False), (30, 31, 32), tmp_path / "work", ({},))
    lengths = np.array([len(row) for row in rows])
    chunk = Chunk((Encoding(spec.variants[0], starts[:-1], lengths, 0 * lengths),), 0, np.arange(4))
    heard: list[Answer] = []
    with Crew(job) as crew:
        job.tokens.write_bytes(np.concatenate(rows).tobytes())
        crew.score([chunk], Listener(take=lambda number, answer, memory: heard.append(answer)))
    answer = heard[0]
    assert list(answer.refused) == [3] and "310" in answer.refused[3] and np.isnan(answer.logits[3]).all()
    assert answer.cached[0] == 0 and answer.cached[1] >= 128  # whole blocks of the prefix
    model = AutoModelForCausalLM.from_pretrained(tiny_gemma, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        hidden = [model.model(torch.tensor([row.tolist()])).last_hidden_state[0, -1] for row in rows[:3]]
        plain = (torch.stack(hidden) @ model.get_output_embeddings().weight[[30, 31, 32]].T).numpy()
    assert np.abs(plain).max() > 4
    assert np.abs(answer.logits[:3] - 2 * np.tanh(plain / 2)).max() < 1e-3
