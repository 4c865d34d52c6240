"""A plan's page in a real browser: nothing sticks out of it, on a desk or in a hand, and its words can be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ensemble.report.page import plan_html
from ensemble.search.build import build_plan
from tests.helpers.browser import browser_page
from tests.helpers.members import make_members, request

pytestmark = pytest.mark.services
NAMES = ("lexical", "qwen2.5-coder-1.5b@awq-ab", "deberta-v3-large-finetuned-on-the-competition@ab", "yi-34b@awq-2048-tokens")


def test_no_part_of_the_page_is_wider_than_the_screen(tmp_path: Path) -> None:
    kinds = {name: (0.4 + 0.2 * place, 0.4, 30, 0.15 * place + 0.01) for place, name in enumerate(NAMES)}
    plan = build_plan(make_members(kinds, rows=300), request(9_000, coverage=False))
    path = tmp_path / "plan.html"
    path.write_text(plan_html(plan))
    with browser_page() as page:
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            texts = "[...document.querySelectorAll('p, h1, h2, dt, dd, .tile')]"
            assert page.evaluate(f"{texts}.filter(e => e.scrollWidth > e.clientWidth + 1).length") == 0
            smallest = (
                "Math.min(...[...document.querySelectorAll('td, th, p')].map(e => parseFloat(getComputedStyle(e).fontSize)))"
            )
            assert page.evaluate(smallest) >= 14
            if folder := os.environ.get("ZOO_SCREENSHOTS"):
                page.screenshot(path=Path(folder) / f"plan-{width}.png", full_page=True)
