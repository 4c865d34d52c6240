"""What a prediction leaves for MLflow: a small file of the home, whatever happened meanwhile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ensemble.plan import load_plan
from ensemble.report.record import record_prediction
from tests.helpers.predictions import make_plan, member, run
from zoo.tracking.builds import build_key
from zoo.tracking.home import kept_uses


@pytest.mark.parametrize("gone", [True, False])
def test_a_prediction_is_recorded_under_the_plan_that_it_carried_out(gone: bool, place: Path) -> None:
    """Not under what is in the plan's file when the prediction ends: that may be edited or removed meanwhile."""
    path = make_plan(place, [member(place, "good@ab-512")])
    key = build_key(load_plan(path).model_dump(mode="json"))
    done = run(place, path)
    path.unlink() if gone else path.write_text(path.read_text().replace('"margin": 1', '"margin": 1.5'))
    record_prediction(place / "battles.csv", done)
    (kept,) = kept_uses().glob("prediction-*.json")
    assert json.loads(kept.read_text())["build"] == key
