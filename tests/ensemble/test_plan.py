"""Plans on disk: those of earlier versions are read, and asked again of other battles, rows and variants."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ensemble.plan import load_plan, save_plan
from ensemble.predict.attempts import Setting, job_request
from ensemble.predict.workplace import Workplace
from tests.helpers.plans import plan_member, plan_of, plan_pool
from zoo.contracts import Input, LexicalScoreRequest, ScoreRequest, Selection, Variant
from zoo.errors import ZooError

# Requests as version 0.1.0 wrote them into plan.json: inputs have an empty path.
OLD_LEXICAL = {
    "stage": "lexical-score",
    "schema_version": 1,
    "revision": 1,
    "entry": "lexical",
    "model": {"path": "", "fingerprint": "19f11c134bda7947"},
    "battles": {"path": "", "fingerprint": "df68084f"},
    "selection": {"rows": "held_out", "ids": None, "max_rows": None},
    "target": "cpu",
}
OLD_SCORE = {
    **OLD_LEXICAL,
    "stage": "score",
    "entry": "tiny",
    "selection": {"rows": "listed", "ids": {"path": "", "fingerprint": "i"}, "max_rows": None},
    "held": {"n_folds": 5, "fold": 0},
    "prompt": {"template": "{prompt}{response_a}{response_b}"},
    "spec": {"variants": [{"order": "ab", "max_tokens": 512}], "chunk_rows": 10},
}


@pytest.fixture
def old_plan(tmp_path: Path) -> Path:
    names = ("lexical@ab", "tiny@ab-512", "table@ab")
    path = tmp_path / "plan.json"
    save_plan(plan_of([plan_member(name) for name in names], [plan_pool(names, 1.0)]), path)
    raw = json.loads(path.read_text())
    for member, request in zip(raw["members"], (OLD_LEXICAL, OLD_SCORE, None), strict=True):
        member["request"] = request
    path.write_text(json.dumps(raw))
    return path


def test_a_plan_of_an_earlier_version_is_read_and_written_as_it_was(old_plan: Path) -> None:
    plan = load_plan(old_plan)
    lexical, tiny, table = (member.request for member in plan.members)
    assert isinstance(lexical, LexicalScoreRequest) and lexical.model.place is None
    assert isinstance(tiny, ScoreRequest) and tiny.selection.ids == Input(fingerprint="i")
    assert table is None
    save_plan(plan, old_plan)
    assert json.loads(old_plan.read_text())["members"][0]["request"] == OLD_LEXICAL
    assert load_plan(old_plan) == plan


def test_its_requests_are_asked_again_of_other_battles_rows_and_variants(old_plan: Path, tmp_path: Path) -> None:
    lexical, tiny, table = load_plan(old_plan).members
    checkpoint = tmp_path / "store" / f"lexical-train-{lexical.checkpoint}"
    for name in (checkpoint, tmp_path / "store" / f"quantize-{tiny.checkpoint}"):
        name.mkdir(parents=True)
        (name / "manifest.json").touch()
    battles, ids = Input(path=tmp_path / "new.csv", fingerprint="n"), Input(path=tmp_path / "ids.txt", fingerprint="i")
    setting = Setting(battles, tmp_path / "store", Workplace(tmp_path, print))
    asked = job_request([lexical], ids, setting)
    assert (asked.model.path, asked.battles, asked.selection) == (checkpoint, battles, Selection(rows="listed", ids=ids))
    swapped = tiny.model_copy(update={"variant": Variant(order="ba", max_tokens=512)})
    both = job_request([tiny, swapped], ids, setting)
    assert isinstance(both, ScoreRequest) and both.spec.variants == (tiny.variant, swapped.variant)
    assert both.spec.chunk_rows == 10
    with pytest.raises(ZooError, match="imported, so it cannot be run"):
        job_request([table], ids, setting)


def test_a_request_that_is_no_score_request_is_refused_by_its_key(old_plan: Path) -> None:
    old_plan.write_text(old_plan.read_text().replace("lexical-score", "merge"))
    with pytest.raises(ZooError, match=r"members\.0\.request.*'merge'.*; build the plan again"):
        load_plan(old_plan)


def test_what_is_wrong_with_a_plan_is_told_in_its_own_words(old_plan: Path) -> None:
    raw = json.loads(old_plan.read_text())
    raw["pools"][0]["members"] = ["another"] * len(raw["pools"][0]["members"])
    old_plan.write_text(json.dumps(raw))
    with pytest.raises(ZooError, match="; build the plan again") as told:
        load_plan(old_plan)
    assert "Value error" not in str(told.value)


def test_members_with_folds_by_different_rules_are_refused(old_plan: Path) -> None:
    raw = json.loads(old_plan.read_text())
    raw["members"][1]["request"]["selection"] = OLD_LEXICAL["selection"]
    raw["members"][0]["request"]["rule"] = "near-prompts-1"
    old_plan.write_text(json.dumps(raw))
    with pytest.raises(ZooError, match="different rules: lexical@ab by near-prompts-1, tiny@ab-512 by prompts; build the plan"):
        load_plan(old_plan)
    raw["members"][1]["request"]["held"]["rule"] = "near-prompts-1"
    old_plan.write_text(json.dumps(raw))
    assert load_plan(old_plan).members[0].request.rule == "near-prompts-1"
