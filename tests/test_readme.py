"""The README's commands, run as they stand and in order, with a tiny real model in place of the large ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers import guide
from tests.helpers.paths import ROOT
from zoo.data.sample import write_sample
from zoo.scores.tables import write_submission

pytestmark = [pytest.mark.chain, pytest.mark.timeout(1200)]


def stand_in(entries: Path, model: Path) -> str:
    """Commands after which `smollm2-135m` is an entry of the tiny model, with its weights in the store."""
    return f"""
        zoo register tiny --base "{model}" --target cpu --out "{entries}"
        sed -e 's/^name = .*/name = "smollm2-135m"/' -e '/^\\[train\\]/a max_rows = 64' \\
            "{entries}/tiny.toml" > "{entries}/smollm2-135m.toml"
        rm "{entries}/tiny.toml"
        ZOO_ENTRIES="{entries}" zoo fetch smollm2-135m --source "{model}"
    """


def tables_of_others(folder: Path) -> None:
    """`oof.csv`, as somebody else's model would leave it for the README's generated battles."""
    sample = write_sample(folder / "elsewhere.csv", rows=600, seed=0)
    ids = pd.read_csv(sample.path, dtype={"id": str})["id"].tolist()
    write_submission(ids, np.random.default_rng(0).dirichlet([4, 4, 3], size=len(ids)), folder / "oof.csv")


@pytest.mark.slow
def test_the_readme_works_as_it_stands(tiny_llama: Path, tmp_path: Path) -> None:
    guide.checkout(tmp_path)
    tables_of_others(tmp_path)
    guide.run(stand_in(tmp_path / "entries", tiny_llama), tmp_path)
    said = guide.run(guide.commands(ROOT / "README.md"), tmp_path, ZOO_ENTRIES=str(tmp_path / "entries"))

    assert "smollm2-135m@ab" in said and "lexical@ab" in said, "both are on the leaderboard"
    assert len((tmp_path / "submission.csv").read_text().splitlines()) == 201
    assert (tmp_path / "plan.html").exists() and (tmp_path / "frontier" / "frontier.png").exists()
    assert json.loads((tmp_path / "kaggle.json").read_text())["target"]["name"] == "t4x2"
