"""The table of submissions: order, differences, and how board and promise go together."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

from ensemble.report.submissions import agreement, submissions_data, submissions_page
from zoo.report.text import Format, as_text
from zoo.tracking.submissions import Submitted


def told(public: float, promise: float, *, day: int = 1, private: float | None = None) -> Submitted:
    at = datetime.datetime(2026, 11, day, tzinfo=datetime.UTC)
    return Submitted("plan.json", "0123456789abcdef", at, promise, 0.004, public, private, "both orders")


def test_offset_and_correlation_are_told_from_three_on() -> None:
    rng = np.random.default_rng(0)
    promise, board = rng.normal(1, 0.03, 12), rng.normal(1, 0.03, 12)
    found = agreement([told(b, p) for b, p in zip(board, promise, strict=True)])
    assert found is not None and found.submissions == 12
    assert found.offset == pytest.approx((board - promise).mean())
    assert found.offset_se == pytest.approx((board - promise).std(ddof=1) / 12**0.5)
    assert found.correlation == pytest.approx(np.corrcoef(promise, board)[0, 1])
    assert agreement([told(1.0, 0.9), told(1.1, 0.9)]) is None


def test_one_and_the_same_promise_correlates_with_nothing() -> None:
    found = agreement([told(public, 0.9) for public in (0.91, 0.92, 0.96)])
    assert found is not None and found.correlation is None and found.offset == pytest.approx(0.03)
    assert "correlation" not in as_text(submissions_page([told(public, 0.9) for public in (0.91, 0.92, 0.96)]))


def test_the_page_has_every_number_and_says_how_to_begin() -> None:
    page = as_text(submissions_page([told(0.98, 0.99, private=0.97), told(0.95, 0.96, day=2)]), Format.markdown)
    assert "| plan.json | 012345 | 2026-11-01 00:00 | 0.9900 | 0.0040 | 0.9800 | 0.9700 | -0.0100 | both orders |" in page
    assert "(best)" in page.splitlines()[-1]
    assert "ensemble submitted PLAN --public" in as_text(submissions_page([]))
    assert submissions_data([])["agreement"] is None
