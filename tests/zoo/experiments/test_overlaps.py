"""Rows to learn from that ask what a model is evaluated on elsewhere are told."""

from pathlib import Path

import pandas as pd

from zoo.data.sample import write_sample
from zoo.experiments.overlaps import overlaps
from zoo.experiments.recipes import Recipe


def test_near_copies_in_extra_files_are_counted_by_file(tmp_path: Path) -> None:
    write_sample(tmp_path / "main.csv", 40, 1)
    write_sample(tmp_path / "dev.csv", 40, 2)
    pd.read_csv(tmp_path / "dev.csv", dtype=str).iloc[:7].to_csv(tmp_path / "copies.csv", index=False)
    runs = [
        {"entry": "smollm2-135m", "name": "own", "set": ["train.extra=copies.csv"]},
        {"entry": "smollm2-135m", "name": "earlier", "set": ['train.first={ extra = "copies.csv" }']},
        {"entry": "lexical", "set": ["lexical.extra=copies.csv"]},
    ]
    recipe = Recipe.model_validate(
        {"question": "?", "data": "main.csv", "until": "train", "also_on": ["dev.csv", "gone.csv"], "runs": runs}
    )
    told = [line for line in overlaps(recipe, tmp_path) if "copies.csv" in line]
    assert len(told) == 1 and told[0].startswith("dev.csv: 7 rows of copies.csv have its prompts")
