"""docs/new-model.md, run as it stands: a tiny real model from its folder to a member that was scored, blended and predicted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import guide
from tests.helpers.paths import ROOT

pytestmark = [pytest.mark.chain, pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_guide_works_as_it_stands(tiny_llama: Path, tmp_path: Path) -> None:
    text = guide.commands(ROOT / "docs" / "new-model.md")
    assert "MODEL=path/to/model-folder " in text, "the one line that every reader changes"
    guide.checkout(tmp_path)
    said = guide.run(text.replace("MODEL=path/to/model-folder ", f"MODEL={tiny_llama} "), tmp_path)

    assert "wrote " in said and "zoo run my-model" in said, "register says what to run next"
    assert "my-model@ab-511" in said and "lexical@ab" in said, "both are on the leaderboard"
    assert "my-model version 1 is now champion" in said
    assert "my-model" in (tmp_path / "plan.html").read_text() or "my-model" in (tmp_path / "plan.json").read_text()
    assert len((tmp_path / "submission.csv").read_text().splitlines()) == 101
