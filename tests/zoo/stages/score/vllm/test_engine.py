"""What vLLM is asked for: its cache, its batches, its cores. No engine runs."""

from __future__ import annotations

import os
from unittest import mock

import pytest

from zoo.contracts import ScoreSpec, ServeSpec, Variant
from zoo.stages.score.vllm.engine import batch_tokens, cache_bytes, prepare_environment

CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}


def test_a_split_copy_holds_its_share_of_the_cache_on_each_card() -> None:
    spec = ScoreSpec(variants=(Variant(max_tokens=100),), max_batched_tokens=1000, max_seqs=4)
    whole = cache_bytes(CONFIG, spec, ServeSpec(), gpus=1, on_gpu=True)
    token = 2 * 4 * 2 * 16 * 2  # keys and values, layers, heads, head size, bytes
    assert whole == (1000 + 4 * 16 + 101) * token
    assert cache_bytes(CONFIG, spec, ServeSpec(layout="tensor"), gpus=2, on_gpu=True) == whole // 2
    assert cache_bytes(CONFIG, spec, ServeSpec(layout="pipeline"), gpus=2, on_gpu=True) > whole // 2  # two batches in flight
    assert cache_bytes(CONFIG, spec, ServeSpec(dtype="float32"), gpus=1, on_gpu=True) == 2 * whole
    assert batch_tokens(ScoreSpec(variants=(Variant(max_tokens=9000),))) == 9001


@pytest.mark.parametrize(("cores", "bound"), [({7, 0}, "0,7"), ({3}, "nobind")])
def test_an_engine_is_bound_to_the_cores_it_may_use_and_no_others(
    cores: set[int], bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    with mock.patch.dict(os.environ):
        os.environ.pop("VLLM_CPU_OMP_THREADS_BIND", None)
        prepare_environment(eager=False)
        assert os.environ["VLLM_CPU_OMP_THREADS_BIND"] == bound
