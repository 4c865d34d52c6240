"""Rates that a machine elsewhere measured of itself, and how they come into a target."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from zoo.contracts import Contract, Name, Seconds, first_fault
from zoo.errors import ZooError
from zoo.reading import parse_json, read_head
from zoo.targets.load import Rates, Target, is_of_kind

MOST_BYTES = 16 * 2**20  # of a predict.json: one of 25,000 rows has some kilobytes
ABOVE_SHEET = 1.25  # no card does more than so many times what its data sheet says: the numbers are of something else
NOTEBOOK, RATES = "notebook", "rates"  # where predict.json of a notebook has them


class QuickRates(Contract):
    """What `zoo target measure --quick` found in a machine's first minute.

    `target`: of the known targets the one of this machine's kind, `here` where it is of none. `machine`: its fingerprint.
    """

    schema_version: Literal[1] = 1
    target: Name
    machine: str
    compute_capability: tuple[int, int] | None = None
    rates: Rates
    measured_at: str = Field(description="ISO 8601, UTC")
    seconds: Annotated[Seconds, Field(description="what measuring took")]


def read_rates(path: Path) -> QuickRates:
    """The rates that a file holds.

    predict.json of a notebook, or what `zoo target measure --quick --json` printed. ZooError where there are none, or they are
    not what such a file has.
    """
    mend = "give predict.json of a notebook, or what `zoo target measure --quick --json` printed"
    data = read_head(path, MOST_BYTES + 1, mend=mend)
    if len(data) > MOST_BYTES:
        raise ZooError(f"{path}: more than {MOST_BYTES >> 20} MiB; {mend}")
    found: Any = parse_json(data, path, mend=mend)
    if isinstance(found, dict) and RATES not in found and isinstance(found.get(NOTEBOOK), dict):
        found = found[NOTEBOOK].get(RATES)
    if not isinstance(found, dict) or not isinstance(found.get(RATES), dict):
        raise ZooError(f"{path}: holds no measured rates; {mend}")
    try:
        return QuickRates.model_validate(found)
    except ValidationError as error:
        raise ZooError(f"{path}: {first_fault(error)}; {mend}") from None


def with_rates(target: Target, found: QuickRates) -> Target:
    """The target with rates that were found in the place of those measured before.

    Those that were not measured now stay. ZooError where they are of another target or card, or above what this card can do.
    """
    if found.target != target.name:
        raise ZooError(f"rates of target {found.target} are none of {target.name}; import them as {found.target}")
    if not is_of_kind(found.machine, target) or found.compute_capability != target.compute_capability:
        card = f"{found.machine}, compute capability {'.'.join(map(str, found.compute_capability or ('none',)))}"
        raise ZooError(f"rates of {card} are none of target {target.name}; measure on such a machine")
    for dtype, rate in found.rates.matmul_flop_per_second.items():
        sheet = target.declared.matmul_flop_per_second.get(dtype)
        if sheet and rate > ABOVE_SHEET * sheet:
            told = f"{dtype} matmul at {rate / 1e12:.3g} TFLOP/s, where the data sheet of {target.name} says {sheet / 1e12:.3g}"
            raise ZooError(f"{told}; measure again")
    known = found.rates.model_dump(exclude_none=True, exclude={"matmul_flop_per_second"})
    matmul = {**target.measured.matmul_flop_per_second, **found.rates.matmul_flop_per_second}
    measured = target.measured.model_copy(update={**known, "matmul_flop_per_second": matmul})
    return target.model_copy(update={"measured": measured, "measured_on": found.machine})
