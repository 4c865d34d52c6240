"""Members whose battles came as ids and winners alone, and what needs their texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensemble.budget.pricing import price
from ensemble.members.gather import align
from tests.helpers.battles_files import Row, as_csv, competition, write
from zoo.data.battles import dataset_digest, read_battles
from zoo.errors import ZooError
from zoo.pipeline.import_table import import_scores
from zoo.pipeline.members import score_tables
from zoo.targets import load_target

ROWS: list[Row] = [(str(i), [f"why {i // 2}"], ["x" * i], ["y"], i % 3) for i in range(60)]


def bring(folder: Path, name: str, labels: Path, **price_of: float) -> None:
    rng = np.random.default_rng(len(name))
    p = rng.dirichlet([2, 2, 2], len(ROWS))
    table = pd.DataFrame({"id": [row[0] for row in ROWS], "p_a": p[:, 0], "p_b": p[:, 1], "p_tie": p[:, 2], "n_tokens": 9})
    table.to_csv(folder / f"{name}.csv", index=False)
    import_scores(name, folder / f"{name}.csv", labels, target="cpu", load_seconds=1, store=folder / "store", **price_of)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    whole, frame = write(tmp_path / "whole.csv", as_csv(competition(ROWS))), competition(ROWS)
    return whole, write(tmp_path / "labels.csv", as_csv(frame.drop(columns=["prompt", "response_a", "response_b"])))


def test_members_of_the_same_battles_with_and_without_texts_are_blended(tmp_path: Path, files: tuple[Path, Path]) -> None:
    whole, labels = files
    bring(tmp_path, "one", labels, seconds_per_row=0.1)
    bring(tmp_path, "other", whole, seconds_per_row=0.1)
    members = align(score_tables(tmp_path / "store"))
    assert set(members.names) == {"one", "other"} and len(members.ids) == 60
    assert members.digest == dataset_digest(read_battles(whole)) and len(np.unique(members.groups)) == 30
    expected = [[len(f"why {int(i) // 2}"), int(i), 1] for i in members.ids]
    np.testing.assert_array_equal(members.lengths, expected)
    np.testing.assert_array_equal(members.characters, np.sum(expected, axis=1))
    np.testing.assert_array_equal(members.rows(members.y == 0).lengths, np.array(expected)[members.y == 0])


def test_labels_alone_put_rows_into_folds_by_id_and_say_so(tmp_path: Path, files: tuple[Path, Path]) -> None:
    whole, labels = files
    bring(tmp_path, "one", labels, seconds_per_row=0.1)
    said: list[str] = []
    members = align(score_tables(tmp_path / "store"), say=said.append)
    assert "ids and winners alone" in said[0] and "by id" in said[0]
    assert len(np.unique(members.groups)) == 60 and members.lengths is None and not members.characters.any()
    assert price(members, load_target("cpu"), 10, lengths=whole).row_seconds.sum() == pytest.approx(1.0)


def test_lengths_of_another_file_need_texts_where_tokens_are_paid_for(tmp_path: Path, files: tuple[Path, Path]) -> None:
    whole, labels = files
    bring(tmp_path, "one", labels, seconds_per_1k_tokens=1.0)
    members = align(score_tables(tmp_path / "store"))
    with pytest.raises(ZooError, match="needs the texts of the members' own battles"):
        price(members, load_target("cpu"), 10, lengths=whole)
