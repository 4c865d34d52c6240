"""The label head: logits of the labels alone, those of the full vocabulary."""

from __future__ import annotations

from pathlib import Path

import torch

from zoo.stages.train import label_head as labels


def test_label_logits_are_those_of_the_full_head(tiny_llama: Path) -> None:
    """Oracle: transformers' own full-vocabulary logits, one row at a time, without padding."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    rows = [[5, 6, 7], [9, 3, 4, 8, 20, 11], [30]]
    ids, mask = labels.pad(rows, "cpu")
    with torch.no_grad():
        ours = labels.label_logits(model, ids, mask, (3, 4, 5))
        full = torch.stack([model(torch.tensor([row])).logits[0, -1, [3, 4, 5]] for row in rows])
    assert torch.allclose(ours, full, atol=1e-5)
