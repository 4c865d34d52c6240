"""The quick measurement of a machine, with torch and what predicting imports alone."""

from __future__ import annotations

import datetime
import tempfile
import time
from pathlib import Path

from zoo.reading import check_ordinary
from zoo.targets import is_of_kind, list_targets, machine_fingerprint
from zoo.targets.quick import QuickRates


def quick_measurement(file: Path | None = None) -> QuickRates:
    """This machine's rates in under a minute, with what machine it is.

    `file`: one whose reading is timed, as a checkpoint on a mount. ZooError where it cannot be read.
    """
    from zoo.stages.rates.measure import compute_capability, quick_rates

    started, machine = time.monotonic(), machine_fingerprint()
    if file is not None:
        check_ordinary(file, mend="name a file to read, as a checkpoint's weights")
    kin = [target.name for target in list_targets() if is_of_kind(machine, target)]
    folder = Path(tempfile.gettempdir())
    rates = quick_rates(folder, file)
    return QuickRates(
        target=kin[0] if kin else "here",
        machine=machine,
        compute_capability=compute_capability(),
        rates=rates,
        measured_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 1),
    )
