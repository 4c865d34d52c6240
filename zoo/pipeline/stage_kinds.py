"""The kinds of stages: which section of an entry each follows, and what it leaves.

Which function runs a stage stands in `zoo/stages/__init__.py`; a test holds the two tables to the same names.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageKind:
    """What is true of every artifact of one stage.

    `section`: the entry's table that its `spec` is; `data`: what its battles are to it; `leaves`: the kind of model it makes;
    `scores`: it writes score tables, so that its artifacts hold members.
    """

    section: str = ""
    data: str = "evaluation"
    leaves: str = ""
    scores: bool = False


KINDS = {  # in the order in which they run
    "fetch": StageKind(),
    "train": StageKind(section="train", data="training", leaves="adapter"),
    "merge": StageKind(section="merge", leaves="merged"),
    "quantize": StageKind(section="quantize", data="calibration", leaves="awq"),
    "score": StageKind(section="score", scores=True),
    "ladder": StageKind(),
    "evaluate": StageKind(),
    "lexical-train": StageKind(section="lexical", data="training", leaves="lexical"),
    "lexical-score": StageKind(scores=True),
    "import": StageKind(scores=True),  # not run: `zoo import` puts a table that was made elsewhere into the store
}
SCORING = tuple(name for name, kind in KINDS.items() if kind.scores)


def kind_of(stage: str) -> StageKind:
    """The kind of a stage, by the name in its manifest.

    Of one that this version does not know, nothing is said.
    """
    return KINDS.get(stage, StageKind())
