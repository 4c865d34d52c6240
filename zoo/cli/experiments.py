"""`zoo experiment`: every run of a recipe, and how they compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import RunnerName
from zoo.cli.base import AsJson, Output, say, style_of
from zoo.cli.installed import check_installed
from zoo.cli.tracking import leaderboard
from zoo.report.text import Format, as_text, show


def experiment(
    folder: Annotated[Path, typer.Argument(help="Folder of the experiment, e.g. experiments/001-human-preferences.")],
    data_dir: Annotated[Path, typer.Option("--data-dir", help="Folder that holds the recipe's data file.")] = Path(),
    only: Annotated[list[str] | None, typer.Option("--only", help="Run by this name alone. Repeatable.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs at a time; they share the GPUs by what each needs.")] = 1,
    runner: RunnerName = None,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Run every entry of an experiment's recipe.toml to its scores, then print the leaderboard.

    With `until = "train"` in the recipe: train every run, evaluate it in transformers, and print and plot them side by side.

    Example: zoo experiment experiments/001-human-preferences --data-dir path/to/data

    Example: zoo experiment experiments/002-folds-and-votes --data-dir path/to/data --jobs 4

    Example: zoo experiment experiments/002-folds-and-votes --data-dir path/to/data --runner ray
    """
    from zoo.errors import ZooError
    from zoo.experiments.recipes import load_recipe, run_recipe
    from zoo.pipeline.runners.chosen import current_runner
    from zoo.pipeline.runners.session import running_on
    from zoo.settings import home, store_folder

    check_installed()
    style = style_of(output, as_json)
    if load_recipe(folder).until == "score":
        if only:
            raise ZooError(f"{folder}: --only is for recipes with until = 'train'; `zoo run ENTRY` takes one entry")
        if jobs != 1:
            raise ZooError(
                f"{folder}: --jobs is for recipes with until = 'train': scoring measures what a member costs on the whole "
                "target, and runs beside it would make that false; leave --jobs out, or set until = 'train'"
            )
        with running_on(runner, store_folder(), say):
            run_recipe(folder, data_dir, store_folder(), say=say)
        leaderboard(output=style)
        return
    from zoo.experiments.overlaps import overlaps
    from zoo.experiments.side_by_side import run_side_by_side
    from zoo.experiments.trials import run_trials, trials_figure, trials_table
    from zoo.report.drawing import png
    from zoo.store import write_atomic

    results = home() / "experiments" / folder.resolve().name
    if not only:
        for line in overlaps(load_recipe(folder), data_dir):
            say(line)
    with running_on(runner, store_folder(), say):
        if jobs > 1 and (there := current_runner()) != "local":
            raise ZooError(f"--jobs {jobs}: with --runner {there} each host takes runs as it has room; leave --jobs out")
        if jobs > 1:
            run_side_by_side(folder, data_dir, jobs, store_folder(), logs=results / "logs", only=only or (), say=say)
        trials = run_trials(folder, data_dir, store_folder(), only=only or (), say=say)
    table = trials_table(trials)
    written: list[str] = []
    if not only:
        results.mkdir(parents=True, exist_ok=True)
        write_atomic(results / "results.md", as_text(table, Format.markdown) + "\n")
        write_atomic(results / "results.png", png(trials_figure(trials)))
        written = [str(results / "results.md"), str(results / "results.png")]
    show([table, *written], style)
