"""`zoo verify`, `rm`, `gc` and `du`: whether a home is whole, and what it takes up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.base import AsJson, Output, say, style_of
from zoo.errors import ZooError
from zoo.report.text import Cell, Column, Format, Table, show

if TYPE_CHECKING:
    from zoo.store import Garbage, Removal

Named = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Members, fingerprints or artifacts; default: all of the store.")
]
ToRemove = Annotated[list[str], typer.Argument(metavar="NAME...", help="Members, fingerprints or artifacts.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Days = Annotated[float, typer.Option("--days", min=0, help="Unfinished work unchanged for so long is given up.")]


def mebibytes(size: float) -> str:
    """Bytes for people, in MiB or GiB."""
    return f"{size / 2**30:,.2f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"


def verify(names: Named = None, output: Output = Format.table, as_json: AsJson = False) -> None:
    """Check artifacts against their manifests: sizes, SHA-256, missing and extra files.

    Exit code 1 where one is not as it was made, with the mend for each.

    Example: zoo verify

    Example: zoo verify smollm2-135m@ab
    """
    from zoo.scores.named import artifacts_named
    from zoo.settings import store_folder
    from zoo.stages import progress
    from zoo.store import bytes_to_hash, leftovers, verify_artifacts

    style, folders = style_of(output, as_json), artifacts_named(store_folder(), names or [])
    with progress.bar(bytes_to_hash(folders), "verify", "byte", unit_scale=True) as bar:
        faults = list(verify_artifacts(folders, read=bar.update))
    faults += [] if names else leftovers(store_folder())
    columns = [Column("artifact"), Column("verdict"), Column("what", prose=True), Column("mend", prose=True)]
    table = Table(columns, [[f.artifact, f.verdict, f.what, f.mend] for f in faults])
    failed = len({f.artifact for f in faults if f.verdict == "fail"})
    closing = f"{len(folders) - failed} of {len(folders)} artifacts are as their manifests say"
    show([table, closing], style, data=[asdict(fault) for fault in faults])
    if failed:
        raise typer.Exit(1)


def rm(
    names: ToRemove,
    with_dependents: Annotated[bool, typer.Option("--with-dependents", help="And all that was made from them.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Remove artifacts with their runs, models and versions in MLflow.

    A member means all its score tables. Refused where others are made from one, or a running process uses it.

    Example: zoo rm lexical@ab --dry-run

    Example: zoo rm 1f0c93ab52de --with-dependents --yes
    """
    from zoo.scores.named import artifacts_named, cards_of
    from zoo.settings import store_folder
    from zoo.store import plan_removal, users_of_files
    from zoo.tracking.sync import log_removals

    asked = artifacts_named(store_folder(), names)
    removal = plan_removal(store_folder(), asked, with_dependents=with_dependents)
    _refuse_kept(removal)
    others = sorted({card.member for folder in asked for card in cards_of(folder)} - set(names))
    if others and any("@" in name for name in names):
        say(f"the same score stage made {', '.join(others)}: they go too")
    _show_removal(removal, names)
    for folder in removal.folders:
        for line in _broken_plans(folder):
            say(line)
    for name, made in users_of_files(store_folder(), removal.folders).items():
        more = f" and {len(made) - 1} more" if len(made) > 1 else ""
        say(f"{name}: {made[0]}{more} was made from a file of it; `zoo lineage` will know what it was asked, and no more")
    if dry_run or not _agreed(f"remove {len(removal.folders)} artifacts", yes=yes):
        return
    for folder in removal.folders:
        _remove(folder)
        typer.echo(f"removed {folder.name}")
    log_removals()


def _remove(folder: Path) -> None:
    """Remove an artifact, and note it for MLflow.

    ZooError, and nothing noted, where its disk does not let it go.
    """
    from zoo.settings import home
    from zoo.store import Artifact, keep_lineage, read_manifest, remove_artifact
    from zoo.tracking.removed import note_removal, unnote_removal

    with suppress(ZooError):  # of one that cannot be read nothing is known
        keep_lineage(Artifact(folder, read_manifest(folder)))
    try:
        remove_artifact(folder, home(), before=lambda: note_removal(folder))
    except OSError as error:
        if folder.exists():
            unnote_removal(folder)
        raise ZooError(f"{folder}: {error.strerror or error}; what is left of it `zoo gc` removes", exit_code=1) from error


def gc(days: Days = 14.0, dry_run: DryRun = False, yes: Yes = False) -> None:
    """Remove what no command goes on with.

    Unfinished stages and predictions' work that nobody touched for days, refused settings, temporary files, deleted runs.
    Finished artifacts, submissions and databases that were kept aside stay.

    Example: zoo gc --dry-run

    Example: zoo gc --days 3 --yes
    """
    from zoo.settings import home
    from zoo.store import collect, find_garbage
    from zoo.tracking.garbage import collect_tracking, tracking_garbage

    items, runs = find_garbage(home(), days=days), _if_reachable(lambda: tracking_garbage(days=days))
    if not items and not runs:
        typer.echo("nothing to remove")
        return
    columns = [Column("what"), Column("size"), Column("why", prose=True)]
    table = Table(columns, [[str(i.path.relative_to(home())), mebibytes(i.bytes), i.why] for i in (*items, *runs)])
    total = mebibytes(sum(item.bytes for item in (*items, *runs)))
    show([table, f"{len(items) + len(runs)} items, {total}"])
    if dry_run or not _agreed(f"remove {len(items) + len(runs)} items", yes=yes):
        return
    kept = [item for item in items if not collect(item, home())]
    gone = _if_reachable(lambda: collect_tracking(runs, days=days)) if runs else []
    stayed = len(kept) + len(runs) - len(gone)
    typer.echo(f"removed {len(items) + len(runs) - stayed} items" + (f"; {stayed} are in use again or gone" if stayed else ""))


def du(days: Days = 14.0, output: Output = Format.table, as_json: AsJson = False) -> None:
    """Bytes of the home by kind, entry and stage, and what `zoo gc` would free.

    Hard links and blocks that files share count once.

    Example: zoo du

    Example: zoo du --json
    """
    from zoo.settings import home
    from zoo.store import disk_use
    from zoo.tracking.garbage import tracking_garbage

    runs = _if_reachable(lambda: tracking_garbage(days=days))
    style, uses = style_of(output, as_json), disk_use(home(), days=days, more=runs)
    columns = [
        Column("kind"),
        Column("entry"),
        Column("stage", drop=1),
        Column("items", drop=2),
        Column("size", "bytes", mebibytes),
        Column("reclaimable", "reclaimable_bytes", mebibytes),
    ]
    rows: list[list[Cell]] = [[u.kind, u.entry, u.stage, u.items, u.bytes, u.reclaimable] for u in uses]
    table, total = Table(columns, rows), sum(use.bytes for use in uses)
    free = sum(use.reclaimable for use in uses)
    show([table, f"{home()}: {mebibytes(total)}, of which `zoo gc` frees {mebibytes(free)}"], style, data=table.records())


def _refuse_kept(removal: Removal) -> None:
    if not removal.kept:
        return
    name, made = next(iter(removal.kept.items()))
    count = len({other for others in removal.kept.values() for other in others})
    more = f" and {count - 1} more" if count > 1 else ""
    raise ZooError(f"{name}: {made[0]}{more} would lose what it was made from; add --with-dependents to remove all of them")


def _show_removal(removal: Removal, names: Sequence[str]) -> None:
    from zoo.scores.named import cards_of
    from zoo.store import Ledger, manifest_stage

    ledger = Ledger()
    rows: list[list[Cell]] = []
    for folder in removal.folders:
        members = ", ".join(sorted({card.member for card in cards_of(folder)})) or manifest_stage(folder)[1]
        why = f"made from {removal.why[folder.name]}" if folder.name in removal.why else "asked for"
        rows.append([folder.name, members, mebibytes(ledger.bytes_of(folder)), why])
    show([Table([Column("artifact"), Column("of"), Column("size"), Column("why", prose=True)], rows)])


def _broken_plans(folder: Path) -> list[str]:
    """A line for each kept build whose plan runs a checkpoint that is to go."""
    from zoo.store import fingerprint_of
    from zoo.tracking.builds import builds_that_run

    found = builds_that_run(fingerprint_of(folder))
    return [f"{folder.name}: {name} runs it; that plan can be shown then, not predicted" for name in found]


def _agreed(what: str, *, yes: bool) -> bool:
    """Whether the user wants it; ZooError where nobody can be asked."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ZooError(f"{what}: nobody can be asked here; add --yes, or --dry-run to see what would go")
    return typer.confirm(f"{what}?", default=False)


def _if_reachable(question: Callable[[], list[Garbage]]) -> list[Garbage]:
    """What the tracking database says, or nothing and a line."""
    from zoo.tracking.home import one_line

    try:
        return question()
    except Exception as error:
        say(f"MLflow's deleted runs stay: {one_line(error)}")
        return []
