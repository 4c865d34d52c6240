"""Rows that cannot be used are counted and named, and too many stop the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.battles_files import as_csv, competition, write
from zoo.contracts import Held, Selection
from zoo.data.battles import read_battles
from zoo.data.splits import assign_bad_folds, select_rows, unusable_ids
from zoo.data.usable import unusable_digest, unusable_line, usable_battles
from zoo.errors import ZooError


def bad_file(path: Path, rows: int, bad: int, column: str = "response_a") -> Path:
    frame = competition([(str(i), [f"why {i}"], ["x"], ["y"], i % 3) for i in range(rows)])
    frame.loc[range(bad), column] = ""
    return write(path, as_csv(frame))


def test_what_is_read_and_what_cannot_be_used_is_told(tmp_path):
    said: list[str] = []
    battles = usable_battles(bad_file(tmp_path / "b.csv", 30, 2), say=said.append)
    assert len(battles.frame) == 28
    assert said[0] == f"{tmp_path / 'b.csv'}: 30 rows; the competition's columns; CSV, commas, UTF-8"
    assert "28 of 30 rows used; 2 cannot be: 0 (response_a: undecodable JSON" in said[1] and ", 1 (response_a" in said[1]


def test_only_the_first_are_named(tmp_path):
    line = unusable_line(read_battles(bad_file(tmp_path / "b.csv", 300, 20)))
    assert line.startswith("280 of 300 rows used; 20 cannot be: 0 (") and line.endswith(", and 15 more")


@pytest.mark.parametrize(
    ("bad", "most", "stops"), [(3, 0.1, False), (4, 0.1, True), (29, 0.1, True), (29, 1.0, False), (1, 0, True)]
)
def test_too_many_stop_the_command_and_the_option_is_named(tmp_path, bad, most, stops):
    path = bad_file(tmp_path / "b.csv", 30, bad)
    if not stops:
        assert len(usable_battles(path, most_bad=most).frame) == 30 - bad
        return
    with pytest.raises(ZooError, match=rf"{30 - bad} of 30 rows used; {bad} cannot be: 0 .*--max-bad-rows") as refusal:
        usable_battles(path, most_bad=most)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("column", ["response_a", "prompt"])
def test_each_bad_row_is_in_one_fold_and_in_that_of_its_prompt_where_it_has_one(tmp_path, column):
    battles = read_battles(bad_file(tmp_path / "b.csv", 100, 30, column))
    parts = [unusable_ids(battles, Selection(), Held(n_folds=5, fold=fold)) for fold in range(5)]
    assert sorted(row_id for part in parts for row_id in part) == sorted(battles.bad_ids)
    assert unusable_ids(battles, Selection()) == list(battles.bad_ids)
    whole = read_battles(bad_file(tmp_path / "whole.csv", 100, 0))
    if column == "response_a":
        folds = assign_bad_folds(battles, 5)
        for fold in range(5):
            asked = set(select_rows(whole, Selection(), Held(n_folds=5, fold=fold))["id"])
            assert {row_id for row_id, its in folds.items() if its == fold} <= asked


def test_the_digest_of_unusable_rows_is_none_without_any(tmp_path):
    digests = [unusable_digest(read_battles(bad_file(tmp_path / "b.csv", 30, bad))) for bad in (0, 1, 2)]
    assert digests[0] is None and len(set(digests)) == 3
