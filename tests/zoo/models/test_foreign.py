"""Checkpoints' own accounts of their weights, with every key that other libraries write (quantization_configs.json).

The configs are those of benchmarks/elsewhere.py, as autoawq 0.2.9, llm-compressor 0.14.0.1 and GPTQModel 7.7.0 left them.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.tiny_models import write_tiny_llama
from zoo.errors import ZooError
from zoo.models.foreign import read_checkpoint

CONFIGS = json.loads(Path(__file__).with_name("quantization_configs.json").read_text())
READ = {
    "autoawq-awq": ("awq", 32),
    "gptqmodel-awq": ("awq", 32),
    "llm-compressor-awq": ("w4a16", 32),
    "llm-compressor-gptq": ("w4a16", 32),
    "llm-compressor-gptq-int8": ("int8", None),
    "llm-compressor-fp8": ("fp8", None),
}
REFUSED = {
    "llm-compressor-w8a16": r"compressed-tensors of 8 bits \(int\)",
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("plain") / "model")


def quantized(plain: Path, name: str) -> Path:
    path = plain / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": CONFIGS[name]}))
    return plain


def test_every_config_is_looked_at() -> None:
    assert CONFIGS.keys() == READ.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", READ)
def test_what_other_libraries_write_is_read(plain: Path, name: str) -> None:
    facts = read_checkpoint(quantized(plain, name))
    assert (facts.quantized, facts.group_size) == READ[name]


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_engine_does_not_serve_is_one_line(plain: Path, name: str) -> None:
    with pytest.raises(ZooError, match=REFUSED[name]):
        read_checkpoint(quantized(plain, name))
