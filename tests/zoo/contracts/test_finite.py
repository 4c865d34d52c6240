"""No number of a contract is infinite or not one, wherever it comes from; what is written down reads back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from zoo.contracts import Cost, StageResult, TrainSpec

WILD = (float("inf"), float("-inf"), float("nan"))


@pytest.mark.parametrize("value", WILD)
@pytest.mark.parametrize("name", ["load_seconds", "seconds_per_row", "seconds_per_token_sq"])
def test_prices(name: str, value: float) -> None:
    with pytest.raises(ValidationError, match=name):
        Cost.model_validate({"target": "cpu", "load_seconds": 1, name: value})


@pytest.mark.parametrize("value", WILD)
def test_inside_mappings_and_tuples(value: float) -> None:
    with pytest.raises(ValidationError):
        StageResult(metrics={"val/log_loss": value})
    with pytest.raises(ValidationError):
        StageResult(curves={"train/loss": ((1, value),)})
    with pytest.raises(ValidationError):
        TrainSpec(learning_rate=value)


@given(st.dictionaries(st.text(max_size=5), st.floats()))
def test_a_result_reads_back_or_is_refused(metrics: dict[str, float]) -> None:
    try:
        result = StageResult(metrics=metrics)
    except ValidationError:
        return
    assert StageResult.model_validate_json(result.model_dump_json()) == result
