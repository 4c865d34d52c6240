"""`zoo bundle`, `unbundle` and `export`: train in a notebook, and hand weights on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.app import Name, Settings
from zoo.cli.base import AsJson, Output, complete_target, say, style_of
from zoo.errors import ZooError
from zoo.experiments.held import Rule
from zoo.report.text import Column, Format, Table, show

if TYPE_CHECKING:
    from zoo.contracts import FoldRule as FoldRuleName

DataAddress = Annotated[
    str,
    typer.Option("--data", help="Address of a competition, or of a data set OWNER/SLUG, whose train.csv is learned from."),
]
User = Annotated[str, typer.Option("--user", help="Your name as in your profile's address.")]
Machine = Annotated[str, typer.Option("--target", help="The notebook's machine.", autocompletion=complete_target)]
Folds = Annotated[int, typer.Option("--folds", min=2, help="How many folds the prompts are dealt into.")]
Fold = Annotated[list[int] | None, typer.Option("--fold", min=0, help="Train this fold alone. Repeatable. Default: all.")]
FoldRule = Annotated[Rule, typer.Option("--fold-rule", metavar="RULE", help="As `zoo train` has it for these battles.")]
Hours = Annotated[float, typer.Option("--hours", min=0.1, help="How long a notebook may run, installing included.")]
NewFolder = Annotated[Path, typer.Option("-o", "--output", help="Folder of the bundle; an earlier bundle there is replaced.")]


def bundle(
    name: Name,
    *,
    data: DataAddress,
    user: User,
    target: Machine = "t4x2",
    folds: Folds = 5,
    fold: Fold = None,
    fold_rule: FoldRule = Rule.near_prompts,
    settings: Settings = None,
    hours: Hours = 9.0,
    output: NewFolder = Path("bundle"),
    format_: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Make a bundle that trains an entry's folds in a notebook; print the commands to run it.

    The notebook trains until its hours end and leaves trained.tar; run again it goes on from there. `zoo unbundle` takes that
    home. Base weights come from the store: `zoo fetch` first. Exit code 1 if a check of the folder fails.

    Example: zoo bundle smollm2-135m --data llm-classification-finetuning --user NAME
    """
    from zoo.bundle.check import check_folder
    from zoo.bundle.make_training import Asked, commands_of, make_training_bundle
    from zoo.entries.load import load_entry, override
    from zoo.report.views import findings_table
    from zoo.settings import store_folder

    if wrong := [one for one in fold or () if one >= folds]:
        raise ZooError(f"--fold {wrong[0]}: folds are numbered 0 to {folds - 1}")
    style, entry = style_of(format_, as_json), override(load_entry(name), settings or [])
    rule: FoldRuleName | None = None if fold_rule is Rule.prompts else "near-prompts-1"
    chosen = sorted(set(fold)) if fold else range(folds)
    asked = Asked(entry, data, user, store_folder(), target, folds, chosen, rule, hours)
    made = make_training_bundle(asked, output, say)
    say(f"wrote {output}")
    findings, commands = list(check_folder(output, made)), commands_of(made, output)
    told = {"findings": [finding.model_dump() for finding in findings], "commands": commands}
    show([findings_table(findings), "", "\n".join(commands)], style, data=told)
    if any(finding.verdict == "fail" for finding in findings):
        raise typer.Exit(1)


def unbundle(
    archive: Annotated[Path, typer.Argument(help="The trained.tar that a notebook of `zoo bundle` left.")],
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Put what a notebook trained into the store, checked file by file, and log it.

    `zoo run` then takes finished folds from the store, and goes on with one that is not finished.

    Example: zoo unbundle out/trained.tar
    """
    from zoo.bundle.trained import folder_of, read_contents, unpack
    from zoo.entries.load import load_entry
    from zoo.settings import store_folder
    from zoo.store import read_manifest
    from zoo.tracking.sync import log_stage

    style, store = style_of(output, as_json), store_folder()
    entry = load_entry(read_contents(archive).entry)  # an unknown one is told before anything is taken
    trained, new = unpack(archive, store)
    rows: list[list[str | int]] = []
    for fold in trained.folds:
        place = folder_of(store, fold)
        state = "finished" if fold.finished else f"at step {fold.steps}"
        rows.append([fold.fold, fold.artifact, state, "new here" if place in new else "was here"])
        if fold.finished:
            log_stage(read_manifest(place), place, entry)
    columns = [Column("fold"), Column("artifact"), Column("training"), Column("store")]
    show([Table(columns, rows)], style, data=trained.model_dump(mode="json"))


def export(
    name: Annotated[str, typer.Argument(help="Scored member of one fold, or a stage's fingerprint or folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to make; each form gets one of its own in it.")],
    form: Annotated[
        list[str] | None, typer.Option("--form", help="adapter, merged, awq, int8, ...: this alone. Repeatable. Default: all.")
    ] = None,
    format_: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Write a trained entry's weights as ordinary folders that need nothing of this project.

    The adapter is loaded by peft, the merged weights by transformers and vLLM, a quantized checkpoint by vLLM; a classifier
    or an encoder as one of sequence classification. In each folder lie the prompt (prompt.json) and a model card with code
    that asks it, data digests, recipe, ladder and licence.

    Example: zoo export smollm2-135m@ab-512 -o exported

    Example: zoo export merge-3f2a -o exported --form merged
    """
    from zoo.bundle.export import export as write_folders
    from zoo.report.run_report import find_run, report_of
    from zoo.settings import store_folder
    from zoo.tracking.facts import curves_of
    from zoo.tracking.recipe import stage_params

    style, store = style_of(format_, as_json), store_folder()
    run = find_run(store, name)
    report = report_of(store, run, stage_params, curves_of)
    made = write_folders(run, report.sections, output, form or [], say)
    columns = [Column("form"), Column("folder", prose=True), Column("GiB", "gib", ".2f")]
    show([Table(columns, [[one.form, str(one.path), one.bytes / 2**30] for one in made])], style)
