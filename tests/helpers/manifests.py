"""Finished artifacts as the runner leaves them, without running anything, and the members' cards that lie in them."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from zoo.contracts import Cost, Input, LexicalScoreRequest, Manifest, Measurements, Request, ScoreCard, Variant
from zoo.store import PARTIAL, Artifact, artifact_name, commit, fingerprint

ANY_INPUT = Input(fingerprint="any")
ANY_REQUEST = LexicalScoreRequest(entry="any", model=ANY_INPUT, battles=ANY_INPUT, target="cpu")
CREATED = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


def manifest(**fields: Any) -> Manifest:
    """A manifest that says nothing but what it is given."""
    nothing: dict[str, Any] = {
        "stage": ANY_REQUEST.stage,
        "fingerprint": "f" * 16,
        "request": ANY_REQUEST,
        "files": {},
        "metrics": {},
        "measurements": Measurements(),
        "hardware": {},
        "packages": {},
        "git_commit": None,
        "argv": (),
        "created_at": CREATED,
    }
    return Manifest(**{**nothing, **fields})


def partial_folder(store: Path, request: Request) -> Path:
    """The folder in which a stage writes what `finished` then commits."""
    folder = store / PARTIAL / artifact_name(request)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def finished(store: Path, request: Request, **fields: Any) -> Artifact:
    """The artifact of a request, with the files that lie in its partial folder; `fields` are the manifest's."""
    own: dict[str, Any] = {
        "stage": request.stage,
        "fingerprint": fingerprint(request),
        "request": request,
    }
    return commit(
        partial_folder(store, request),
        store / artifact_name(request),
        lambda files: manifest(**own, files=files, **fields),
    )


def input_of(artifact: Artifact) -> Input:
    """An artifact as the input of the next stage."""
    return Input(path=artifact.path, fingerprint=artifact.fingerprint)


def score_card(name: str, variant: Variant = Variant(), **fields: Any) -> ScoreCard:
    """The card of a member NAME or NAME@VARIANT that costs nothing worth mentioning on one T4 pair."""
    entry = name.partition("@")[0]
    usual: dict[str, Any] = {
        "member": name,
        "entry": entry,
        "variant": variant,
        "target": "t4x2",
        "engine": "test",
        "dataset_digest": "d",
        "rows": 1,
        "failed_rows": 0,
        "checkpoint": entry,
    }
    target = fields.get("target", usual["target"])
    return ScoreCard(**{**usual, "cost": Cost(target=target, load_seconds=1.0), **fields})
