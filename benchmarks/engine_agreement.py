"""vLLM's probabilities of a score artifact against its checkpoint's dequantized weights in transformers at float32.

    python benchmarks/engine_agreement.py mlruns/store/score-FINGERPRINT [ROWS]

Prints the largest and the mean difference of a probability for each variant, over the first ROWS (100) rows.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from zoo.contracts import ScoreRequest
from zoo.data.battles import read_battles
from zoo.models.prompts import encode_battles, load_codec
from zoo.scores.tables import label_probabilities, probabilities, read_scores
from zoo.stages.device import attention_options
from zoo.stages.quantize.awq_format import write_dequantized
from zoo.stages.train.classifier import class_of
from zoo.stages.train.label_head import label_logits, pad
from zoo.store import read_manifest


def main(artifact: Path, rows: int) -> None:
    request = ScoreRequest.model_validate(read_manifest(artifact).request)
    folder = request.model.path / "model"
    codec = load_codec(folder, request.prompt)
    frame = read_battles(request.battles.path).frame.set_index("id", drop=False)
    with tempfile.TemporaryDirectory() as plain:
        write_dequantized(folder, Path(plain))
        model = class_of(Path(plain)).from_pretrained(plain, dtype=torch.float32, **attention_options(plain)).eval()
    for variant in request.spec.variants:
        table = read_scores(artifact / variant.slug / "scores.parquet").head(rows)
        chosen = frame.loc[table["id"]]
        turns = list(zip(chosen["prompt"], chosen["response_a"], chosen["response_b"], strict=True))
        encoded = encode_battles(turns, codec, request.prompt, variant.order, variant.max_tokens)
        with torch.no_grad():
            logits = torch.cat([label_logits(model, *pad([e.ids], "cpu"), codec.label_ids) for e in encoded]).numpy()
        difference = np.abs(label_probabilities(logits, variant.order) - probabilities(table))
        print(f"{variant.slug}: {len(table)} rows, largest difference {difference.max():.5f}, mean {difference.mean():.6f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100)
