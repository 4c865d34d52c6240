"""`zoo lineage`: what an artifact, a member or a made file was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.base import AsJson, Output, style_of
from zoo.report.text import Format, show

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Members, fingerprints, artifacts, or files made here.")]


def lineage(names: Names, output: Output = Format.table, as_json: AsJson = False) -> None:
    """All that something was made from: prompts, answers, pairs, judges, labels, trainings.

    Files are followed by their content: which artifact wrote a file is known wherever it lies now, and also when the artifact
    was removed.

    Example: zoo lineage smollm2-135m@ab

    Example: zoo lineage labelled.csv.gz
    """
    from zoo.pipeline.lineage import lineage_of
    from zoo.report.lineage import lineage_page, lineage_record
    from zoo.settings import store_folder

    style = style_of(output, as_json)
    found = [each for name in names for each in lineage_of(store_folder(), name, Path(name))]
    show(lineage_page(found), style, data=[lineage_record(each) for each in found])
