"""`zoo tune`: better settings of training, judged where they were not chosen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.app import Data, Fold, FoldRule, Name, Settings, Source
from zoo.cli.base import AsJson, Output, say, style_of
from zoo.cli.installed import check_installed
from zoo.errors import ZooError
from zoo.experiments.held import N_FOLDS, held_of
from zoo.report.text import Format, show

if TYPE_CHECKING:
    from zoo.scores.tuned import TuneReport


def tune(
    name: Name,
    data: Data,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Trials in all, those of earlier runs counted.")] = 20,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="TIME", help="Wall clock for trainings, earlier runs counted: 6h, 90m.")
    ] = None,
    space: Annotated[
        Path | None, typer.Option("--space", metavar="FILE", help="TOML file of settings to draw, and from where to where.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option("--rows", min=1, help="Train on at most this many battles, a seeded sample (train.max_rows).")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Trainings at a time; they share the GPUs. Default: one a GPU.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of what is drawn; trainings have the entry's.")] = 0,
    write: Annotated[
        bool, typer.Option("--write", help="Write the best settings into the entry, where they judge better.")
    ] = False,
    fold: Fold = None,
    folds: Annotated[int, typer.Option("--folds", min=2, help="How many folds the prompts are dealt into.")] = N_FOLDS,
    fold_rule: FoldRule = None,
    settings: Settings = None,
    source: Source = None,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Find better training settings for an entry: trials by Optuna, the worse ones ended early.

    The first trial is the entry as it is. Each trains on the same rows and is compared on a part of the held-out fold; one that
    is above the median of the others at the same share of its training is pruned. The best is then judged against the entry's
    own settings on other prompts of the fold, since the best of many looks better than it is where it was chosen.

    Without --space the learning rate, epochs, rank, alpha / rank, dropout, warm-up, label smoothing and weight decay are drawn
    around the entry's own. A space names keys of the entry's [train] (and alpha_ratio):

    learning_rate = { low = 1e-4, high = 2e-3, log = true }

    rank = { choices = [8, 16, 32] }

    The same command goes on after a kill, and with more --trials or --budget; no equal settings are trained twice. Adapters of
    losing trials are removed. With ZOO_STUDY_STORAGE, a file on a shared folder or postgresql://user@host/database, the
    command may run on several hosts at once: each trial is done by one of them.

    Example: zoo tune smollm2-135m --data battles.csv --trials 12

    Example: zoo tune llama-3-8b --data battles.csv --budget 6h --rows 4000 --space space.toml --write
    """
    from zoo.entries.load import load_entry, override
    from zoo.experiments.tune import TuneOptions, load_space
    from zoo.experiments.tune import tune as run_study
    from zoo.report.duration import parse_budget
    from zoo.report.tuned import tune_page
    from zoo.settings import store_folder

    if write and settings:
        raise ZooError(
            "--write: the entry's file has not what --set changes; write that into it first, or leave one of them out"
        )
    style = style_of(output, as_json)
    plain = override(load_entry(name), settings or [])
    entry = override(plain, [f"train.max_rows={rows}"]) if rows and plain.train else plain
    seconds = None if budget is None else parse_budget(budget)
    drawn = load_space(space, entry) if space else None
    check_installed()
    held = held_of(fold, folds, fold_rule, data, say=say)
    options = TuneOptions(data, held, trials, seconds, drawn, jobs, seed, source)
    report = run_study(entry, options, store_folder(), say=say)
    notes, record = _left(report, name, data, settings or []), report.model_dump(mode="json")
    if write:
        notes += ["", _write(report, name)]
    show(tune_page(report, notes), style, data=record)


def _left(report: TuneReport, name: str, data: Path, given: Sequence[str]) -> list[str]:
    """Write the study's page, pictures and numbers, and log it.

    What to do next, and where they are.
    """
    from zoo.experiments.study import dashboard
    from zoo.experiments.tune import results_folder
    from zoo.report.drawing import png
    from zoo.report.text import Format, as_text
    from zoo.report.tuned import pictures, run_command, tune_html, tune_page
    from zoo.store import write_atomic
    from zoo.tracking.sync import log_tuned

    folder = results_folder(report)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = pictures(report)
    for file, one in drawn.items():
        write_atomic(folder / file, png(one.figure))
    write_atomic(folder / "tune.html", tune_html(report, drawn))
    write_atomic(folder / "tune.md", as_text(tune_page(report, []), Format.markdown) + "\n")
    write_atomic(folder / "tune.json", report.model_dump_json(indent=1))
    log_tuned(folder)
    better = report.winner.settings if report.is_better else {}
    use = [f"to use them: {run_command(name, data, given, better)}", ""] if better else []
    return [*use, str(folder / "tune.html"), f"in a browser: {dashboard(report.storage)}"]


def _write(report: TuneReport, name: str) -> str:
    """Write the best settings into the entry; what was done.

    Only where they are better on rows that chose nothing.
    """
    from zoo.entries.tuned import write_training

    if not report.is_better:
        return "nothing written: no other settings were better than the entry's on rows that chose nothing"
    path = write_training(name, report.winner.settings)
    return f"{path}: {', '.join(report.winner.settings)} written into [train]"
