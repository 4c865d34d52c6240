"""The report of a made file: every row accounted for, the same for the same seed, and a page that can be read anywhere."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.browser import browser_page
from tests.helpers.made import invoke, make_labels
from zoo.data.battles import read_battles
from zoo.data.made import beside
from zoo.report.made_page import made_html
from zoo.report.page import stacked_bars
from zoo.report.rows_to_read import Shown
from zoo.store import discard, list_artifacts


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels, and all that they were made of, with a home; made once, and never changed."""
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_HOME", str(root / "home"))
        make_labels(root)
    return root


@pytest.fixture
def labelled(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_HOME", str(made / "home"))
    return made / "labelled.csv.gz"


@pytest.fixture
def copy(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all that, home included, for a test to damage."""
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "copy" / "home"))
    return tmp_path / "copy"


def told(*words: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(invoke("report", *words, "--json"))
    return found


def test_every_row_is_accounted_for_and_agrees_with_the_files(labelled: Path) -> None:
    found, rows = told(labelled), len(read_battles(labelled).frame)
    assert all(each["closes"] for each in found["accounts"])
    by_what = {(each["stage"], each["what"]): each for each in found["accounts"]}
    assert by_what["mine", "conversations"]["total"] == 161 and by_what["mine", "pairs"]["total"] == 40 * 6
    label = {part["reason"]: part["count"] for part in by_what["label", "pairs"]["parts"]}
    assert label == {"ok": rows, "unjudged": 3} and rows == 147
    assert found["handovers"] == [{"stage": "label", "read": "pairs", "written": 150, "rows": 150}]
    facts = found["facts"]
    assert sum(model["pairs"] for model in facts["models"]) == 2 * rows
    assert abs(sum(facts["labels"][name] for name in ("a", "b", "tie")) - 1) < 1e-6 and sum(facts["consistency"]) == rows
    assert [source["rows"] for source in facts["sources"]] == [rows] and facts["licences"][0]["name"] == "MIT"
    assert found["near"][0]["file"] == "never.csv" and found["near"][0]["near"] == 0
    folds = found["main"][0]["folds"]
    assert sum(fold["exact"] for fold in folds) == rows, "each pair's prompt is of one fold of the human file"
    assert "may be used" in found["verdicts"]["ab + ba"]


def test_a_count_that_is_missing_is_told(copy: Path, tmp_path: Path) -> None:
    labelled = copy / "labelled.csv.gz"
    (artifact,) = list_artifacts(copy / "home" / "store", "label")
    report = json.loads((artifact.path / "report.json").read_text())
    report["counts"][0]["count"] -= 1
    (artifact.path / "report.json").write_text(json.dumps(report))
    page = tmp_path / "page.html"
    assert "149 of 150 pairs accounted for" in invoke("report", labelled, "-o", page)
    assert "SOME ARE MISSING" in page.read_text() and "accounted for.</p>" not in page.read_text()


def test_the_page_is_the_same_for_a_seed_and_needs_nothing_else(labelled: Path, tmp_path: Path) -> None:
    pages = [tmp_path / f"{n}.html" for n in range(3)]
    for page, seed in zip(pages, (1, 1, 2), strict=True):
        invoke("report", labelled, "-o", page, "--seed", seed, "--rows", 2)
    one, again, other = (page.read_text() for page in pages)
    assert one == again != other
    assert not re.search(r"<(script|link|img|iframe)|src=|url\(|https?:", one)
    for kind in ("label and humans agree", "label and humans differ", "near coin-flips", "the longest", "left out: unjudged"):
        assert f"<h3>{kind}</h3>" in one


def test_mined_pairs_have_a_report_too_and_one_without_its_store(copy: Path) -> None:
    pairs, home = copy / "pairs.csv.gz", copy / "home"
    found = told(pairs, "--never", copy / "human.csv")
    assert found["stage"] == "mine" and found["facts"]["labels"] is None
    assert [(near["file"], near["exact"]) for near in found["near"]] == [("human.csv", 150), ("never.csv", 0)]
    for artifact in list_artifacts(home / "store"):
        discard(artifact.path, home)
    for note in (home / "store" / ".written").iterdir():
        note.unlink()
    alone = told(pairs)
    assert [each for each in alone["accounts"] if not each["closes"]] == [] and len(alone["accounts"]) == 3
    beside(pairs).unlink()
    with pytest.raises(Exception, match="no artifact of"):
        told(pairs)


def test_a_table_of_verdicts_has_a_report_as_well(tmp_path: Path) -> None:
    """Of a stage that says other things of its judges than a label does, and has left no artifact here."""
    table, page = tmp_path / "verdicts.csv", tmp_path / "page.html"
    table.write_text("id,p_a,p_b,p_tie,consistency,status\n1,0.5,0.25,0.25,0.9,ok\n2,,,,,unjudged\n3,0.1,0.75,0.15,0.4,ok\n")
    counts = [{"what": "pairs", "reason": "ok", "count": 2}, {"what": "pairs", "reason": "unjudged", "count": 1}]
    beside(table).write_text(json.dumps({"stage": "judge", "counts": counts, "judges": {"x": {"folds": 5}}}))
    found = told(table, "-o", page)
    facts = found["facts"]
    assert facts["rows"] == 3 and facts["labels"]["a"] == pytest.approx(0.3) and sum(facts["consistency"]) == 2
    assert found["judges"] == {} and "How consistent the judge is" in page.read_text()


TEXT = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    ["<script>alert(1)</script>", "&amp;", '"><b>', "</div>"]
)


@given(TEXT, TEXT, TEXT)
def test_no_text_of_a_row_is_markup(prompt: str, answer: str, name: str) -> None:
    facts = {"rows": 1, "prompts": 1, "models": [], "lengths": {}}
    lineage = {"what": "file", "digest": "0", "file": name, "made_by": []}
    empty: dict[str, Any] = {key: [] for key in ("accounts", "handovers", "costs", "filters", "near", "main")}
    data = {"file": name, "sha256": "0", "stage": "mine", "facts": facts, "lineage": lineage, "judges": {}, "verdicts": {}}
    shown = Shown(name, [(name, name)], [prompt], [(name, [answer])])
    html = made_html({**data, **empty, "warnings": [name]}, {"any": [shown]}, 0)
    assert "<script" not in html and "<b>" not in html.replace('<div class="tile"><b>', "")
    assert html.count("<details>") == 1 and html.count("</details>") == 1 and html.rstrip().endswith("</html>")


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda parts: sum(parts) > 0.01))
def test_a_bar_is_as_wide_as_its_shares_and_says_them(parts: list[float]) -> None:
    shares = [part / sum(parts) for part in parts]
    row = stacked_bars([("x", shares)], ("a", "b", "c"))["rows"][0]
    assert abs(sum(float(part["width"]) for part in row["parts"]) - 100) < 0.02
    assert row["said"].startswith("x: a ")


@pytest.mark.services
def test_nothing_sticks_out_of_the_page_on_a_desk_or_in_a_hand(labelled: Path, tmp_path: Path) -> None:
    page_file = tmp_path / "labelled.html"
    invoke("report", labelled, "-o", page_file)
    with browser_page() as page:
        for width in (1280, 390):
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                page.set_viewport_size({"width": width, "height": 900})
                page.goto(page_file.as_uri())
                page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                texts = "[...document.querySelectorAll('p, h1, h2, h3, summary, .tile, .said')]"
                assert page.evaluate(f"{texts}.filter(e => e.scrollWidth > e.clientWidth + 1).length") == 0
                ink, paper = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
                assert abs(brightness(ink) - brightness(paper)) > 150
                if folder := os.environ.get("ZOO_SCREENSHOTS"):
                    page.screenshot(path=Path(folder) / f"made-{width}-{scheme}.png", full_page=True)


def brightness(colour: str) -> float:
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
