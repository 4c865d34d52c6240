"""Which table a member stands for: never one with fewer rows, whatever the order in which tables were made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.manifests import finished, partial_folder, score_card
from zoo.contracts import Held, Input, PromptSpec, ScoreRequest, ScoreSpec, Selection
from zoo.errors import ZooError
from zoo.pipeline.members import NEARLY, Table, check_names, score_tables, standing
from zoo.scores.tables import score_table, write_card, write_scores

MANY = 600


def table(which: str, rows: int, *, fold: int = -1, name: str = "one", target: str = "t4x2", digest: str = "d") -> Table:
    frame = score_table([f"r{i}" for i in range(rows)], np.full((rows, 3), 1 / 3), fold=fold)
    return Table(Path(which), score_card(name, target=target, dataset_digest=digest, rows=rows), frame, None, which)


def taken(*tables: Table, prefer: tuple[str, ...] = ()) -> list[str]:
    return [part.which for member in standing(tables, prefer).members for part in member.parts]


def test_the_newest_wins_only_among_tables_with_at_least_as_many_usable_rows() -> None:
    whole, few = table("whole0", MANY), table("few000", 24)
    assert taken(whole, few) == taken(few, whole) == ["whole0"]
    ((lost, reason),) = standing([whole, few]).superseded
    assert (lost.which, reason) == ("few000", "the table whole0 with 600 rows is taken; this has 24")
    assert taken(whole, table("again0", MANY)) == ["again0"]
    failed = table("failed", MANY)
    failed.frame.loc[:9, ["p_a", "p_b", "p_tie"]] = np.nan
    failed.frame.loc[:9, "status"] = "refused"
    assert taken(whole, failed) == ["whole0"], "rows that were not scored are no rows"


def test_out_of_fold_comes_first_among_tables_of_about_as_many_rows_and_a_preferred_one_before_all() -> None:
    every, held, few = table("every0", MANY), table("held00", 580, fold=1), table("few000", 40, fold=1)
    assert taken(held, every) == ["held00"]
    assert taken(few, every) == taken(every, few) == ["every0"], "40 rows with folds are no 600 without"
    assert taken(held, every, prefer=("every0",)) == ["every0"]
    assert "out-of-fold table held00 with 580 rows" in standing([held, every]).superseded[0][1]
    assert "the table every0 with 600 rows" in standing([few, every]).superseded[0][1]
    assert "preferred table every0" in standing([held, every], ["every0"]).superseded[0][1]


def test_every_row_scored_by_one_checkpoint_of_the_zoo_does_not_stand_before_out_of_fold_rows() -> None:
    """The checkpoint may have learned from them: a fifth of the rows that it never saw is worth more."""
    (held,) = folds({0: 120})
    whole = table("whole0", MANY)
    whole = replace(whole, card=whole.card.model_copy(update={"request": held.card.request}))
    assert taken(held, whole) == taken(whole, held) == [held.which]
    assert "out-of-fold table" in standing([held, whole]).superseded[0][1]


def test_other_data_other_targets_and_other_names_do_not_replace_each_other() -> None:
    tables = [table("a", 9), table("b", 9, name="two"), table("c", 9, target="cpu"), table("d", 9, digest="e")]
    assert sorted(taken(*tables)) == ["a", "b", "c", "d"]


@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=7))
def test_no_table_is_lost_and_none_that_is_taken_has_far_fewer_rows(sizes: list[tuple[int, bool]]) -> None:
    tables = [table(f"table{i}", rows, fold=0 if known else -1) for i, (rows, known) in enumerate(sizes)]
    found = standing(tables)
    ((best,),) = (member.parts for member in found.members)
    assert len(found.superseded) == len(tables) - 1
    assert best.rows >= NEARLY * max(rows for rows, _ in sizes)
    near = [other for other, _ in found.superseded if other.rows >= NEARLY * max(rows for rows, _ in sizes)]
    assert all((best.knows_folds, best.rows) >= (other.knows_folds, other.rows) for other in near)


def folds(rows: dict[int, int], *, n_folds: int = 5, recipe: str = "r") -> list[Table]:
    """Tables of some folds of a recipe: fold -> rows."""
    found = []
    for fold, count in rows.items():
        request = ScoreRequest(
            entry="one",
            model=Input(fingerprint="m"),
            battles=Input(fingerprint="b"),
            held=Held(n_folds=n_folds, fold=fold),
            prompt=PromptSpec(template="{prompt}{response_a}{response_b}"),
            spec=ScoreSpec(),
            target="cpu",
        )
        one = table(f"{recipe}-{n_folds}-{fold}-{count}", count, fold=fold)
        found.append(replace(one, card=one.card.model_copy(update={"request": request}), recipe=recipe))
    return found


def test_folds_of_one_recipe_count_together_and_never_with_those_of_another_split() -> None:
    three, five = folds({0: 80, 1: 80, 2: 80}, n_folds=3), folds({0: 100})
    assert taken(*three, *five) == [t.which for t in three]
    assert taken(*folds({0: 90, 1: 90}), *folds({0: 24})) == ["r-5-0-90", "r-5-1-90"], "within a fold, too"
    assert taken(*three, *five, prefer=("r-5-0-",)) == ["r-5-0-100"]


def test_names_that_no_table_has_are_refused() -> None:
    tables = [table("abcdef01", 9)]
    check_names(tables, {"--prefer": ["abcdef"], "--exclude": ["one", "abcdef01"], "--include": ["one"]})
    for option, text in (("--prefer", "one"), ("--prefer", "abcde"), ("--exclude", "two"), ("--include", "abcdef01")):
        with pytest.raises(ZooError, match=f"{option} {text}: no score table is called that; there are"):
            check_names(tables, {option: [text]})


def test_a_ladders_sample_is_no_member_and_a_short_run_is(tmp_path: Path) -> None:
    for max_rows, diagnostic in ((24, True), (25, False), (None, False)):
        request = ScoreRequest(
            entry="one",
            model=Input(path=Path("m"), fingerprint="m" * 16),
            battles=Input(path=Path("b.csv"), fingerprint="d"),
            held=Held(),
            selection=Selection(max_rows=max_rows, diagnostic=diagnostic),
            prompt=PromptSpec(template="{prompt}{response_a}{response_b}"),
            spec=ScoreSpec(),
            target="t4x2",
        )
        folder = partial_folder(tmp_path, request) / "ab"
        folder.mkdir()
        rows = max_rows or MANY
        write_scores(score_table([f"r{i}" for i in range(rows)], np.full((rows, 3), 1 / 3)), folder / "scores.parquet")
        write_card(score_card("one@ab", rows=rows), folder / "scores.json")
        finished(tmp_path, request)
    assert sorted(t.rows for t in score_tables(tmp_path)) == [25, MANY]
    assert [member.rows for member in standing(score_tables(tmp_path)).members] == [MANY]
