"""`zoo`: from battles to scored, quantized, tracked models. Each command is one short call of the library."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli_base import DEBUG, new_app, run_app, say
from zoo.cost_cli import cost
from zoo.data_cli import data_app
from zoo.errors import ZooError
from zoo.ladder_cli import climb, ladder
from zoo.target_cli import target_app

if TYPE_CHECKING:
    from zoo.contracts import Entry, Request

app = new_app(
    "A model zoo for preference prediction: train, merge, quantize and score models that say which of two answers wins.\n\n"
    "A first run:  zoo data sample battles.csv --rows 400;  zoo run lexical --data battles.csv;  zoo leaderboard"
)
app.add_typer(data_app, name="data")
app.add_typer(target_app, name="target")
app.command("cost")(cost)
app.command("ladder")(ladder)


class Format(StrEnum):
    """How a table is written."""

    table = "table"
    markdown = "markdown"
    json = "json"


Name = Annotated[str, typer.Argument(help="Entry, one of `zoo list`.")]
Data = Annotated[Path, typer.Option("--data", help="CSV of labelled battles in the competition's columns.")]
TargetName = Annotated[str, typer.Option("--target", help="Machine that serves, one of `zoo target list`.")]
Fold = Annotated[int | None, typer.Option("--fold", min=0, help="Fold that is held out; folds go by prompt. Default: 0.")]
Folds = Annotated[
    int | None, typer.Option("--folds", min=2, help="How many folds the prompts are dealt into (5); without --fold: run all.")
]
Average = Annotated[
    bool, typer.Option("--average", help="With --folds: then one checkpoint of all folds' averaged adapters, for serving.")
]
MaxRows = Annotated[int | None, typer.Option("--score-rows", min=1, help="Score at most this many held-out rows.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Change a setting of the entry: train.epochs=2. Repeatable.")]
Source = Annotated[str | None, typer.Option("--source", help="Where weights come from: hub, package, or a model folder.")]
Emulated = Annotated[
    str | None,
    typer.Option("--as", help="Score within a smaller target's memory, with its kernels: t4x2. Its speed is not measured."),
]


@app.command("list")
def list_(output: Annotated[Format, typer.Option("--format", help="table, markdown or json.")] = Format.table) -> None:
    """Entries of the zoo, and which of their stages are in the store."""
    from zoo.views import entries_table

    typer.echo(entries_table(output.value))


@app.command()
def show(name: Name) -> None:
    """An entry's settings, every default filled in, as TOML."""
    from zoo.entries_io import load_entry
    from zoo.views import entry_toml

    typer.echo(entry_toml(load_entry(name)))


@app.command()
def check(
    name: Name,
    target: TargetName = "t4x2",
    train: Annotated[bool, typer.Option("--train", help="Check training on one of its cards, too.")] = False,
    engine: Annotated[str | None, typer.Option("--engine", help="Version of vLLM there; default: the one here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False,
) -> None:
    """Whether an entry can serve on a target, what does not hold, and the mend. Exit code 1 if anything fails."""
    from zoo.checks import check_entry
    from zoo.entries_io import load_entry
    from zoo.pipeline import fetched_folder, store_folder
    from zoo.targets import load_target
    from zoo.views import findings_table

    entry = load_entry(name)
    folder = fetched_folder(entry, store_folder())
    findings = check_entry(entry, load_target(target), model_folder=folder, train=train, engine=engine)
    typer.echo(json.dumps([f.model_dump() for f in findings], indent=1) if as_json else findings_table(findings))
    if any(f.verdict == "fail" for f in findings):
        raise typer.Exit(1)


@app.command()
def fetch(name: Name, source: Source = None) -> None:
    """Get an entry's base weights into the store: from the hub, from a package of the Python index, or from a folder."""
    from zoo.entries_io import load_entry
    from zoo.pipeline import fetch_request, run_chain, store_folder

    entry, store = load_entry(name), store_folder()
    artifact = run_chain([fetch_request(entry, store, source=source)], entry, store, say=say)[-1]
    typer.echo(artifact.path / "model")


def _run(last: str, name: str, data: Path, target: str, fold: int | None, folds: int | None, **options: Any) -> None:
    from zoo.contracts import Held, Selection
    from zoo.entries_io import load_entry
    from zoo.folds import fold_chains
    from zoo.pipeline import battles_input, chain, emulating, override, run_chain, store_folder
    from zoo.views import metrics_lines

    entry, store = override(load_entry(name), list(options["settings"] or [])), store_folder()
    held = Held(n_folds=folds or 5, fold=_fold_of(fold or 0, folds or 5))
    battles, selection, source = battles_input(data), Selection(max_rows=options["rows"]), options["source"]
    if fold is None and folds is not None:
        chains = fold_chains(entry, battles, target, store, n_folds=folds, selection=selection, source=source)
    else:
        chains = [chain(entry, battles, target, store, held=held, selection=selection, source=source)]
    if options["emulated"]:
        chains = [emulating(requests, entry, options["emulated"]) for requests in chains]
    names = [request.stage.removeprefix("lexical-") for request in chains[0]]
    if last not in names:
        raise typer.BadParameter(f"a {entry.kind} entry has no stage {last!r}; it has {', '.join(names)}")
    stages = names.index(last) + 1
    if fold is None and folds is not None:
        _run_folds(chains, stages, entry, data, average=bool(options["average"]))
    else:
        artifacts = run_chain(chains[0][:stages], entry, store, say=say)
        typer.echo("\n".join(metrics_lines(artifacts[-1])))
        typer.echo(artifacts[-1].path)
    if options["gated"] and entry.ladder.max_ladder_loss is not None:
        for requests in chains:
            climb(entry, requests)


def _fold_of(fold: int, folds: int) -> int:
    if fold >= folds:
        raise ZooError(f"--fold {fold}: folds are numbered 0 to {folds - 1}")
    return fold


def _run_folds(chains: list[list[Request]], stages: int, entry: Entry, data: Path, *, average: bool) -> None:
    """The first stages of all folds; then what they say of every row, and the averaged checkpoint where it is asked for."""
    from zoo.battles import read_battles
    from zoo.folds import average_chain, folds_table, out_of_fold, run_folds
    from zoo.pipeline import run_chain, store_folder

    averaging = average_chain(chains, store_folder()) if average else []
    finished = run_folds([requests[:stages] for requests in chains], entry, store_folder(), say=say)
    if finished[0].manifest.stage.endswith("score"):
        labels = read_battles(data).frame.set_index("id")["label"]
        typer.echo(folds_table(out_of_fold(finished, labels)))
    typer.echo("\n".join(str(artifact.path) for artifact in finished))
    if averaging:
        say(f"{entry.name}: the mean of {len(chains)} folds' adapters")
        typer.echo(run_chain(averaging, entry, store_folder(), say=say)[-1].path)


def _stage_command(stage: str, text: str) -> None:
    """`zoo train|merge|quantize|score|run`: all stages up to that one; what is in the store is not made again."""

    def command(
        name: Name,
        data: Data,
        target: TargetName = "cpu",
        fold: Fold = None,
        folds: Folds = None,
        average: Average = False,
        score_rows: MaxRows = None,
        settings: Settings = None,
        source: Source = None,
        emulated: Emulated = None,
    ) -> None:
        last = "score" if stage == "run" else stage
        if emulated and last != "score":
            raise typer.BadParameter(f"--as is of scoring; `zoo {stage}` does not score")
        options = {"average": average, "rows": score_rows, "settings": settings, "source": source, "emulated": emulated}
        options["gated"] = stage == "run" and not emulated
        _run(last, name, data, target, fold, folds, **options)

    app.command(stage, help=text)(command)


_stage_command("run", "All stages of an entry: fetch, train, merge, quantize, score. A second run takes all from the store.")
_stage_command("train", "Fetch and train an entry: QLoRA on the three label tokens, log loss on the held-out fold as it goes.")
_stage_command("merge", "As train, then merge the adapter into the base weights.")
_stage_command("quantize", "As merge, then quantize to AWQ 4 bit, calibrated on the entry's own prompts.")
_stage_command("score", "As quantize, then score the held-out fold with vLLM in each of the entry's variants.")


@app.command()
def experiment(
    folder: Annotated[Path, typer.Argument(help="Folder of the experiment, e.g. experiments/001-human-preferences.")],
    data_dir: Annotated[Path, typer.Option("--data-dir", help="Folder that holds the recipe's data file.")] = Path(),
    only: Annotated[list[str] | None, typer.Option("--only", help="Run by this name alone. Repeatable.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs at a time, dealt over the GPUs.")] = 1,
) -> None:
    """Run every entry of an experiment's recipe.toml to its scores, then print the leaderboard.

    With `until = "train"` in the recipe: train every run, evaluate it in transformers, and print and plot them side by side.
    """
    from zoo.errors import ZooError
    from zoo.pipeline import store_folder
    from zoo.recipes import load_recipe, run_recipe
    from zoo.settings import home

    if load_recipe(folder).until == "score":
        if only or jobs != 1:
            raise ZooError(f"{folder}: --only and --jobs are for recipes with until = 'train'; `zoo run` takes one entry")
        run_recipe(folder, data_dir, store_folder(), say=say)
        leaderboard()
        return
    from zoo.figures import png
    from zoo.side_by_side import run_side_by_side
    from zoo.store import write_atomic
    from zoo.trials import run_trials, trials_figure, trials_table

    results = home() / "experiments" / folder.resolve().name
    if jobs > 1:
        run_side_by_side(folder, data_dir, jobs, logs=results / "logs", only=only or (), say=say)
    trials = run_trials(folder, data_dir, store_folder(), only=only or (), say=say)
    typer.echo(trials_table(trials))
    if not only:
        results.mkdir(parents=True, exist_ok=True)
        write_atomic(results / "results.md", trials_table(trials, "markdown") + "\n")
        write_atomic(results / "results.png", png(trials_figure(trials)))
        typer.echo(results / "results.md")
        typer.echo(results / "results.png")


@app.command()
def register(
    name: Annotated[str, typer.Argument(help="Name of the new entry.")],
    base: Annotated[str, typer.Option("--base", help="Model folder, or ORG/MODEL on the hub.")],
    target: TargetName = "t4x2",
    out: Annotated[Path | None, typer.Option("--out", help="Default: first of ZOO_ENTRIES, else ./entries.")] = None,
) -> None:
    """Write a new entry from a model's own config and tokenizer, check it against the target, and say what to run next."""
    from zoo.register import next_steps
    from zoo.register import register as write_entry
    from zoo.views import findings_table

    own = os.environ.get("ZOO_ENTRIES", "").split(os.pathsep)[0] or "entries"
    made = write_entry(name, base, target, out or Path(own))
    typer.echo(findings_table(made.findings))
    failed = f", which fails {made.failed} of its checks on {target}" if made.failed else ""
    typer.echo(f"\nwrote {made.path}{failed}; next:\n")
    typer.echo("\n".join(next_steps(made.path, target, base, failed=made.failed)))


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="Name the member gets.")],
    scores: Annotated[
        Path,
        typer.Option("--scores", help="CSV or parquet: id, p_a, p_b, p_tie[, fold, n_tokens]."),
    ],
    labels: Annotated[Path, typer.Option("--labels", help="CSV of labelled battles that the scores are of.")],
    target: TargetName = "t4x2",
    load_seconds: Annotated[float, typer.Option("--load-seconds", min=0, help="From process start to first row.")] = 0.0,
    seconds_per_row: Annotated[float | None, typer.Option("--seconds-per-row", min=0, help="Of one copy.")] = None,
    seconds_per_1k_tokens: Annotated[
        float | None, typer.Option("--seconds-per-1k-tokens", min=0, help="Of one copy; the table needs n_tokens.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=0, help="GPUs that one copy takes. Default: all of the target.")
    ] = None,
) -> None:
    """Take a score table made elsewhere as a member beside the zoo's own. What cannot be right is refused, with row ids."""
    from zoo.imports import import_scores
    from zoo.pipeline import store_folder
    from zoo.store import read_manifest
    from zoo.tracking import log_stage

    path = import_scores(
        name,
        scores,
        labels,
        target=target,
        load_seconds=load_seconds,
        seconds_per_row=seconds_per_row,
        seconds_per_1k_tokens=seconds_per_1k_tokens,
        gpus=gpus,
        store=store_folder(),
    )
    log_stage(read_manifest(path), path)
    typer.echo(path)


@app.command()
def leaderboard(output: Annotated[Format, typer.Option("--format", help="table, markdown or json.")] = Format.table) -> None:
    """Every scored member: log loss with its standard error, cost, memory and age, the best first."""
    from zoo.leaderboard import leaderboard as rows_of
    from zoo.leaderboard import render
    from zoo.pipeline import store_folder

    typer.echo(render(rows_of(store_folder()), output.value))


@app.command()
def ui(port: Annotated[int, typer.Option("--port", help="Port on loopback; the next free one if it is taken.")] = 5000) -> None:
    """Open MLflow on 127.0.0.1 with the runs of this store. Ctrl-C stops it."""
    from zoo.ui import serve

    serve(port)


@app.command()
def promote(
    name: Name,
    version: Annotated[str | None, typer.Option("--version", help="Registered version; default: the one scored last.")] = None,
    alias: Annotated[str, typer.Option("--alias", help="Another alias than champion.")] = "champion",
) -> None:
    """Make an entry's scored checkpoint its champion: the alias that people and builds take members by."""
    from zoo.promote import promote as give_alias

    typer.echo(f"{name} version {give_alias(name, version=version, alias=alias)} is now {alias}")


@app.command()
def sync() -> None:
    """Mirror finished stages to MLflow that a lost connection left out. Twice doubles nothing."""
    from zoo.pipeline import store_folder
    from zoo.sync import sync as sync_store

    typer.echo(f"{sync_store(store_folder())} stages mirrored")


def main() -> None:
    """Entry point of the `zoo` command."""
    run_app(app, DEBUG in sys.argv)
