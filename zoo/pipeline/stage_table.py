"""The table of stages: which function runs each, and what its artifacts are; add one here.

A function is named by text, since looking one up must load nothing: `zoo.stages` is the only place for torch and its kin. What
a stage is asked is a type of `zoo.contracts.Request`, told by the same name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One stage, and what is true of every artifact of it.

    `function`: `module:name` of its `run(request, out_dir) -> StageResult`; empty where nothing runs. `section`: the entry's
    table that its `spec` is; `data`: what its battles are to it; `leaves`: the kind of model it makes; `scores`: it writes
    score tables, so that its artifacts hold members; `on_gpus`: it takes the machine's GPUs where there are any.
    """

    function: str = ""
    section: str = ""
    data: str = "evaluation"
    leaves: str = ""
    scores: bool = False
    on_gpus: bool = False


STAGES = {  # in the order in which they run
    "mine": Stage("zoo.stages.data.mine:run"),
    "fetch": Stage("zoo.stages.weights.fetch:run"),
    "prompts": Stage("zoo.stages.data.prompts:run"),
    "generate": Stage("zoo.stages.generate.stage:run", on_gpus=True),
    "train": Stage("zoo.stages.train.stage:run", section="train", data="training", leaves="adapter", on_gpus=True),
    "adopt": Stage("zoo.stages.weights.adopt:run", leaves="adopted"),
    "merge": Stage("zoo.stages.weights.merge:run", section="merge", leaves="merged", on_gpus=True),
    "quantize": Stage("zoo.stages.quantize.stage:run", section="quantize", data="calibration", leaves="awq", on_gpus=True),
    "score": Stage("zoo.stages.score.stage:run", section="score", scores=True, on_gpus=True),
    "ladder": Stage("zoo.stages.compare.ladder:run", on_gpus=True),
    "caps": Stage("zoo.stages.compare.caps:run"),
    "evaluate": Stage("zoo.stages.compare.evaluate:run", on_gpus=True),
    "lexical-train": Stage("zoo.stages.lexical.stage:train", section="lexical", data="training", leaves="lexical"),
    "lexical-score": Stage("zoo.stages.lexical.stage:score", scores=True),
    "judge": Stage("zoo.stages.data.judge:run"),
    "label": Stage("zoo.stages.data.label:run"),
    "import": Stage(scores=True),  # not run: `zoo import` puts a table that was made elsewhere into the store
}
SCORING = tuple(name for name, stage in STAGES.items() if stage.scores)


def stage_of(name: str) -> Stage:
    """The stage of that name, as a manifest has it; a blank one where this version has none."""
    return STAGES.get(name, Stage())
