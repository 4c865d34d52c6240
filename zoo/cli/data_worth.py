"""`zoo data worth`: what sources of training data gain, with errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.base import AsJson, Output, say, style_of
from zoo.cli.installed import check_installed
from zoo.report.text import Format, as_text, show


def worth(
    recipe: Annotated[Path, typer.Argument(help="Folder of the recipe, e.g. experiments/006-worth-of-sources.")],
    data_dir: Annotated[Path, typer.Option("--data-dir", help="Folder that holds the recipe's files.")] = Path(),
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Trainings at a time; they share the GPUs.")] = 1,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Train with and without each source of battles, and say what it gains.

    The recipe.toml names the main file (data), the entries, at least three seeds, the sources ([[sources]] name, file, weight),
    other battles to evaluate on (also_on), and the rows of a curve (rows = [1000, 2000, 4000]). Every source is added alone to
    the main file, and last to all the others.

    Gains are of log loss, paired by row and seed, with errors by prompt and seed: on the held-out fold and on the other files,
    raw and recalibrated on other prompts. Rows near what is held out anywhere are learned by no training.

    Trainings are stages: what is in the store is not trained again, and the same command goes on after a kill.

    Example: zoo data worth experiments/006-worth-of-sources --data-dir path/to/data

    Example: zoo data worth experiments/006-worth-of-sources --data-dir path/to/data --jobs 4
    """
    from zoo.experiments.worth import measure_worth
    from zoo.report.drawing import png
    from zoo.report.worth import contrasts_table, curve_figure, curve_table, leaderboard_table, worth_figure, worth_page
    from zoo.settings import home, store_folder
    from zoo.store import write_atomic

    check_installed()
    style = style_of(output, as_json)
    results = home() / "experiments" / recipe.resolve().name
    report = measure_worth(recipe, data_dir, store_folder(), results=results, jobs=jobs, say=say)
    blocks = [leaderboard_table(report), contrasts_table(report), *([curve_table(report)] if report.curve else [])]
    write_atomic(results / "worth.json", report.model_dump_json(indent=1))
    write_atomic(results / "worth.md", "\n\n".join(as_text(block, Format.markdown) for block in blocks) + "\n")
    write_atomic(results / "worth.png", png(worth_figure(report)))
    written = [str(results / name) for name in ("worth.json", "worth.md", "worth.png")]
    if report.drowned:
        write_atomic(results / "curve.png", png(curve_figure(report)))
        written.append(str(results / "curve.png"))
    show(worth_page(report, written), style, data=report.model_dump(mode="json"))
