"""The stages and their table: `run(request, out_dir)` each, in a process of its own.

This package is the only place for torch, transformers, peft, bitsandbytes, awq, vllm and fitted scikit-learn models. The table
below says where each stage's function is, as an import string, so that looking one up loads nothing; what a stage is asked is
the request of that `stage` in `zoo.contracts.requests`.
"""

from __future__ import annotations

STAGES: dict[str, str] = {
    "fetch": "zoo.stages.weights.fetch:run",
    "train": "zoo.stages.train.stage:run",
    "merge": "zoo.stages.weights.merge:run",
    "quantize": "zoo.stages.quantize.stage:run",
    "score": "zoo.stages.score.stage:run",
    "ladder": "zoo.stages.compare.ladder:run",
    "evaluate": "zoo.stages.compare.evaluate:run",
    "lexical-train": "zoo.stages.lexical.stage:train",
    "lexical-score": "zoo.stages.lexical.stage:score",
}
