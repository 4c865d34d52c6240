"""Tables become one array: joined by id, of one data set, out of fold; what does not belong is named and left out."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble.members.gather import align, with_alias
from ensemble.members.table import balanced_folds
from tests.helpers.manifests import score_card
from zoo.contracts import Cost, Held, Input, PromptSpec, ScoreRequest, ScoreSpec
from zoo.data.battles import dataset_digest, read_battles
from zoo.data.columns import WINNER_COLUMNS
from zoo.errors import ZooError
from zoo.pipeline.members import Table
from zoo.scores.tables import score_table

ROWS = 240


def write_battles(path: Path, rows: int = ROWS, *, seed: int = 0) -> Path:
    """Labelled battles with 60 prompts, each of which occurs several times."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*("id", "model_a", "model_b", "prompt", "response_a", "response_b"), *WINNER_COLUMNS])
        for i in range(rows):
            texts = [json.dumps([f"question {i % 60}"]), json.dumps(["x" * int(rng.integers(1, 99))]), json.dumps(["y"])]
            label = int(rng.integers(3))
            writer.writerow([f"r{seed}-{i}", "m", "n", *texts, *(int(label == k) for k in range(3))])
    return path


def table(
    name: str, battles_path: Path, p: np.ndarray, *, keep=slice(None), fold: int | np.ndarray = -1, target="t4x2", load=10.0
) -> Table:
    battles = read_battles(battles_path)
    frame = score_table(battles.frame["id"].tolist(), p, fold=fold, n_tokens=100).iloc[keep].reset_index(drop=True)
    cost = Cost(target=target, load_seconds=load, seconds_per_row=0.01)
    card = score_card(name, target=target, dataset_digest=dataset_digest(battles), rows=len(frame), cost=cost)
    return Table(Path(name), card, frame, battles_path)


def odds(seed: int, rows: int = ROWS, *, sharp: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(3, 4 / sharp), size=rows)


def labels_of(path: Path) -> np.ndarray:
    return read_battles(path).frame["label"].to_numpy()


@pytest.fixture
def battles(tmp_path: Path) -> Path:
    return write_battles(tmp_path / "battles.csv")


def test_rows_are_joined_by_id_whatever_order_a_table_has(battles):
    p, q = odds(1), odds(2)
    shuffled = np.random.default_rng(3).permutation(ROWS)
    straight = align([table("one", battles, p), table("two", battles, q)])
    mixed = align([table("one", battles, p, keep=shuffled), table("two", battles, q)])
    assert straight.ids == mixed.ids
    np.testing.assert_array_equal(straight.p, mixed.p)
    frame = read_battles(battles).frame.set_index("id")
    np.testing.assert_array_equal(straight.y, frame.loc[list(straight.ids), "label"])


def test_only_rows_that_all_scored_out_of_fold_are_used_and_the_loss_is_counted(battles):
    fold = np.where(np.arange(ROWS) < 150, 2, -1)
    tables = [table("one", battles, odds(1), keep=slice(0, 200)), table("two", battles, odds(2), fold=fold)]
    members = align(tables, include=["one", "two"])
    assert len(members.y) == 150
    assert members.lost_by == {"two": 50}
    assert members.lost_rows == 50


def test_failed_rows_do_not_count(battles):
    p = odds(1)
    broken = table("one", battles, p)
    broken.frame.loc[:9, ["p_a", "p_b", "p_tie"]] = np.nan
    broken.frame.loc[:9, "status"] = "refused"
    assert len(align([broken, table("two", battles, odds(2))]).y) == ROWS - 10


def test_a_prompt_lies_in_one_fold_and_folds_are_even():
    groups = np.repeat(np.arange(100) * 7919, 5)
    folds = balanced_folds(groups)
    assert all(len(set(folds[groups == g])) == 1 for g in set(groups))
    assert set(np.bincount(folds)) == {100}
    order = np.random.default_rng(0).permutation(len(groups))
    np.testing.assert_array_equal(balanced_folds(groups[order]), folds[order])


def test_tables_of_different_data_are_refused_by_name_unless_the_data_is_chosen(tmp_path, battles):
    other = write_battles(tmp_path / "other.csv", seed=9)
    tables = [table("one", battles, odds(1)), table("stranger", other, odds(2))]
    with pytest.raises(ZooError, match=r"different data.*stranger"):
        align(tables)
    members = align(tables, battles=battles)
    assert members.names == ("one",)
    assert "other data" in members.left_out["stranger"]


def test_members_of_other_targets_are_left_out_with_the_reason(battles):
    members = align([table("one", battles, odds(1)), table("two", battles, odds(2), target="cpu")], target="t4x2")
    assert members.names == ("one",)
    assert "cpu" in members.left_out["two"]
    with pytest.raises(ZooError, match="no member has a cost on target h200"):
        align([table("one", battles, odds(1))], target="h200")


def test_of_two_equal_tables_the_cheaper_one_stays(battles):
    members = align(
        [table("dear", battles, odds(1), load=99), table("cheap", battles, odds(1)), table("two", battles, odds(2))]
    )
    assert members.names == ("cheap", "two")
    assert "same table as cheap" in members.left_out["dear"]


def test_a_table_that_looks_in_sample_is_left_out_unless_asked_for(battles):
    cheat = 0.9 * np.eye(3)[labels_of(battles)] + 0.1 / 3
    tables = [
        table("cheat", battles, cheat),
        table("one", battles, odds(1, sharp=0.5)),
        table("two", battles, odds(2, sharp=0.5)),
    ]
    members = align(tables)
    assert members.names == ("one", "two")
    assert "in-sample" in members.left_out["cheat"]
    assert align(tables, include=["cheat"]).names == ("cheat", "one", "two")


def test_a_table_far_better_on_its_own_rows_than_on_shared_ones_is_left_out(battles):
    half = np.arange(ROWS) < ROWS // 2
    memorised = np.where(half[:, None], odds(1), 0.97 * np.eye(3)[labels_of(battles)] + 0.01)
    members = align([table("memory", battles, memorised), table("one", battles, odds(2), keep=slice(0, ROWS // 2))])
    assert "in-sample" in members.left_out["memory"]


def test_the_last_table_of_a_name_counts(battles):
    members = align([table("one", battles, odds(1)), table("two", battles, odds(2)), table("one", battles, odds(3))])
    frame = read_battles(battles).frame
    place = frame["id"].tolist().index(members.ids[0])
    np.testing.assert_allclose(members.p[members.names.index("one"), 0], odds(3)[place])


def test_a_table_scored_out_of_fold_counts_before_a_newer_one_of_every_row(battles):
    held_out = table("one", battles, odds(1), fold=np.arange(ROWS) % 5)
    every_row = table("one", battles, odds(2))
    place = held_out.frame["id"].tolist().index(align([held_out]).ids[0])
    np.testing.assert_allclose(align([held_out, every_row]).p[0, 0], odds(1)[place])
    np.testing.assert_allclose(align([every_row]).p[0, 0], odds(2)[place])


def test_tables_that_others_of_their_name_stand_in_for_are_named_with_fingerprint_and_reason(tmp_path, battles):
    other = write_battles(tmp_path / "other.csv", seed=9)
    tables = [
        replace(table("one", other, odds(5)), fingerprint="elsewhere"),
        replace(table("one", battles, odds(1)), fingerprint="older"),
        replace(table("one", battles, odds(2)), fingerprint="newer"),
        replace(table("two", battles, odds(3), fold=np.arange(ROWS) % 5), fingerprint="held"),
        replace(table("two", battles, odds(4)), fingerprint="every"),
    ]
    members = align(tables, battles=battles)
    assert members.fingerprints == ("newer", "held")
    assert set(members.left_out) == {"one (elsewhere)", "one (older)", "two (every)"}
    assert "other data" in members.left_out["one (elsewhere)"]
    assert "the newer table newer" in members.left_out["one (older)"]
    assert "the out-of-fold table held" in members.left_out["two (every)"]


def test_tables_of_an_entrys_folds_are_joined_into_one(battles):
    """Each fold's checkpoint scored its own held-out rows: together they are one out-of-fold table."""
    p, order = odds(1), read_battles(battles).frame["id"].tolist()

    def part(fold: int, *, recipe: str = "r", which: str = "") -> Table:
        one = table("one", battles, p, keep=slice(fold, None, 3), fold=fold, load=10.0 + fold)
        given, template = Input(fingerprint="any"), "{prompt}{response_a}{response_b}"
        request = ScoreRequest(
            entry="one",
            model=given,
            battles=given,
            held=Held(n_folds=3, fold=fold),
            prompt=PromptSpec(template=template),
            spec=ScoreSpec(),
            target="cpu",
        )
        card = one.card.model_copy(update={"request": request})
        return replace(one, card=card, fingerprint=which or f"f{fold}", recipe=recipe)

    parts, peer = [part(fold) for fold in range(3)], table("two", battles, odds(2))
    joined = align([*parts, peer])
    assert len(joined.y) == ROWS
    assert joined.costs[joined.names.index("one")].load_seconds == 12.0
    np.testing.assert_allclose(joined.p[0], p[[order.index(i) for i in joined.ids]])
    again = align([*parts, part(0, which="again"), peer])
    assert len(again.y) == ROWS
    assert list(again.left_out) == ["one (f0)"]
    for other in (
        "another",
        "",
    ):  # a recipe that is new, or not known, is not mixed in and wins not with less
        alone = align([*parts[:2], part(2, recipe=other, which="new"), peer], include=["one"])
        assert len(alone.y) == 2 * ROWS // 3
        assert alone.left_out == {"one (new)": "the tables f0 + f1 with 160 rows are taken; this has 80"}
        asked = align([*parts[:2], part(2, recipe=other, which="new"), peer], prefer=["new"], include=["one"])
        assert len(asked.y) == ROWS // 3
        assert set(asked.left_out) == {"one (f0)", "one (f1)"}


def test_an_alias_takes_the_tables_of_its_checkpoints_only(battles):
    tables = [table("one", battles, odds(1)), table("two", battles, odds(2))]
    assert [t.name for t in with_alias(tables, {"two": "two", "one": "an older checkpoint"}, "champion")] == ["two"]
    folds = [replace(table("one", battles, odds(1)), recipe="r", fingerprint=f"f{fold}") for fold in range(2)]
    folds[1] = replace(folds[1], card=folds[1].card.model_copy(update={"checkpoint": "other fold"}))
    assert [t.fingerprint for t in with_alias(folds, {"one": "one"}, "champion")] == ["f1", "f0"]
    with pytest.raises(ZooError, match="alias 'champion'"):
        with_alias(tables, {"one": "an older checkpoint"}, "champion")


def test_too_few_common_rows_are_refused_with_the_counts(battles):
    with pytest.raises(ZooError, match=r"only 0 rows.*one 100, two 140"):
        tables = [table("one", battles, odds(1), keep=slice(0, 100)), table("two", battles, odds(2), keep=slice(100, 240))]
        align(tables, include=["one", "two"])
    members = align(tables)
    assert members.names == ("two",)
    assert members.left_out["one"].startswith("it would cost 140 of the 140 rows that the others share: 0 would be left")


def test_without_members_or_labels_the_error_says_what_to_do(tmp_path, battles):
    with pytest.raises(ZooError, match="zoo import"):
        align([])
    lost = table("one", battles, odds(1))
    battles.rename(tmp_path / "moved.csv")
    with pytest.raises(ZooError, match="--data"):
        align([lost])
    assert align([lost], battles=tmp_path / "moved.csv").names == ("one",)


def test_ids_that_look_like_numbers_are_joined_as_text_never_by_position(tmp_path):
    """01 and 1 are two rows, and a table in another order than the battles says the same."""
    path = write_battles(tmp_path / "numbers.csv")
    text = path.read_text().replace("r0-", "")
    path.write_text(text.replace("\n5,", "\n01,", 1))
    order = np.random.default_rng(0).permutation(ROWS)
    members = align([table("one", path, odds(1), keep=order), table("two", path, odds(2))])
    ids = read_battles(path).frame["id"].tolist()
    assert {"1", "01"} <= set(members.ids)
    assert all(isinstance(row_id, str) for row_id in members.ids)
    rows = [ids.index(row_id) for row_id in members.ids]
    np.testing.assert_allclose(members.p[0], odds(1)[rows])
    np.testing.assert_array_equal(members.y, labels_of(path)[rows])


def test_a_table_that_is_dropped_costs_no_rows(battles):
    """Duplicates and in-sample tables are dropped before rows are joined."""
    twin = table("twin", battles, odds(1), keep=slice(0, 90), load=99)
    cheat = table("cheat", battles, 0.95 * np.eye(3)[labels_of(battles)] + 0.05 / 3, keep=slice(0, 80))
    members = align([table("one", battles, odds(1)), table("two", battles, odds(2)), twin, cheat])
    assert members.names == ("one", "two")
    assert (len(members.y), members.lost_rows, members.lost_by) == (ROWS, 0, {})
    assert "same table as one" in members.left_out["twin"]
    assert "in-sample" in members.left_out["cheat"]


def test_a_cheaper_twin_with_far_fewer_rows_does_not_stand_in(battles):
    cheap = table("cheap", battles, odds(1), keep=slice(0, 90), load=1)
    members = align([table("one", battles, odds(1)), cheap, table("two", battles, odds(2))])
    assert members.names == ("one", "two") and len(members.y) == ROWS
    assert members.left_out["cheap"] == "same table as one, which has 240 rows where this has 90"


def test_a_table_with_labels_in_some_rows_is_left_out_unless_asked_for(battles):
    p = odds(1)
    leaked = np.random.default_rng(0).choice(ROWS, 30, replace=False)
    p[leaked] = np.eye(3)[labels_of(battles)[leaked]]
    tables = [table("leaky", battles, p), table("one", battles, odds(2)), table("two", battles, odds(3))]
    members = align(tables)
    assert members.names == ("one", "two")
    assert members.left_out["leaky"].startswith("looks partly leaked: 30 rows share the probability 1, ")
    assert align(tables, include=["leaky"]).names == ("leaky", "one", "two")


def test_members_and_tables_can_be_left_out_and_preferred(battles):
    older = replace(table("one", battles, odds(1)), fingerprint="0lder000")
    newer = replace(table("one", battles, odds(2)), fingerprint="newer000")
    tables = [older, newer, table("two", battles, odds(3)), table("three", battles, odds(4))]
    members = align(tables, exclude=["two"])
    assert members.names == ("one", "three") and members.left_out["two"] == "--exclude two"
    assert align(tables).fingerprints[0] == "newer000"
    for options in ({"exclude": ["newer0"]}, {"prefer": ["0lder000"]}):
        members = align(tables, **options)
        assert members.fingerprints[0] == "0lder000" and "one (newer000)" in members.left_out
    for option in ("exclude", "prefer", "include"):
        with pytest.raises(ZooError, match=f"--{option} nobody: no score table is called that"):
            align(tables, **{option: ["nobody"]})
    with pytest.raises(ZooError, match="--exclude leaves no member"):
        align(tables[:1], exclude=["one"])
