"""`ensemble show --html`: one page that needs nothing else and says what the plan says, with what is at hand."""

from __future__ import annotations

import html.parser
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensemble.members.gather import align
from ensemble.plan import Plan
from ensemble.report.page import blend_at_hand, plan_html
from ensemble.search.build import BuildRequest, build_plan
from zoo.data.battles import read_battles
from zoo.data.sample import write_sample
from zoo.pipeline.import_table import import_scores
from zoo.pipeline.members import score_tables
from zoo.scores.metrics import log_loss_rows
from zoo.targets import load_target


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    """A plan of three imported members, one of them with markup in its reason to stay out, and the store they lie in."""
    folder = tmp_path_factory.mktemp("page")
    battles = folder / "battles.csv"
    write_sample(battles, 300, seed=5)
    frame, rng = read_battles(battles).frame, np.random.default_rng(1)
    truth = np.eye(3)[frame["label"].to_numpy()]
    for name, sharpness, seconds in (("weak", 0.3, 0.01), ("fair", 0.7, 0.1), ("good", 1.0, 0.4)):
        p = np.exp(truth * sharpness + rng.normal(size=truth.shape))
        table = pd.DataFrame(p / p.sum(axis=1, keepdims=True), columns=["p_a", "p_b", "p_tie"])
        table.insert(0, "id", frame["id"])
        table.to_csv(folder / f"{name}.csv", index=False)
        price = {"target": "t4x2", "load_seconds": 5.0, "seconds_per_row": seconds, "store": folder / "store"}
        import_scores(name, folder / f"{name}.csv", battles, **price)
    members = align(score_tables(folder / "store"), target="t4x2", battles=battles)
    plan = build_plan(members, BuildRequest(load_target("t4x2"), 7200.0, 25_000))
    return plan.model_copy(update={"left_out": {"evil": "<script>alert(1)</script> & co"}}), folder / "store"


class Seen(html.parser.HTMLParser):
    """Tags and attributes of a page, and whether every element that opens closes."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ("meta", "br", "img", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(page: str) -> Seen:
    seen = Seen()
    seen.feed(page)
    assert seen.open == []
    return seen


def test_the_page_needs_nothing_else(built: tuple[Plan, Path]) -> None:
    seen = parse(plan_html(*built))
    references = [value for _, name, value in seen.attributes if name in ("src", "href", "xlink:href", "action", "data")]
    assert references and all(value.startswith("#") for value in references)
    assert not [tag for tag, _, _ in seen.attributes if tag in ("script", "link", "iframe", "img")]
    assert not re.search(r"url\((?!#)|@import", plan_html(*built))
    ids = [value for _, name, value in seen.attributes if name == "id"]
    assert len(ids) == len(set(ids)) and {reference[1:] for reference in references} <= set(ids)


def test_the_page_says_what_the_plan_says(built: tuple[Plan, Path]) -> None:
    plan, store = built
    text = parse(plan_html(plan, store)).text
    for member in plan.members:
        assert member.name in text and f"{member.weight:.3f}" in text and f"{member.oof_log_loss:.4f}" in text
    assert f"{plan.oof_log_loss:.4f}" in text and plan.margin_reason in text and plan.estimate in text
    assert all(name.replace("_", " ") in text and f"{loss:.4f}" in text for name, loss in plan.baselines.items())
    assert "GPU 0" in text and "GPU 1" in text and "this plan" in text and "A wins" in text
    assert "<script>alert(1)</script> & co" in text, "text of others is text, not markup"


def test_reliability_is_of_the_plan_s_own_blend(built: tuple[Plan, Path]) -> None:
    plan, store = built
    blended, _ = blend_at_hand(plan, store)
    assert blended is not None
    p, y = blended
    assert p.shape == (300, 3) and np.allclose(p.sum(axis=1), 1)
    full = next(pool for pool in plan.pools if len(pool.members) == len(plan.members) and not pool.planned)
    assert log_loss_rows(p, y).mean() == pytest.approx(full.log_loss, abs=1e-6)


def test_without_the_tables_the_page_says_so(built: tuple[Plan, Path], tmp_path: Path) -> None:
    plan, store = built
    assert "Not drawn: the members' score tables are not on this machine." in parse(plan_html(plan, tmp_path / "none")).text
    other = plan.model_copy(update={"dataset_digest": "0" * 64})
    assert "has no score table of" in parse(plan_html(other, store)).text
    alone = plan.model_copy(update={"frontier": plan.frontier[:1], "created_at": datetime(2026, 1, 1, tzinfo=UTC)})
    assert "there is no frontier to draw" in parse(plan_html(alone)).text
