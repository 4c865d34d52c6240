"""What runs are told of made data: the files that a stage read, and the chain behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from zoo.contracts import Manifest
from zoo.scores.metric_names import MADE_ROWS
from zoo.store import Artifact, Made, lineage, made_files
from zoo.tracking.facts import Data

MAKES_DATA = ("prompts", "generate", "mine", "judge", "label")  # stages whose rows are learned from
# Inputs that hold models, and those that `data_of` names.
MODELS = ("base", "model", "adapter", "more_adapters", "start", "trained", "merged", "quantized", "folder")
NO_DATA = (*MODELS, "battles", "prompts")
ROWS_MADE = ("generate/rows", MADE_ROWS)


def lineage_of_made(manifest: Manifest, folder: Path) -> Made | None:
    """What a stage was made from, where made data are among it or it makes such data.

    None elsewhere.
    """
    found = lineage(folder.parent, Artifact(folder, manifest))
    return found if any(made.stage in MAKES_DATA for made in made_files(found)) else None


def made_inputs(made: Made) -> Iterator[tuple[str, Data]]:
    """The files that a stage itself read, beside the battles of `data_of`.

    What each is to it, and who wrote it.
    """
    for given in made.given:
        if given.what.split(" ")[0] not in NO_DATA and given.file:
            writers = [writer for writer in given.made_by if writer.artifact]
            rows = [writer.artifact.manifest.metrics.get(name) for writer in writers if writer.artifact for name in ROWS_MADE]
            known = [int(count) for count in rows if count is not None]
            names = tuple(writer.name for writer in given.made_by)
            yield given.what, Data(given.digest, given.file, names, sum(known) if known else None)
