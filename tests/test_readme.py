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
    """Tables as somebody else's models would leave them for the README's generated battles, and for its test file."""
    rng = np.random.default_rng(0)
    for rows, seed, end in ((600, 0, ""), (200, 1, "-test")):
        sample = write_sample(folder / "elsewhere.csv", rows=rows, seed=seed)
        odds = pd.read_csv(sample.truth_path, dtype={"id": str})
        for name, sharp in (("oof", 3), ("llama", 8), ("yi", 12)):
            p = np.stack([rng.dirichlet(sharp * row + 1) for row in odds.iloc[:, 1:4].to_numpy()])
            write_submission(odds["id"].tolist(), p, folder / f"{name}{end}.csv")


@pytest.mark.slow
def test_the_readme_works_as_it_stands(tiny_llama: Path, tmp_path: Path) -> None:
    guide.checkout(tmp_path)
    tables_of_others(tmp_path)
    guide.run(stand_in(tmp_path / "entries", tiny_llama), tmp_path)
    said = guide.run(guide.commands(ROOT / "README.md"), tmp_path, ZOO_ENTRIES=str(tmp_path / "entries"))

    assert "smollm2-135m@ab" in said and "lexical@ab" in said, "both are on the leaderboard"
    assert len((tmp_path / "submission.csv").read_text().splitlines()) == 201
    assert (tmp_path / "plan.html").exists() and (tmp_path / "frontier" / "frontier.png").exists()
    kaggle = json.loads((tmp_path / "kaggle.json").read_text())
    assert kaggle["target"]["name"] == "t4x2"
    assert any("forecast" in member["cost"] for member in kaggle["members"])
    assert len((tmp_path / "blend.csv").read_text().splitlines()) == 201
