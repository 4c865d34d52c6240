"""Write the machine at hand as a target, with its measured rates."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from zoo.contracts import Name
from zoo.entries.toml import contract_toml
from zoo.errors import ZooError
from zoo.store import write_atomic
from zoo.targets import Target, is_of_kind, load_target, machine_fingerprint, own_folder, target_files

OTHER_MARGIN = 1.25  # of a machine that nobody has declared a margin for: its speed was measured on itself


def measure_target(name: str | None) -> Target:
    """This machine with measured rates: the known target of that name, or a new one.

    Takes up to a minute. ZooError where the name cannot be one, or is of a target that this machine is not.
    """
    from zoo.stages.rates.measure import measure_rates

    _check_name(name)

    machine = machine_fingerprint()
    target = load_target(name) if name in target_files() else describe_machine(name or "here", machine)
    if not is_of_kind(machine, target):
        raise ZooError(f"target {target.name}: this machine ({machine}) is not one; choose another name")
    folder = own_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return target.model_copy(update={"measured": measure_rates(folder), "measured_on": machine})


def _check_name(name: str | None) -> None:
    if name is None:
        return
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise ZooError(f"{name!r} is not a target's name; use lower-case letters, digits, '.', '_' and '-'") from None


def describe_machine(name: str, machine: str) -> Target:
    """What this machine says of itself as a target. ZooError where its GPUs are not all alike."""
    from zoo.stages.rates.measure import compute_capability, supported_dtypes

    found = re.fullmatch(r"(\d+) x (.+) (\d+) MiB", machine)
    if " + " in machine and "MiB" in machine:
        raise ZooError(f"this machine has GPUs of several kinds ({machine}); write {name}.toml by hand, for one kind")
    gpus = int(found[1]) if found else 0
    memory = int(found[3]) * 2**20 if found else None
    return Target(
        name=name,
        description=machine,
        gpus=gpus,
        memory_bytes=memory,
        compute_capability=compute_capability(),
        dtypes=supported_dtypes(),
        interconnect="pcie" if gpus > 1 else "none",
        margin=OTHER_MARGIN,
        gpu=found[2] if found else "",
    )


def write_target(target: Target) -> Path:
    """Write the target as NAME.toml in the user's own folder.

    There `--target NAME` finds it before the package's.
    """
    path = own_folder() / f"{target.name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, contract_toml(target))
    return path
