"""The chain of an entry whose weights, trained elsewhere, take the place of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zoo.contracts import AdoptRequest, Elsewhere, Entry, FetchRequest, Head, Input, MergeRequest, Request
from zoo.errors import ZooError
from zoo.store import Artifact, artifact_name, fingerprint, list_artifacts


def adopt_request(
    name: str,
    head: Head,
    made: Elsewhere,
    *,
    fold: int | None = None,
    folders: Sequence[Path] = (),
    trained_on: Path | None = None,
    tokenizer: Path | None = None,
) -> AdoptRequest:
    """What takes one of an entry's folders into the store, or finds it there.

    `folders`, `trained_on` and `tokenizer` are where they lie now: only `zoo register` knows, and nothing after it needs to.
    """
    places: list[Path | None] = [*folders] or [None] * len(made.folders)
    digest = None if made.trained_on in (None, "none") else made.trained_on
    return AdoptRequest(
        entry=name,
        kind=made.kind,
        folders=tuple(Input(path=place, fingerprint=own) for place, own in zip(places, made.folders, strict=True)),
        fold=fold,
        head=head,
        classes=made.classes,
        tokenizer=None if made.tokenizer is None else Input(path=tokenizer, fingerprint=made.tokenizer),
        learned=None if digest is None else Input(path=trained_on, fingerprint=digest),
        learned_none=made.trained_on == "none",
    )


def adopted_chain(
    entry: Entry, made: Elsewhere, store: Path, *, fold: int, n_folds: int, fetch: FetchRequest | None
) -> list[Request]:
    """The stages up to the weights that are quantized, or served.

    `fetch` gets that base. ZooError where the entry has adapters of another number of folds.
    """
    if made.by_fold and n_folds != len(made.folders):
        count = len(made.folders)
        raise ZooError(f"{entry.name}: has adapters of {count} folds, and {n_folds} are asked for; run it with --folds {count}")
    adopt = adopt_request(entry.name, entry.head, made, fold=fold if made.by_fold else None)
    if fetch is None:
        return [adopt]
    merge = MergeRequest(entry=entry.name, base=_left(fetch, store), adapter=_left(adopt, store), spec=entry.merge)
    return [fetch, adopt, merge]


def _left(request: FetchRequest | AdoptRequest, store: Path) -> Input:
    return Input(path=store / artifact_name(request), fingerprint=fingerprint(request))


def adopted(entry: Entry, store: Path) -> Artifact | None:
    """The checkpoint from elsewhere of an entry, where it has one and it is in the store."""
    if entry.elsewhere is None or entry.elsewhere.kind != "checkpoint":
        return None
    wanted = fingerprint(adopt_request(entry.name, entry.head, entry.elsewhere))
    return next((artifact for artifact in list_artifacts(store, "adopt") if artifact.fingerprint == wanted), None)
