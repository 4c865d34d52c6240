"""What is trained is what is served: an attention soft-cap is applied in training as it is in vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zoo.contracts import TrainSpec
from zoo.stages.device import attention_options
from zoo.stages.train.adapters import load_base


@pytest.mark.parametrize("cap", [0.05, None])
def test_a_gemma_2_is_trained_with_the_soft_cap_of_its_attention(tmp_path: Path, cap: float | None):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    shape = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "query_pre_attn_scalar": 1}
    model = Gemma2ForCausalLM(Gemma2Config(**shape, **heads, attn_logit_softcapping=cap)).eval()
    model.save_pretrained(tmp_path)
    ids = torch.randint(0, 64, (1, 20))
    model.set_attn_implementation("eager")  # the plain formula, cap and all
    with torch.no_grad():
        expected = model(ids).logits
        loaded = load_base(tmp_path, TrainSpec(method="full")).eval()
        torch.testing.assert_close(loaded(ids).logits, expected, atol=1e-4, rtol=0)
        if cap:
            model.set_attn_implementation("sdpa")
            assert (model(ids).logits - expected).abs().max() > 1e-3, "torch's kernel knows the cap now: use it"
    assert bool(attention_options(tmp_path)) == bool(cap)
