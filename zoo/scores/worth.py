"""What sources of training data were worth, as it is kept."""

from __future__ import annotations

from zoo.contracts import Contract
from zoo.scores.gains import Gain

HELD_OUT, ALL, CHOOSE, REPORT = "held out", "all", "half to choose by", "other half"
ALONE, BESIDE, EVERY = "alone", "beside the others", "all at once"


class Area(Contract):
    """Rows that a gain is measured on.

    `data`: the file; `part`: held-out rows of the main file, or of another file all rows or one of two halves of its prompts.
    """

    data: str
    part: str

    @property
    def title(self) -> str:
        return f"{self.data}, {self.part}"


class Contrast(Contract):
    """One comparison on one area: the main file with a source against without it.

    `kind`: the source alone beside the main file; added last to all the others; or all sources at once. `rows`: of the source
    that a training learns and that no other source of it has, the mean over folds. `log_loss`: the raw one without and with it.
    """

    entry: str
    source: str
    kind: str
    area: Area
    rows: float
    log_loss: tuple[float, float]
    raw: Gain
    recalibrated: Gain


class CurvePoint(Contract):
    """What so many rows of a source gain on an area, over none."""

    entry: str
    source: str
    area: Area
    rows: int
    raw: Gain
    recalibrated: Gain


class Drowned(Contract):
    """From how many rows on more rows of a source are not told from noise.

    `at` None: the most still gain.
    """

    entry: str
    source: str
    area: Area
    at: int | None


class SourceFacts(Contract):
    """What a source is, and what could be learned of it.

    `learned`: rows by held-out fold. `empty`: why it was not trained on. `gpu_seconds`: of making the whole file.
    """

    name: str
    file: str
    weight: float
    soft: bool
    labelled: int
    learned: dict[int, int]
    left_out: dict[str, int]
    empty: str = ""
    gpu_seconds: float | None = None


class WorthReport(Contract):
    """All that a recipe of worth found.

    `trainings`: that it rests on; `without_chance`: entries whose training has no seed, so that their errors are of the
    held-out prompts alone, and for the curve of the rows that seeds drew; `known_beforehand`: other files whose prompts the
    main file has, too.
    """

    question: str
    data: str
    target: str
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    trainings: int
    without_chance: tuple[str, ...]
    sources: tuple[SourceFacts, ...]
    contrasts: tuple[Contrast, ...]
    curve: tuple[CurvePoint, ...]
    drowned: tuple[Drowned, ...]
    known_beforehand: tuple[str, ...] = ()
