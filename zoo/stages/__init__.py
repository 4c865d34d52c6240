"""The stages: one function `run(request, out_dir) -> StageResult` a file, each in a process of its own.

This package is the only place for torch, transformers, peft, bitsandbytes, awq, vllm and fitted scikit-learn models. The table
below is all there is to registering a stage; values are import strings, so that looking one up loads nothing.
"""

from __future__ import annotations

from zoo.contracts import (
    EvaluateRequest,
    FetchRequest,
    LadderRequest,
    LexicalScoreRequest,
    LexicalTrainRequest,
    MergeRequest,
    QuantizeRequest,
    Request,
    ScoreRequest,
    TrainRequest,
)

STAGES: dict[str, tuple[str, type[Request]]] = {
    "fetch": ("zoo.stages.weights.fetch:run", FetchRequest),
    "train": ("zoo.stages.train.stage:run", TrainRequest),
    "merge": ("zoo.stages.weights.merge:run", MergeRequest),
    "quantize": ("zoo.stages.quantize.stage:run", QuantizeRequest),
    "score": ("zoo.stages.score.stage:run", ScoreRequest),
    "ladder": ("zoo.stages.compare.ladder:run", LadderRequest),
    "evaluate": ("zoo.stages.compare.evaluate:run", EvaluateRequest),
    "lexical-train": ("zoo.stages.lexical.stage:train", LexicalTrainRequest),
    "lexical-score": ("zoo.stages.lexical.stage:score", LexicalScoreRequest),
}
