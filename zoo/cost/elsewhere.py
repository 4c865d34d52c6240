"""What a member costs on a machine that it was not scored on, by its entry's forecast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from zoo.checks import check_entry
from zoo.contracts import Cost, Entry, Foretold, Variant, entry_of_form, forms_of
from zoo.cost.fit import row_seconds
from zoo.cost.forecast import Forecast, Measured, forecasts_of, measurements
from zoo.cost.lengths import File, estimated
from zoo.cost.published import load_published
from zoo.errors import ZooError
from zoo.pipeline.weights import fetched_folder
from zoo.targets import Target


@dataclass(frozen=True)
class Forecaster:
    """Forecasts for a file of `rows` rows on `target`.

    `stores`: where measurements of entries lie, the first with fetched weights too. Each entry's are looked for once.
    """

    target: Target
    rows: int
    stores: Sequence[Path] = ()
    _known: dict[str, list[Measured]] = field(default_factory=dict)

    def cost(self, entry: Entry, variant: Variant, tokens: np.ndarray) -> Cost | None:
        """The entry's cost for rows of these tokens; of a mean row where they are not known (all 0).

        None where nothing tells its speed there; ZooError, the reason, where it does not fit.
        """
        folder = fetched_folder(entry, self.stores[0]) if self.stores else None
        for finding in check_entry(_of_form(entry, variant), self.target, model_folder=folder):
            if finding.verdict == "fail":
                raise ZooError(f"{entry.name} does not fit {self.target.name}: {finding.check}: {finding.what}; {finding.mend}")
        typical = estimated(load_published().lengths, None, entry.prompt, variant)
        lengths = tokens if tokens.any() else typical
        found = self.forecast(entry, variant, lengths)
        if found is None:
            return None
        cost = foretold(found)
        return cost if tokens.any() else _by_rows(cost, lengths)

    def forecast(self, entry: Entry, variant: Variant, lengths: np.ndarray) -> Forecast | None:
        """The best forecast for rows of these lengths (tokens)."""
        if entry.name not in self._known:
            self._known[entry.name] = measurements(entry, self.stores)
        file = File(self.rows, {variant: lengths}, ())
        return next(iter(forecasts_of(entry, variant, self.target, file, self._known[entry.name])), None)


def _of_form(entry: Entry, variant: Variant) -> Entry:
    """The entry with the variants of one variant's form alone: others need not run where that does."""
    form = variant.form or (entry.quantize.scheme if entry.quantize else None)
    return entry_of_form(entry, form) if form in forms_of(entry) else entry


def foretold(forecast: Forecast) -> Cost:
    """The cost of a forecast, marked with how it was told."""
    seconds, submitted = forecast.seconds, forecast.submission_seconds
    mark = Foretold(
        as_entry=f"{forecast.entry}@{forecast.variant.slug}",
        basis=forecast.basis,
        low=seconds.low / seconds.likely,
        high=seconds.high / seconds.likely,
        high_submitted=max(1.0, submitted.high / seconds.likely) if submitted else None,
    )
    return forecast.cost.model_copy(update={"forecast": mark})


def _by_rows(cost: Cost, lengths: np.ndarray) -> Cost:
    """The same cost of a mean row, for tables that do not know their rows' tokens."""
    mean = float(row_seconds(cost, lengths).mean())
    return cost.model_copy(
        update={"seconds_per_row": mean, "seconds_per_token": 0.0, "seconds_per_token_sq": 0.0, "pieces": ()}
    )
