"""What an entry takes for a file on a target: forecast, or measured first where asked."""

from __future__ import annotations

from pathlib import Path

from zoo.contracts import Entry, Say
from zoo.cost.forecast import Forecast, forecast
from zoo.cost.lengths import file_of
from zoo.cost.measure import measure, samples_folder
from zoo.errors import ZooError
from zoo.pipeline.weights import fetched_folder
from zoo.settings import store_folder
from zoo.targets import Target


def forecast_file(
    entry: Entry, machine: Target, *, rows: int | None, lengths: Path | None, measured: bool = False, say: Say
) -> list[Forecast]:
    """Seconds that each variant of the entry takes for a file, with what they rest on.

    `rows`: how long the file is (None: as `lengths`); `lengths`: battles as long as its own (None: as the competition's).
    `measured`: first score a sample of them here.
    """
    store = store_folder()
    if measured and lengths is None:
        raise ZooError("--measure: give the battles to measure on with --lengths FILE")
    if measured and lengths is not None:
        measure(entry, machine, lengths, store, say=say)
    file = file_of(entry, lengths, rows, fetched_folder(entry, store))
    return list(forecast(entry, machine, file, [store, samples_folder()]))
