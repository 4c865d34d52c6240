"""Members of two fold rules are not blended: one is judged on near-copies of what it has learned, the other not."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble.members.gather import align
from tests.ensemble.members.test_members import odds, table
from zoo.contracts import Input, LexicalScoreRequest, changed
from zoo.data.battles import read_battles
from zoo.data.columns import WINNER_COLUMNS
from zoo.data.splits import group_hashes
from zoo.errors import ZooError
from zoo.pipeline.members import Table

NEAR, ROWS = "near-prompts-1", 240


@pytest.fixture
def battles(tmp_path: Path) -> Path:
    """Battles with 60 prompts, of which each two are near-copies."""
    path = tmp_path / "battles.csv"
    rng = np.random.default_rng(0)
    stories = ["".join(rng.choice(list("abcdefgh "), 60)) for _ in range(30)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*("id", "prompt", "response_a", "response_b"), *WINNER_COLUMNS])
        for i in range(ROWS):
            text = json.dumps([f"{i // 2 % 30} {stories[i // 2 % 30]}" + ("!" if i % 2 else "")])
            writer.writerow([f"r{i}", text, json.dumps(["x"]), json.dumps(["y"]), *(int(i % 3 == k) for k in range(3))])
    return path


def scored(name: str, csv: Path, seed: int, rule: str | None, which: str = "") -> Table:
    """A table of the zoo's own, with folds by a rule; `table` alone makes one that was imported."""
    made = table(name, csv, odds(seed), fold=np.arange(ROWS) % 5)
    given = Input(fingerprint="any")
    request = LexicalScoreRequest(entry=name, model=given, battles=given, target="cpu", rule=rule)
    return replace(made, card=changed(made.card, request=request, fold_rule=rule), fingerprint=which or name)


def test_a_mix_is_refused_by_name_with_the_mend(battles: Path) -> None:
    tables = [scored("one", battles, 1, None), scored("two", battles, 2, NEAR), scored("three", battles, 3, NEAR)]
    with pytest.raises(ZooError, match="different fold rules") as error:
        align(tables, battles=battles)
    message = str(error.value)
    assert "one: folds by prompts" in message and "three, two: folds by near-prompts-1" in message
    assert "--fold-rule" in message and "\n" not in message


def test_the_rule_that_all_members_have_is_taken_and_the_rest_is_told(battles: Path) -> None:
    tables = [scored("one", battles, 1, None, "old"), scored("one", battles, 2, NEAR, "new"), scored("two", battles, 3, None)]
    members = align(tables, battles=battles)
    assert members.fingerprints == ("old", "two")
    reason = "its folds are by near-prompts-1, the others' by prompts, with 480 rows of all members"
    assert members.left_out == {"one (new)": reason}
    both = align([*tables, scored("two", battles, 4, NEAR, "newest")], battles=battles)
    assert both.fingerprints == ("new", "newest") and set(both.left_out) == {"one (old)", "two (two)"}


def test_the_rule_by_which_most_rows_are_kept_is_taken_unless_a_table_is_preferred(battles: Path) -> None:
    few = scored("one", battles, 2, NEAR, "newfew00")
    few = replace(few, frame=few.frame.iloc[:160])
    tables = [scored("one", battles, 1, None, "oldall00"), scored("two", battles, 3, None, "two00000"), few]
    tables.append(scored("two", battles, 4, NEAR, "twonear0"))
    assert align(tables, battles=battles).fingerprints == ("oldall00", "two00000")
    preferred = align(tables, battles=battles, prefer=["newfew00"])
    assert preferred.fingerprints == ("newfew00", "twonear0")
    both_whole = [*tables, scored("one", battles, 5, NEAR, "newall00")]
    assert align(both_whole, battles=battles).fingerprints == ("newall00", "twonear0"), "the newest of equal ones"
    assert align(both_whole, battles=battles, prefer=["oldall00"]).fingerprints == ("oldall00", "two00000")
    with pytest.raises(ZooError, match=r"--prefer: no fold rule of all members is that of one \(newfew00\)"):
        align(tables[:3], battles=battles, prefer=["newfew00"])


def test_imported_tables_go_with_either_rule(battles: Path) -> None:
    """Whose folds they are nobody knows."""
    theirs = table("theirs", battles, odds(5), fold=np.arange(ROWS) % 5)
    for rule in (None, NEAR):
        assert set(align([scored("one", battles, 1, rule), theirs], battles=battles).names) == {"one", "theirs"}


def test_the_blends_own_folds_keep_near_copies_together(battles: Path) -> None:
    labelled = read_battles(battles)
    for rule in (None, NEAR):
        members = align([scored("one", battles, 1, rule), scored("two", battles, 2, rule)], battles=battles)
        hashes = dict(zip(labelled.frame["id"], group_hashes(labelled.frame, rule) % (2**61 - 1), strict=True))
        assert members.groups.tolist() == [hashes[i] for i in members.ids]
        assert len(set(members.groups)) == (60 if rule is None else 30)
