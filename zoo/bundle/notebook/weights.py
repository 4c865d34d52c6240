"""The store that members are predicted from: links to the parts that are whole."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from .find import Found, lies
from .places import Places

SMALL_BYTES = 64 << 20  # what is larger has its size checked alone: to hash 10 GB of weights takes minutes
ENGINE_STAGE = "score"  # the stage of members that need an engine; others need processors alone
USUAL_ENGINE = "vllm"  # which a request does not name


def file_fault(folder: Path, records: Iterable[dict[str, Any]]) -> str:
    """The first file below a folder that is not as recorded, with what is wrong; else empty."""
    for record in records:
        path = lies(folder, record["path"])
        try:
            size = path.stat().st_size
            if size != record["bytes"]:
                return f"{path} has {size:,} bytes, {record['bytes']:,} wanted"
            if size < SMALL_BYTES and hashlib.sha256(path.read_bytes()).hexdigest() != record["sha256"]:
                return f"{path} is damaged: its SHA-256 is another"
        except OSError as error:
            return f"{path}: {error.strerror or error}"
    return ""


def read_plan(found: Found) -> tuple[dict[str, Any] | None, str]:
    """The plan, and what is wrong with it where it is not the one that was packed."""
    path = found.job / found.bundle["plan"]
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != found.bundle["plan_sha256"]:
            return None, f"{path} is damaged: its SHA-256 is another; upload the data set `job` again"
        plan: dict[str, Any] = json.loads(data)
        return plan, ""
    except (OSError, ValueError) as error:
        return None, f"{path}: {error}; upload the data set `job` again"


def engine_of(member: dict[str, Any]) -> str:
    """The engine that serves a member, as its request names it; empty where it needs none."""
    request = member["request"]
    if not request or request["stage"] != ENGINE_STAGE:
        return ""
    engine: str = request.get("spec", {}).get("engine", USUAL_ENGINE)
    return engine


def make_store(found: Found, plan: dict[str, Any], places: Places, *, serving: Collection[str], why_not: str) -> dict[str, str]:
    """Link what is whole and can be used here into the store; by member, why it is left out.

    `serving`: the engines that can be used here; `why_not`: what is in the way of the others, where that is known.

    The store lies in the scratch folder; the checkpoints stay where they are mounted, which is read-only.
    """
    store, faults = linked(found, places)
    left_out = {}
    for member in plan["members"]:
        if (engine := engine_of(member)) and engine not in serving:
            left_out[member["name"]] = f"needs the engine: {why_not or f'{engine} is not in the environment'}"
            for link in store.glob(f"*-{member['checkpoint']}"):
                _remove(link)
        elif not list(store.glob(f"*-{member['checkpoint']}")):
            why = next((fault for name, fault in faults.items() if name.endswith(f"-{member['checkpoint']}")), "")
            left_out[member["name"]] = why or "its checkpoint is in no part that is mounted"
    return left_out


def linked(found: Found, places: Places) -> tuple[Path, dict[str, str]]:
    """A store of links to all artifacts; by artifact, why one is not in it."""
    store, faults = places.scratch / "store", {}
    store.mkdir(parents=True, exist_ok=True)
    for link in store.iterdir():
        _remove(link)
    for part in found.bundle["parts"]:
        if part["kind"] != "model":
            continue
        if part["name"] not in found.parts:
            faults[part["artifact"]] = f"{part['name']} is not mounted"
        elif fault := file_fault(found.parts[part["name"]], part["files"]):
            faults[part["artifact"]] = f"{part['name']}: {fault}; upload it again"
        else:
            _link(store / part["artifact"], found.parts[part["name"]], part["files"])
    records: dict[str, list[dict[str, Any]]] = {}
    for record in found.bundle["files"]:
        top, _, rest = record["path"].partition("/")
        if top == "store" and "/" in rest:
            records.setdefault(rest.partition("/")[0], []).append(record)
    for artifact, files in records.items():
        if fault := file_fault(found.job, files):
            faults[artifact] = f"job: {fault}; upload it again"
        else:
            _link(store / artifact, found.job, files, below=f"store/{artifact}/")
    return store, faults


def _link(place: Path, folder: Path, records: Iterable[dict[str, Any]], *, below: str = "") -> None:
    """Link an artifact whose files are recorded below a folder: as one, or file by file where they do not lie as recorded."""
    lying = {record["path"].removeprefix(below): lies(folder, record["path"]) for record in records}
    if all(real == folder / below / path for path, real in lying.items()):
        place.symlink_to(folder / below)
        return
    for path, real in lying.items():
        link = place / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(real)


def _remove(link: Path) -> None:
    if link.is_symlink():
        link.unlink()
    else:
        shutil.rmtree(link)  # of links
