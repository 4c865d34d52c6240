"""docs/other-competitions.md, run as it stands, on generated battles of two answers in WSDM Cup's columns."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.helpers import guide
from tests.helpers.paths import ROOT
from zoo.data.columns import WINNER_COLUMNS
from zoo.data.sample import write_sample

pytestmark = [pytest.mark.chain, pytest.mark.slow, pytest.mark.timeout(600)]


def of_two_answers(folder: Path) -> None:
    """Battles to learn from, a test file, and two samples: WSDM Cup's, and one with names that nobody knows."""
    frame = pd.read_csv(write_sample(folder / "all.csv", rows=700, seed=4).path, dtype={"id": str})
    frame = frame[frame[WINNER_COLUMNS[2]] == 0].reset_index(drop=True)
    winner = frame[WINNER_COLUMNS[0]].map({1: "model_a", 0: "model_b"})
    texts = frame[["id", "prompt", "response_a", "response_b"]]
    texts[:400].assign(winner=winner, language="English").to_csv(folder / "wsdm.csv", index=False)
    test = texts[400:460].assign(scored=True)
    test.to_csv(folder / "wsdm-test.csv", index=False)
    pd.DataFrame({"id": test["id"], "winner": "model_a"}).to_csv(folder / "sample_submission.csv", index=False)
    pd.DataFrame({"left": 0.5, "key": test["id"], "right": 0.5}).to_csv(folder / "odd_sample.csv", index=False)


def test_the_page_works_as_it_stands(tmp_path: Path) -> None:
    guide.checkout(tmp_path)
    of_two_answers(tmp_path)
    said = guide.run(guide.commands(ROOT / "docs" / "other-competitions.md", fewest=2), tmp_path)
    submission = pd.read_csv(tmp_path / "submission.csv", dtype=str)
    assert "id,winner" in said and list(submission.columns) == ["id", "winner"] and len(submission) == 60
    assert set(submission["winner"]) == {"model_a", "model_b"}
    odd = pd.read_csv(tmp_path / "odd.csv", dtype={"key": str})
    assert list(odd.columns) == ["left", "key", "right"] and ((odd["left"] + odd["right"] - 1).abs() < 1e-9).all()
    likelier = (odd["left"] >= odd["right"]).map({True: "model_a", False: "model_b"})
    assert (likelier == submission["winner"]).all(), "both are of the same plan"
