"""What tests of stages share: the device, the precision, and the tiny model trained and merged once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.requests import BASE, given, train_request
from tests.helpers.tiny_models import write_tiny_llama
from zoo.contracts import FetchRequest, MergeRequest, MergeSpec
from zoo.stages.train import stage as train
from zoo.stages.weights import fetch, merge


@pytest.fixture
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is computed in this process is in float32, also on processors with bfloat16, whose rounding is larger than what is
    compared.
    """
    monkeypatch.setattr("zoo.stages.device.processor_has_bfloat16", lambda: False)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The device that this process's code takes: the CPU, also where there is a GPU, and with `-m gpu` the GPU."""
    import torch

    if request.param == "cpu":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    elif not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fetched base whose head is not its embedding."""
    folder = tmp_path_factory.mktemp("untied")
    write_tiny_llama(folder / "model", tie_word_embeddings=False)
    return folder


@pytest.fixture(scope="session")
def base(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fetch")
    request = FetchRequest(entry="tiny", base=BASE, source="folder", folder=given(tiny_llama))
    fetch.run(request, out)
    return out


@pytest.fixture(scope="session")
def trained(base: Path, sample_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("train")
    train.run(train_request(base, sample_csv), out)
    return out


@pytest.fixture(scope="session")
def merged(base: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("merge")
    merge.run(MergeRequest(entry="tiny", base=given(base), adapter=given(trained), spec=MergeSpec()), out)
    return out
