"""Calibrations and summaries written by hand, for tests of what reads them."""

from __future__ import annotations

import datetime
from typing import Any

from ensemble.plan import Calibration, RowSummary

SUMMARY = RowSummary(rows=100, quantiles={"tie": (0.1, 0.2, 0.3)})


def calibration(**fields: Any) -> Calibration:
    """One that changes nothing unless `fields` say so."""
    usual: dict[str, Any] = {
        "kept": True,
        "battles": "votes.csv",
        "dataset_digest": "1",
        "rows": 50,
        "prompts": 40,
        "also_in_fit": 0,
        "log_loss_before": 1.1,
        "log_loss_before_se": 0.02,
        "log_loss": 1.05,
        "log_loss_se": 0.015,
        "gain": 0.05,
        "gain_se": 0.02,
        "made_from": "plan.json 0123456789ab",
        "made_at": datetime.datetime(2024, 5, 2, tzinfo=datetime.UTC),
        "summary": SUMMARY,
    }
    return Calibration(**{"members_from": {}, **usual, **fields})
