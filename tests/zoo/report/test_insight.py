"""`zoo insight` and `zoo report`: slices of the right rows, pages that need nothing else, and nothing of a battle as markup."""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.browser import browser_page
from tests.helpers.command_lines import run_command
from zoo.cli.main import main
from zoo.data.battles import read_battles
from zoo.pipeline.import_table import import_scores
from zoo.report.insight_page import slice_rows
from zoo.report.insight_rows import CODE, LABEL, LANGUAGE, TURNS, InsightRows, extremes, quarters
from zoo.report.rows_to_read import Shown
from zoo.scores.metrics import log_loss_rows
from zoo.scores.parts import PartLoss
from zoo.scores.tables import probabilities

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)> {{ 7 * 7 }} \u202e'
PRICE = {"target": "cpu", "load_seconds": 1.0, "seconds_per_row": 0.01}
ENGLISH = "Which of these two answers explains the water cycle to a child in a few plain words?"
GERMAN = "Welche dieser beiden Antworten erklärt einem Kind den Wasserkreislauf mit einfachen Worten?"


def run_zoo(home: Path, *words: object) -> str:
    """A `zoo` command; its stdout."""
    done = run_command(main, "zoo", *map(str, words), home=home, folder=home)
    assert done.returncode == 0, done.stderr
    return done.stdout


def battles_of(folder: Path, rows: int = 120) -> Path:
    """Battles of two languages, of one turn and two, with code and without; a prompt and an answer that are hostile."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(rows):
        prompt = [f"{ENGLISH if number % 2 else GERMAN} {number // 2}", *(["And then?"] if number % 3 == 0 else [])]
        answers = [[f"answer {k} {number} " * (1 + number % 7)] * len(prompt) for k in range(2)]
        if number % 4 == 0:
            answers[0][0] += "\n```python\nprint(1)\n```"
        if number == 7:
            prompt[0], answers[1][0] = f"{HOSTILE} {ENGLISH}", HOSTILE
        label = rng.integers(0, 3)
        lines.append([f"r{number}", *map(json.dumps, (prompt, *answers)), *np.eye(3, dtype=int)[label]])
    names = ["id", "prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"]
    path = folder / "battles.csv"
    pd.DataFrame(lines, columns=names).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one scored member, `mine`, which is worst of all on the hostile row."""
    folder = tmp_path_factory.mktemp("insight")
    path = battles_of(folder)
    frame, rng = read_battles(path).frame, np.random.default_rng(1)
    p = np.exp(np.eye(3)[frame["label"].to_numpy()] * 0.5 + rng.normal(size=(len(frame), 3)) * 0.3)
    place = frame.index[frame["id"] == "r7"][0]
    p[place] = np.where(np.arange(3) == frame["label"][place], 1e-4, 1)
    table = pd.DataFrame(p / p.sum(axis=1, keepdims=True), columns=["p_a", "p_b", "p_tie"])
    table.insert(0, "id", frame["id"])
    table.to_csv(folder / "mine.csv", index=False)
    import_scores("mine", folder / "mine.csv", path, store=folder / "store", **PRICE)
    return folder


def rows_of(home: Path) -> InsightRows:
    frame = read_battles(home / "battles.csv").frame
    table = pd.read_csv(home / "mine.csv").set_index("id").loc[frame["id"]]
    return InsightRows(frame, probabilities(table), np.arange(len(frame)), np.zeros(len(frame), bool))


def test_slices_hold_the_rows_that_they_name(home: Path) -> None:
    rows = rows_of(home)
    parts = {(part.kind, part.name): part.inside for part in rows.parts}
    number = rows.frame["id"].str[1:].astype(int).to_numpy()
    assert (parts[LANGUAGE, "de"] == (number % 2 == 0)).all()
    assert (parts[TURNS, "two turns"] == (number % 3 == 0)).all()
    assert (parts[CODE, "in an answer alone"] == (number % 4 == 0)).all() and (CODE, "in the prompt") not in parts
    assert (parts[LABEL, "tie"] == (rows.y == 2)).all()
    for kind in {kind for kind, _ in parts}:
        assert sum(inside for (own, _), inside in parts.items() if own == kind).max() == 1, f"{kind}: slices share a row"


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60))
def test_quarters_part_all_rows_in_order(values: list[int]) -> None:
    lengths = np.array(values, dtype=float)
    found = list(quarters(lengths))
    assert (sum(inside.astype(int) for _, inside in found) == 1).all(), "each row is in one of them"
    ends = [(lengths[inside].min(), lengths[inside].max()) for _, inside in found]
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ends)) and len(found) <= 4
    assert len({name for name, _ in found}) == len(found)


def test_an_error_that_nobody_knows_is_no_zero() -> None:
    part = PartLoss(TURNS, "one turn", 20, 0.5, 1.0, float("nan"), 0.1, float("nan"))
    ((_, (row,)),) = slice_rows([part])
    assert (row["error"], row["against_error"], row["verdict"]) == ("–", "–", "–")


def test_the_worst_and_the_best_rows_are_the_extremes() -> None:
    assert extremes(np.array([0.5, 3.0, 0.1, 2.0]), 2) == ([1, 3], [2, 0])
    assert extremes(np.array([1.0]), 20) == ([0], [0])


def test_insight_says_the_same_as_the_table(home: Path, tmp_path: Path) -> None:
    page = tmp_path / "new" / "mine.html"
    found = json.loads(run_zoo(home, "insight", "mine", "--data", home / "battles.csv", "--worst", 3, "-o", page, "--json"))
    rows = rows_of(home)
    losses = log_loss_rows(rows.p, rows.y)
    assert found["metrics"]["val/log_loss"] == pytest.approx(losses.mean())
    assert [row["log_loss"] for row in found["worst"]] == pytest.approx(sorted(losses, reverse=True)[:3])
    assert found["worst"][0]["id"] == "r7" and len(found["best"]) == 3
    by_slice = {(part["kind"], part["name"]): part for part in found["slices"]}
    german = rows.frame["id"].str[1:].astype(int).to_numpy() % 2 == 0
    assert by_slice[LANGUAGE, "de"]["loss"] == pytest.approx(losses[german].mean())
    assert by_slice[LANGUAGE, "de"]["against_rest"] == pytest.approx(losses[german].mean() - losses[~german].mean())
    assert sum(part["gap"] for part in found["calibration"]) == pytest.approx(0)
    text = run_zoo(home, "insight", "mine", "--data", home / "battles.csv", "-o", page)
    assert "r7" in text and str(page) in text and "A wins" in text


def test_nothing_of_a_battle_is_markup(home: Path, tmp_path: Path) -> None:
    page = tmp_path / "mine.html"
    run_zoo(home, "insight", "mine", "--data", home / "battles.csv", "-o", page)
    text = page.read_text()
    assert "<script" not in text and "<img" not in text and "&lt;script&gt;alert(" in text and "{{ 7 * 7 }}" in text
    assert not re.search(r"(src|href)=\"(?!#)", text) and not re.search(r"url\((?!#)|@import", text)
    assert text.count('role="img"') == text.count("aria-label"), "what is drawn is said"


def test_no_sign_of_a_text_turns_the_line_around_it() -> None:
    row = Shown("r\u202e1", [], ["\u202e\u2066some text" + "." * 200], [])
    assert row.head == "some text" + "." * 81 and row.called == "r1"
    assert Shown("r1", [], [""], []).head == Shown("r1", [], [], []).head == "no text"


def test_a_report_is_one_page_and_one_markdown_of_the_same(home: Path, tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    found = json.loads(run_zoo(home, "report", "mine", "-o", page, "--json"))
    assert {"Numbers", "Data", "Slices", "Cost", "Lineage"} <= set(found)
    numbers = {row["metric"]: row["value"] for row in found["Numbers"][0]}
    assert numbers["val/rows"] == 120
    html, markdown = page.read_text(), page.with_suffix(".md").read_text()
    for title in found:
        assert f"<h2>{title}</h2>" in html and f"## {title}" in markdown
    assert "battles.csv" in html and "battles.csv" in markdown and "<script" not in html
    again = run_zoo(home, "report", "mine", "-o", page)
    assert page.read_text() == html and str(page.with_suffix(".md")) in again, "the same run gives the same page"


@pytest.mark.services
def test_pages_fit_a_desk_and_a_hand_in_the_dark_too(home: Path, tmp_path: Path) -> None:
    paths = {"insight": tmp_path / "insight.html", "report": tmp_path / "report.html"}
    run_zoo(home, "insight", "mine", "--data", home / "battles.csv", "-o", paths["insight"])
    run_zoo(home, "report", "mine", "-o", paths["report"])
    with browser_page() as page:
        dialogs: list[object] = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog), dialog.dismiss()))
        for name, path in paths.items():
            for width in (1280, 390):
                for scheme in ("light", "dark"):
                    page.emulate_media(color_scheme=scheme)
                    page.set_viewport_size({"width": width, "height": 900})
                    page.goto(path.as_uri())
                    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
                    assert page.evaluate("document.documentElement.scrollWidth") <= width
                    if folder := os.environ.get("ZOO_SCREENSHOTS"):
                        page.screenshot(path=Path(folder) / f"{name}-{scheme}-{width}.png", full_page=True)
        assert dialogs == [], "a battle's script ran"
        page.emulate_media(color_scheme="dark")
        page.goto(paths["insight"].as_uri())
        fills = "[...document.querySelectorAll('svg text')].map(each => getComputedStyle(each).fill)"
        assert "rgb(0, 0, 0)" not in page.evaluate(fills), "black text in the dark"
