"""Why, as people read it: what a larger budget buys, which members matter, how alike they err."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from ensemble.plan import Change, ErrorCorrelation, MemberReason, Plan, Reasons, load_plan
from ensemble.report.page import plan_html
from ensemble.report.page_why import heat_rows
from ensemble.report.views import plan_page
from ensemble.report.why import MOST_ALIKE, MOST_OTHERS, exchange_table, next_text, others_table, own_table
from tests.helpers.plans import plan_member, plan_of, plan_pool, written
from zoo.report.text import as_text


def change(log_loss: float, *, error: float = 0.001, sure: bool = True, fits: bool = False, budget: float = 120) -> Change:
    return Change(log_loss=log_loss, standard_error=error, sure=sure, seconds=30, budget_seconds=budget, fits=fits)


def reason(name: str, with_it: Change | None = None, without_it: Change | None = None) -> MemberReason:
    return MemberReason(name=name, oof_log_loss=1.0, recalibrated_log_loss=0.95, with_it=with_it, without_it=without_it)


def planned(*others: MemberReason, everyone: Change | None = None, **fields: object) -> Plan:
    """A plan of one and two, beside which there are `others`."""
    pair = ("one", "two")
    own = (reason("one", without_it=change(0.02)), reason("two", without_it=change(-0.0001, sure=False)))
    reasons = Reasons(pool="the plan's own log pool", rows=50, members=(*own, *others), everyone=everyone)
    members = [plan_member(name, weight=0.5) for name in pair]
    pools = [plan_pool(pair, 0.9), *(plan_pool((name,), 1.0) for name in pair)]
    return plan_of(members, pools, reasons=reasons, **fields)


def alike(count: int) -> ErrorCorrelation:
    matrix = tuple(tuple(1.0 if i == j else 0.5 for j in range(count)) for i in range(count))
    apart = tuple(tuple(0.0 if i == j else 0.25 for j in range(count)) for i in range(count))
    return ErrorCorrelation(members=tuple(f"m{i}" for i in range(count)), correlation=matrix, disagreement=apart)


@pytest.mark.parametrize(
    ("others", "everyone", "text"),
    [
        ((), None, "would buy nothing, every candidate is in the plan and sees every row"),
        ((reason("cheap", change(-0.01, fits=True)),), None, "is not needed: each other candidate would fit beside this plan"),
        (
            (reason("dear", change(-0.001, sure=False)),),
            None,
            "what does not fit beside this plan would surely add nothing by itself",
        ),
        ((reason("bad", change(0.01)),), None, "what does not fit beside this plan would surely add nothing"),
        ((reason("dear", change(-0.01)),), None, "dear: -0.0100 (se 0.0010) at 2 min 0 s"),
        (
            (reason("most", change(-0.03, budget=7200)), reason("next", change(-0.01))),
            change(-0.05, sure=False, budget=36000),
            "next: -0.0100 (se 0.0010) at 2 min 0 s; most: -0.0300 (se 0.0010) at 2 h 0 min; "
            "all 4 candidates: -0.0500 (se 0.0010, not surely) at 10 h 0 min",
        ),
    ],
)
def test_what_a_larger_budget_would_buy(others, everyone, text):
    assert next_text(planned(*others, everyone=everyone)).startswith(f"more budget: {text}")


def test_show_says_why_of_every_member():
    plan = planned(reason("dear", change(-0.01)), reason("slow", None), error_correlation=alike(3))
    text = as_text(plan_page(plan))
    own, others = own_table(plan).records(), others_table(plan).records()
    assert [(line["member"], line["without_it"], line["saved_seconds"]) for line in own] == [
        ("one", 0.02, -30),
        ("two", -0.0001, -30),
    ]
    assert [(line["member"], line["is_better"], line["fits"]) for line in others] == [
        ("dear", "surely", "no"),
        ("slow", "not judged", "-"),
    ]
    assert "50 of the 100 rows, taken evenly" in text and "1 change, of the members" in text
    assert "errors of" in text and "1 m0" in text


def test_what_is_too_dear_beside_the_plan_stands_in_the_place_of_a_member():
    dear = reason("dear", change(-0.02)).model_copy(
        update={"in_place_of": "one", "exchanged": change(0.01).model_copy(update={"seconds": -90.0})}
    )
    near = reason("near", change(-0.01)).model_copy(update={"in_place_of": "two", "exchanged": change(-0.001, sure=False)})
    plan = planned(dear, near)
    lines = exchange_table(plan).records()
    assert [(line["member"], line["in_place_of"], line["is_better"]) for line in lines] == [
        ("near", "two", "not surely"),
        ("dear", "one", "surely not"),
    ]
    text, page = as_text(plan_page(plan)), plan_html(plan)
    assert "-1 min 30 s" in text and "in place of" in text
    assert "<td>dear</td><td>one</td><td>+0.0100 ± 0.0010</td><td>worse</td><td>−1 min 30 s</td>" in page
    assert "in place of" not in as_text(plan_page(planned(reason("dear", change(-0.02)))))


def test_a_gated_member_stands_among_the_others_for_seeing_every_row():
    plan = planned()
    gated = plan.members[1].model_copy(update={"coverage": 0.5, "gate": object()})
    plan = plan.model_copy(
        update={
            "members": (plan.members[0], gated),
            "reasons": plan.reasons.model_copy(update={"members": (reason("one"), reason("two", change(-0.01)))}),
        }
    )
    assert [row[0] for row in others_table(plan).rows] == ["two on every row"]
    assert "two on every row: -0.0100" in next_text(plan)


def test_many_members_are_cut_in_a_terminal_and_whole_on_the_page():
    others = [reason(f"other{place:02d}", change(0.001 * place, sure=False)) for place in range(MOST_OTHERS + 5)]
    plan = planned(*others, error_correlation=alike(MOST_ALIKE + 3))
    text = as_text(plan_page(plan))
    assert f"other{MOST_OTHERS - 1:02d}" in text and f"other{MOST_OTHERS:02d}" not in text and "and 5 more" in text
    assert f"{MOST_ALIKE} m{MOST_ALIKE - 1}" in text and f"m{MOST_ALIKE + 2}" not in text
    page = plan_html(plan)
    assert all(name.name in page for name in others) and f"{MOST_ALIKE + 3} m{MOST_ALIKE + 2}" in page


def test_the_page_has_the_tables_and_the_map():
    page = plan_html(planned(reason("<dear>", change(-0.01)), error_correlation=alike(2)))
    assert "Why these members" in page and "How alike members err" in page
    assert "&lt;dear&gt;" in page and "<dear>" not in page
    assert "−0.0100 ± 0.0010" in page and "+0.0200 ± 0.0010" in page


def test_the_map_is_dark_where_members_err_alike_and_its_text_can_be_read_on_it():
    cells = heat_rows(alike(2))[0]["cells"]
    assert [cell["text"] for cell in cells] == ["1.00", "0.50"]
    assert [cell["color"] for cell in cells] == ["#fff", "#1b1b1b"]
    assert "25.0% of the rows" in cells[1]["title"]


def test_a_plan_that_knows_no_reasons_shows_as_before_and_its_file_has_none(tmp_path: Path):
    pair = ("one", "two")
    plan = plan_of([plan_member(name) for name in pair], [plan_pool(pair, 0.9)])
    path = written(plan, tmp_path / "old.json")
    assert not {"reasons", "error_correlation"} & json.loads(path.read_text()).keys()
    text, page = as_text(plan_page(load_plan(path))), plan_html(load_plan(path))
    assert "not in the plan" not in text and "more budget" not in text and "errors of" not in text
    assert "Why these members" not in page and "How alike" not in page


def test_reasons_survive_the_disk_and_a_map_of_another_shape_is_refused(tmp_path: Path):
    plan = planned(reason("dear", change(-0.01)), error_correlation=alike(3), everyone=change(-0.02))
    assert load_plan(written(plan, tmp_path / "plan.json")) == plan
    with pytest.raises(ValidationError, match="a number for each pair of the 2 members"):
        ErrorCorrelation(members=("a", "b"), correlation=((1.0, 0.5),), disagreement=((0.0, 0.1), (0.1, 0.0)))
