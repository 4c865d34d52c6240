"""What made data took of GPUs: their generation and judging, each once, and nothing of stages that leave GPUs alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.manifests import ANY_INPUT, finished, input_of
from tests.helpers.requests import train_request
from zoo.contracts import Measurements, Variant
from zoo.contracts.made import EntryJudge, FoldJudge, JudgeRequest, LabelRequest, Log, MineRequest
from zoo.pipeline.lineage import gpu_seconds, gpu_seconds_of_making
from zoo.report.made_file import costs, read_made
from zoo.scores.metric_names import JUDGE_GPU_SECONDS
from zoo.store import Artifact, discard, file_sha256, note_written

EIGHT = {"machine": "8 x NVIDIA H100"}
TEN = Measurements(load_seconds=4, run_seconds=6)


@pytest.fixture
def chain(own_home: Path, tmp_path: Path) -> dict[str, Artifact]:
    """Pairs that a judge of one fold judged on eight GPUs; `scored` stands for its scoring of them."""
    store = own_home / "store"
    on_eight = {"hardware": EIGHT, "measurements": TEN}
    mine = finished(store, MineRequest(entry="data", logs=(Log(file=ANY_INPUT, source="log"),), most_characters=9), **on_eight)
    trained = finished(store, train_request(tmp_path, tmp_path), **on_eight)
    scored = finished(store, train_request(tmp_path, tmp_path).model_copy(update={"entry": "scored"}), **on_eight)
    fold = FoldJudge(fold=0, trained=input_of(trained), human=ANY_INPUT, pairs=input_of(scored))
    judges = (EntryJudge(name="one", variants=(Variant(),), folds=(fold,)),)
    asked = JudgeRequest(entry="data", pairs=input_of(mine), human=ANY_INPUT, judges=judges)
    judge = finished(store, asked, metrics={JUDGE_GPU_SECONDS: 80.0}, **on_eight)
    wanted = LabelRequest(
        entry="data", pairs=input_of(mine), judges=(input_of(judge),), names=("one",), human=ANY_INPUT, source="log"
    )
    label = finished(store, wanted, **on_eight)
    file = tmp_path / "labelled.csv"
    file.write_text("id\n1\n")
    note_written(store, [file_sha256(file)[:16]], file, [label])
    note_written(store, [judge.fingerprint], tmp_path / "verdicts.parquet", [judge])  # as where it went out as a file
    return {"mine": mine, "trained": trained, "scored": scored, "judge": judge, "label": label}


def test_stages_on_processors_take_no_gpus_and_a_judge_s_scoring_counts_once(
    chain: dict[str, Artifact], tmp_path: Path
) -> None:
    store, file = chain["mine"].path.parent, tmp_path / "labelled.csv"
    own = {name: gpu_seconds(artifact.manifest) for name, artifact in chain.items()}
    assert own == {"mine": 0.0, "trained": 10.0, "scored": 10.0, "judge": 80.0, "label": 0.0}, "trainings take one of eight"
    told = {each["artifact"]: each["gpu_seconds"] for each in costs(read_made(store, file))}
    assert told == {artifact.path.name: 0.0 if name == "judge" else own[name] for name, artifact in chain.items()}
    assert gpu_seconds_of_making(store, file) == 80.0, "the training of the judge was not for these pairs"


def test_a_training_over_two_gpus_takes_both(own_home: Path, tmp_path: Path) -> None:
    request = train_request(tmp_path, tmp_path)
    over_two = request.model_copy(update={"spec": request.spec.model_copy(update={"gpus": 2})})
    assert gpu_seconds(finished(own_home / "store", over_two, hardware=EIGHT, measurements=TEN).manifest) == 20.0


def test_what_nobody_knows_is_not_told(chain: dict[str, Artifact], own_home: Path, tmp_path: Path) -> None:
    store, file = own_home / "store", tmp_path / "labelled.csv"
    discard(chain["scored"].path, own_home)
    told = {each["artifact"]: each["gpu_seconds"] for each in costs(read_made(store, file))}
    assert told[chain["judge"].path.name] == 80.0 and gpu_seconds_of_making(store, file) == 80.0, "the judge's note has it"
    shutil.copy(file, tmp_path / "copy.csv")
    assert gpu_seconds_of_making(store, tmp_path / "copy.csv") == 80.0
    discard(chain["judge"].path, own_home)
    assert gpu_seconds_of_making(store, file) is None
    (tmp_path / "other.csv").write_text("id\n2\n")
    assert gpu_seconds_of_making(store, tmp_path / "other.csv") is None
