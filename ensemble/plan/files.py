"""Plans on disk: written whole, read within bounds, checked before use."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from ensemble.plan.checks import first_fault_of
from ensemble.plan.contracts import PLAN_VERSION, Plan
from zoo.contracts import first_fault
from zoo.errors import ZooError
from zoo.store import read_ordinary, write_atomic

LARGEST_PLAN_BYTES = 64 << 20  # plans are some 100 KB; what is larger is no plan, and reading it would take the budget


def save_plan(plan: Plan, path: Path) -> None:
    """Write `plan` as indented JSON, atomically.

    A reader sees the old file or the new one, never half.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, plan.model_dump_json(indent=2) + "\n")


def load_plan(path: Path) -> Plan:
    """Read a plan and check it whole: what it names is there, and every number can be used.

    ZooError names the file, and the key or the version that does not fit. What is no ordinary file is refused before it is
    read: a FIFO would hold a prediction up beyond its budget.
    """
    try:
        raw = json.loads(read_ordinary(path, most_bytes=LARGEST_PLAN_BYTES).decode())
    except FileNotFoundError:
        raise ZooError(f"{path}: no such plan; make one with `ensemble build -o {path}`") from None
    except (OSError, RecursionError, ValueError) as error:  # of bytes, of JSON, and of numbers of thousands of digits
        raise ZooError(f"{path}: not a plan, cannot read it as JSON: {error}") from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != PLAN_VERSION:
        raise ZooError(f"{path}: schema_version is {version!r}, this version reads {PLAN_VERSION}; build the plan again")
    try:
        plan = Plan.model_validate(raw)
    except ValidationError as error:
        raise ZooError(f"{path}: {first_fault(error)}; build the plan again") from error
    if fault := first_fault_of(plan):
        raise ZooError(f"{path}: {fault}; build the plan again")
    return plan
