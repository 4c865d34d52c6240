"""The store that members are predicted from: links to the parts that are whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .find import Found
from .places import Places

SMALL_BYTES = 64 << 20  # what is larger has its size checked alone: to hash 10 GB of weights takes minutes
ENGINE_STAGE = "score"  # the stage of members that need the engine; others need processors alone


def file_fault(folder: Path, records: Iterable[dict[str, Any]]) -> str:
    """The first file below a folder that is not as recorded, with what is wrong; else empty."""
    for record in records:
        path = folder / record["path"]
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


def needs_engine(member: dict[str, Any]) -> bool:
    """Whether a member of the plan is served by the engine."""
    return bool(member["request"] and member["request"]["stage"] == ENGINE_STAGE)


def make_store(found: Found, plan: dict[str, Any], places: Places, *, serves: bool, why_not: str) -> dict[str, str]:
    """Link what is whole and can be used here into the store; by member, why it is left out.

    The store lies in the scratch folder; the checkpoints stay where they are mounted, which is read-only.
    """
    store, faults = linked(found, places)
    left_out = {}
    for member in plan["members"]:
        if needs_engine(member) and not serves:
            left_out[member["name"]] = f"needs the engine: {why_not}"
            for link in store.glob(f"*-{member['checkpoint']}"):
                link.unlink()
        elif not list(store.glob(f"*-{member['checkpoint']}")):
            why = next((fault for name, fault in faults.items() if name.endswith(f"-{member['checkpoint']}")), "")
            left_out[member["name"]] = why or "its checkpoint is in no part that is mounted"
    return left_out


def linked(found: Found, places: Places) -> tuple[Path, dict[str, str]]:
    """A store of links to all artifacts; by artifact, why one is not in it."""
    store, faults = places.scratch / "store", {}
    store.mkdir(parents=True, exist_ok=True)
    for link in store.iterdir():
        if link.is_symlink():
            link.unlink()
    for part in found.bundle["parts"]:
        if part["kind"] != "model":
            continue
        if part["name"] not in found.parts:
            faults[part["artifact"]] = f"{part['name']} is not mounted"
        elif fault := file_fault(found.parts[part["name"]], part["files"]):
            faults[part["artifact"]] = f"{part['name']}: {fault}; upload it again"
        else:
            (store / part["artifact"]).symlink_to(found.parts[part["name"]])
    records: dict[str, list[dict[str, Any]]] = {}
    for record in found.bundle["files"]:
        top, _, rest = record["path"].partition("/")
        if top == "store" and "/" in rest:
            records.setdefault(rest.partition("/")[0], []).append(record)
    for artifact, files in records.items():
        if fault := file_fault(found.job, files):
            faults[artifact] = f"job: {fault}; upload it again"
        else:
            (store / artifact).symlink_to(found.job / "store" / artifact)
    return store, faults
