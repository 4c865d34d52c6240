"""Which backend quantizes an architecture: the table, and AutoAWQ's own list."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import get_args

import pytest

from zoo.checks.quantizers import BACKEND_ARCHITECTURES, quantizer_of
from zoo.contracts import Quantizer

KINDS = {"DeepseekV2": "deepseek_v2", "DeepseekV3": "deepseek_v3", "GPTBigCode": "gpt_bigcode", "GPTNeoX": "gpt_neox"}
KINDS |= {"Qwen3Moe": "qwen3_moe"}  # model types that are not the architecture's name in lower case


def test_every_backend_has_its_architectures() -> None:
    assert set(BACKEND_ARCHITECTURES) == set(get_args(Quantizer)) and all(BACKEND_ARCHITECTURES.values())


def test_the_preferred_backend_is_taken_where_it_can() -> None:
    assert quantizer_of("LlamaForCausalLM") == "autoawq"
    assert quantizer_of("LlamaForCausalLM", "llm-compressor") == "llm-compressor"
    assert quantizer_of("Gemma3ForCausalLM") == quantizer_of("Gemma3ForCausalLM", "llm-compressor") == "llm-compressor"
    assert quantizer_of("GemmaForCausalLM", "llm-compressor") == "autoawq"
    assert quantizer_of("Gemma3ForCausalLM", "auto-round") == "auto-round"
    assert quantizer_of("MambaForCausalLM") is None


def test_autoawq_has_a_class_for_each_of_its_architectures() -> None:
    package = importlib.util.find_spec("awq")
    if package is None or package.origin is None:
        pytest.skip("autoawq is not installed")
    table = (Path(package.origin).parent / "models/auto.py").read_text()  # read, not imported: that takes seconds
    known = set(re.findall(r'^    "(\w+)":', table, re.MULTILINE))
    names = [name.removesuffix("ForCausalLM") for name in BACKEND_ARCHITECTURES["autoawq"]]
    assert [name for name in names if KINDS.get(name, name.lower()) not in known] == []
