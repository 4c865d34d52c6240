"""Plans on disk: written whole, read within bounds, checked before use."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from ensemble.plan.checks import first_fault_of
from ensemble.plan.contracts import PLAN_VERSION, Plan
from zoo.contracts import first_fault
from zoo.errors import ZooError
from zoo.reading import parse_json, read_bytes
from zoo.store import write_atomic

MEND = "give a plan that `ensemble build` wrote"
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
    if not os.path.lexists(path):
        raise ZooError(f"{path}: no such plan; make one with `ensemble build -o {path}`")
    raw = parse_json(read_bytes(path, LARGEST_PLAN_BYTES, mend=MEND), path, mend=MEND)
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
