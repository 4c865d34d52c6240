"""Shared fixtures: a home of its own for every test, and a tiny real model, built here in a second, never downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("unhurried", deadline=None)  # nothing is asserted about time: machines are shared
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing a test makes lands in the user's store, and no setting of the user's reaches a test."""
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ZOO_SETTINGS", str(tmp_path / "no-settings.toml"))
    for name in ("ZOO_ENTRIES", "ZOO_TARGETS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


def write_tokenizer(folder: Path) -> int:
    """A byte-level BPE tokenizer in which A, B and tie are single tokens; its vocabulary size."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = ["A B tie who wins prompt the answer is capital of what and because it", "What is the opposite of hot? cold"] * 20
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<pad>", "<|user|>", "<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens([AddedToken("tie", normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return int(tokenizer.get_vocab_size())


def write_tiny_llama(folder: Path, *, seed: int = 0, **config: object) -> Path:
    """A two-layer Llama of random weights as an ordinary model folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = -(-write_tokenizer(folder) // 64) * 64
    shape = {
        "vocab_size": vocabulary,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**{**shape, **config})).to(torch.bfloat16)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|end|>", pad_token="<pad>"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def no_silent_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prediction's watchdog ends its process. In the process of the tests it must fail a test instead of ending them all.

    The prediction goes on past its budget, which the tests that call it check.
    """
    monkeypatch.setattr("ensemble.predict.deadline.end_process", lambda code: None)


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
def make_tiny_llama() -> Callable[..., Path]:
    """The builder itself, for tests that need another shape."""
    return write_tiny_llama


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Llama with tokenizer."""
    return write_tiny_llama(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def sample_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 240 generated battles, their true probabilities beside it."""
    from zoo.data.sample import write_sample

    path = tmp_path_factory.mktemp("data") / "battles.csv"
    write_sample(path, 240, 7)
    return path
