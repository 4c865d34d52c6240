"""`ensemble bundle`: a plan as what is uploaded to run it in a notebook without a network."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from zoo.cli.base import START, AsJson, Output, add_commands, complete_target, new_group, say, style_of
from zoo.report.text import Format, Table
from zoo.report.text import show as show_page

PlanFile = Annotated[Path, typer.Argument(help="A plan of `ensemble build`.")]
BundleFolder = Annotated[Path, typer.Argument(help="A folder that `ensemble bundle` made.")]
NewFolder = Annotated[Path, typer.Option("-o", "--output", help="Folder of the bundle; an earlier bundle there is replaced.")]
Competition = Annotated[str, typer.Option("--competition", help="Its name as in its address.")]
User = Annotated[str, typer.Option("--user", help="Your name as in your profile's address.")]
BundleTarget = Annotated[
    str | None,
    typer.Option("--target", help="The notebook's machine. Default: the plan's target.", autocompletion=complete_target),
]
DryRunOn = Annotated[
    Path | None, typer.Option("--battles", help="Run its script here on rows of this file, without a network.")
]
Modules = Annotated[
    Path | None, typer.Option("--flashinfer", help="Folder of FlashInfer's modules, compiled for the target's cards.")
]


def make(
    plan: PlanFile,
    *,
    competition: Competition,
    user: User,
    target: BundleTarget = None,
    output: NewFolder = Path("bundle"),
    modules: Modules = None,
    format_: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Make the folder of a plan's bundle, check it, and print the commands to upload it.

    `wheels/` has the engine and this package for the notebook's Python, downloaded once; `model-N/` a checkpoint each; `job/`
    the plan, small checkpoints and the script; `notebook/` what runs it. Nothing is uploaded. Exit code 1 if a check fails.

    Example: ensemble bundle make plan.json --competition lmsys-chatbot-arena --user NAME --target t4x2 -o bundle
    """
    from ensemble.bundle.commands import commands_of
    from ensemble.bundle.make import Asked, make_bundle
    from zoo.settings import store_folder

    style = style_of(format_, as_json)
    bundle = make_bundle(Asked(plan, competition, user, store_folder(), target, modules), output, say)
    say(f"wrote {output}")
    _checked(output, style, commands_of(bundle, output))


def check(
    folder: BundleFolder,
    battles: DryRunOn = None,
    format_: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Prove of a bundle what can be proven before it is uploaded, one line each with its mend.

    Tags and hashes of the wheels, that they are complete without an index, their code for the target's cards; the plan against
    the target with the engine that is bundled; sizes, names, metadata, notebook, licences. With --battles its script runs, too:
    without a network, as planned and with faults. Exit code 1 if anything fails.

    Example: ensemble bundle check bundle

    Example: ensemble bundle check bundle --battles test.csv
    """
    style = style_of(format_, as_json)
    if battles is not None:
        from zoo.data.battles import read_battles

        read_battles(battles, strict=False)  # what is wrong with the file is told before minutes are spent on the folder
    _checked(folder, style, [], battles)


def _checked(folder: Path, style: Format, commands: list[str], battles: Path | None = None) -> None:
    """Show the findings about a bundle and the commands; exit with 1 where a finding is a failure."""
    from ensemble.bundle.check import check_bundle
    from ensemble.bundle.dry_run import dry_run
    from ensemble.bundle.trials import trials_table
    from zoo.report.views import findings_table

    findings = check_bundle(folder)
    page: list[str | Table] = [findings_table(findings), *(["", "\n".join(commands)] if commands else [])]
    data: dict[str, Any] = {"findings": [finding.model_dump() for finding in findings], "commands": commands}
    failed = any(finding.verdict == "fail" for finding in findings)
    if battles is not None:
        trials = dry_run(folder, battles, say=say)
        page += ["", trials_table(trials)]
        data["dry_runs"] = [dataclasses.asdict(trial) for trial in trials]
        failed = failed or not all(trial.whole for trial in trials)
    show_page(page, style, data=data)
    if failed:
        raise typer.Exit(1)


class _MakesByDefault(TyperGroup):
    """`ensemble bundle PLAN ...` is `ensemble bundle make PLAN ...`; typer's groups know no default command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if args and args[0] not in (*self.commands, *own):
            args = ["make", *args]
        return super().parse_args(ctx, args)


bundle_app = new_group(
    """A plan as what is uploaded to run it in a notebook without a network.

    `ensemble bundle PLAN ...` is short for `ensemble bundle make PLAN ...`.

    Example: ensemble bundle make plan.json --competition lmsys-chatbot-arena --user NAME

    Example: ensemble bundle check bundle
    """,
    kind=_MakesByDefault,
)
add_commands(bundle_app, {START: (make, check)})
