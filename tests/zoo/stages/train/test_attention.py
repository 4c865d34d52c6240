"""What is trained is what is served: an attention soft-cap is applied in training as it is in vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zoo.contracts import TrainSpec
from zoo.stages.device import attention_options
from zoo.stages.train import attention
from zoo.stages.train.adapters import load_base


@pytest.mark.parametrize("cap", [0.05, None])
def test_a_gemma_2_is_trained_with_the_soft_cap_of_its_attention(tmp_path: Path, cap: float | None, place: str) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    shape = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "query_pre_attn_scalar": 1}
    model = Gemma2ForCausalLM(Gemma2Config(**shape, **heads, attn_logit_softcapping=cap)).eval()
    model.save_pretrained(tmp_path)
    model, ids = model.to(place), torch.randint(0, 64, (1, 20)).to(place)
    model.set_attn_implementation("eager")  # the plain formula, cap and all
    with torch.no_grad():
        expected = model(ids).logits
        loaded = load_base(tmp_path, TrainSpec(method="full")).eval()
        torch.testing.assert_close(loaded(ids).logits, expected, atol=1e-4, rtol=0)
        if cap:
            model.set_attn_implementation("sdpa")
            assert (model(ids).logits - expected).abs().max() > 1e-3, "torch's kernel knows the cap now: use it"
    assert (loaded.config._attn_implementation == attention.SOFTCAPPED) == bool(cap)
    assert bool(attention_options(tmp_path)) == bool(cap)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scores", [2**23, 5 * 2 * 19 * 19, 1])  # all at once; two rows; one head of keys of a row
def test_soft_capped_attention_in_blocks_is_transformers_own(
    scores: int, dtype: torch.dtype, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: eager attention, outputs and the gradient of the input, with heads that share keys and a sliding window."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    monkeypatch.setattr(attention, "SCORE_BLOCK", scores)
    torch.manual_seed(0)
    shape = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "query_pre_attn_scalar": 1, "sliding_window": 6}
    config = Gemma2Config(**shape, **heads, attn_logit_softcapping=0.7)
    model = Gemma2ForCausalLM(config).to(dtype).to(place).requires_grad_(False)
    inputs = torch.randn(3, 19, 64, device=place).to(dtype).requires_grad_()
    direction, found = torch.randn(3, 19, 64, device=place), []
    for options in ({"attn_implementation": "eager"}, attention.training_attention(config)):
        model.set_attn_implementation(options["attn_implementation"])
        out = model.model(inputs_embeds=inputs).last_hidden_state
        found.append((out, *torch.autograd.grad((out.float() * direction).sum(), inputs)))
    near = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}[dtype]
    for ours, expected in zip(*reversed(found), strict=True):
        assert (ours - expected).norm() <= near * expected.norm()


def test_soft_capped_attention_keeps_no_scores() -> None:
    tokens, saved = 200, []
    q = torch.randn(1, 4, tokens, 8, requires_grad=True)
    k, v = (torch.randn(1, 2, tokens, 8) for _ in range(2))
    mask = torch.zeros(1, 1, tokens, tokens)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        attention.softcapped_attention(torch.nn.Module(), q, k, v, mask, scaling=1.0, softcap=2.0)
    assert sum(t.numel() for t in saved if t is not mask) == 2 * q.numel() + k.numel() + v.numel()
