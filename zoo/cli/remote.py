"""`zoo push` and `zoo pull`: finished artifacts to and from the remote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.base import AsJson, Output, say, style_of
from zoo.cli.home import mebibytes
from zoo.errors import ZooError
from zoo.report.text import Cell, Column, Format, Table, show

if TYPE_CHECKING:
    from zoo.contracts import Manifest
    from zoo.remote import Index, Kept, RemoteFiles
    from zoo.store import Artifact

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", help="Entries, members, fingerprints or artifacts; default: every score table."),
]
Weights = Annotated[bool, typer.Option("--weights", help="And the checkpoints that made the score tables, to predict with.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List what would go, with sizes, and send or fetch nothing.")]
TO_GO, THERE, HERE, LEFT_OUT = "would go", "is there", "is here", "left out: --weights"


def push(
    names: Names = None,
    weights: Weights = False,
    dry_run: DryRun = False,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Put finished artifacts on the remote, verified by hash.

    An entry or a member means its score tables. Of what an artifact was made from the manifests go with it, the files only
    where they are asked for by --weights, or by name. The remote is ZOO_REMOTE, or `remote` in the settings: sftp://host/path,
    s3://bucket/prefix or file:///folder. Killed, the same command goes on.

    Example: zoo push lexical --dry-run

    Example: zoo push smollm2-135m@ab --weights
    """
    from zoo.remote import push_artifact, push_earlier, read_index, read_kept
    from zoo.settings import store_folder

    style, store = style_of(output, as_json), store_folder()
    with _remote() as files:
        chosen = _chosen_here(store, names or [])
        models = _models_here(store, chosen)
        wanted = chosen + [one for one in models if weights and one not in chosen]
        index = read_index(files)
        is_there = {a.path.name for a in wanted if a.path.name in index.artifacts and read_kept(files, a.path.name)}
        states = {a.path.name: THERE if a.path.name in is_there else TO_GO for a in wanted}
        left_out = [a for a in models if a not in wanted and a.path.name not in index.artifacts]
        rows = [(a.path.name, a.manifest, states.get(a.path.name, LEFT_OUT)) for a in (*wanted, *left_out)]
        if not dry_run:
            for artifact in wanted:
                push_earlier(artifact, files, index)
                pushed = push_artifact(artifact, files, _bar)
                states[artifact.path.name] = "pushed" if pushed else THERE
            rows = [(name, manifest, states.get(name, state)) for name, manifest, state in rows]
        show([_table(rows), _closing(rows, files, LEFT_OUT)], style, data=_record(rows))


def pull(
    names: Names = None,
    weights: Weights = False,
    dry_run: DryRun = False,
    output: Output = Format.table,
    as_json: AsJson = False,
) -> None:
    """Fetch finished artifacts from the remote, verified by hash.

    An entry or a member means its score tables, with the manifests of what they were made from. By fingerprint that takes one
    look; by entry or member every manifest there is read. Killed, the same command goes on. Where ZOO_REMOTE is set, stages
    that are asked for and not in the home are fetched, too, instead of being made again.

    Example: zoo pull lexical@ab

    Example: zoo pull 1f0c93ab52de --dry-run
    """
    from zoo.remote import named_there, read_index, read_kept
    from zoo.settings import store_folder
    from zoo.store import MANIFEST

    style, store = style_of(output, as_json), store_folder()
    with _remote() as files:
        index = read_index(files)
        chosen = named_there(files, index, names or [])
        models = [kept for name in _models_there(index, [kept.manifest for kept in chosen]) if (kept := read_kept(files, name))]
        known = {kept.name for kept in chosen}
        wanted = chosen + [kept for kept in models if weights and kept.name not in known]
        if weights:
            _tell_missing(store, index, chosen)
        is_here = {kept.name for kept in wanted + models if (store / kept.name / MANIFEST).exists()}
        states = {kept.name: HERE if kept.name in is_here else TO_GO for kept in wanted}
        left_out = [kept for kept in models if kept not in wanted and kept.name not in is_here]
        for kept in [] if dry_run else [kept for kept in wanted if kept.name not in is_here]:
            states[kept.name] = "pulled" if _fetch(kept, files, store, index) else HERE
        rows = [(kept.name, kept.manifest, states.get(kept.name, LEFT_OUT)) for kept in (*wanted, *left_out)]
        show([_table(rows), _closing(rows, files, LEFT_OUT)], style, data=_record(rows))


def _fetch(kept: Kept, files: RemoteFiles, store: Path, index: Index) -> bool:
    """Fetch an artifact and log it; whether it was fetched, and not made or fetched by another process meanwhile."""
    from zoo.remote import pull_artifact, pull_earlier
    from zoo.store import MANIFEST, locked
    from zoo.tracking.sync import log_stage

    with locked(store, kept.name, on_wait=lambda: say(f"{kept.name}: another process makes or fetches it; waiting")):
        if (store / kept.name / MANIFEST).exists():
            return False
        pull_earlier(kept, files, store, index)
        artifact = pull_artifact(kept, files, store, _bar)
    log_stage(artifact.manifest, artifact.path)
    return True


def _bar(description: str, size: int) -> Any:
    from zoo.stages import progress

    return progress.bar(size, description, "byte", unit_scale=True)


def _remote() -> RemoteFiles:
    from zoo.remote import RemoteFiles, parse_address
    from zoo.settings import remote_address

    if not (text := remote_address()):
        raise ZooError("no remote is set: give ZOO_REMOTE=sftp://host/path, s3://bucket/prefix or file:///folder")
    return RemoteFiles(parse_address(text))


def _chosen_here(store: Path, names: Sequence[str]) -> list[Artifact]:
    """The artifacts of the store that names mean, once each; without names every score table."""
    from zoo.scores.named import artifacts_named, cards_of
    from zoo.store import Artifact, list_artifacts, read_manifest

    scored = [artifact for artifact in list_artifacts(store) if cards_of(artifact.path)]
    found: dict[str, Artifact] = {} if names else {artifact.path.name: artifact for artifact in scored}
    for name in names:
        of_entry = [artifact for artifact in scored if artifact.manifest.request.entry == name]
        named = of_entry or [Artifact(folder, read_manifest(folder)) for folder in artifacts_named(store, [name])]
        found |= {artifact.path.name: artifact for artifact in named}
    if not found:
        raise ZooError(f"{store}: has no score table to push; `zoo run` makes one, or name an artifact")
    return list(found.values())


def _models_here(store: Path, artifacts: Sequence[Artifact]) -> list[Artifact]:
    """The checkpoints that made these artifacts, as far as the store has their files."""
    from zoo.store import with_fingerprint

    models = (artifact.manifest.request.inputs.get("model") for artifact in artifacts)
    found = {one.path.name: one for model in models if model for one in with_fingerprint(store, model.fingerprint)}
    return [one for one in found.values() if one.path.parent == store]


def _models_there(index: Index, manifests: Sequence[Manifest]) -> list[str]:
    """Names on the remote of the checkpoints that these stages read."""
    models = (manifest.request.inputs.get("model") for manifest in manifests)
    return list(
        dict.fromkeys(name for model in models if model for name in index.named(model.fingerprint) if name in index.artifacts)
    )


def _tell_missing(store: Path, index: Index, chosen: Sequence[Kept]) -> None:
    """Say which checkpoints neither the remote nor the store has."""
    for kept in chosen:
        model = kept.manifest.request.inputs.get("model")
        if model and not _models_there(index, [kept.manifest]) and not list(store.glob(f"*-{model.fingerprint}")):
            say(f"{kept.name}: its checkpoint {model.fingerprint} is not on the remote; `zoo push --weights` where it was made")


def _bytes(manifest: Manifest) -> int:
    return sum(record.bytes for record in manifest.files.values())


def _table(rows: Sequence[tuple[str, Manifest, str]]) -> Table:
    columns = [Column("artifact"), Column("of"), Column("size", "bytes", mebibytes), Column("what", prose=True)]
    cells: list[list[Cell]] = [[name, manifest.request.entry, _bytes(manifest), what] for name, manifest, what in rows]
    return Table(columns, cells)


def _record(rows: Sequence[tuple[str, Manifest, str]]) -> list[dict[str, object]]:
    return [{"artifact": name, "of": m.request.entry, "bytes": _bytes(m), "what": what} for name, m, what in rows]


def _closing(rows: Sequence[tuple[str, Manifest, str]], files: RemoteFiles, left_out: str) -> str:
    """What was moved, and what stayed and why."""
    moved = [m for _, m, what in rows if what in ("pushed", "pulled")]
    going = [m for _, m, what in rows if what == TO_GO]
    stayed = [m for _, m, what in rows if what == left_out]
    parts = [f"{files.where()}: {len(moved)} moved, {mebibytes(sum(map(_bytes, moved)))}"]
    if going:
        parts = [f"{files.where()}: {len(going)} would go, {mebibytes(sum(map(_bytes, going)))}"]
    if stayed:
        parts.append(
            f"weights of {mebibytes(sum(map(_bytes, stayed)))} left out: tables are used without them, --weights takes them"
        )
    parts.append("of what they were made from, manifests go along")
    return "; ".join(parts)
