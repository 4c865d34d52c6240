"""Extra battles to learn from: nothing that the held-out fold is asked about may come back through them."""

from __future__ import annotations

import csv
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.tiny_models import TEMPLATE
from zoo.contracts import (
    Entry,
    ExtraBattles,
    Held,
    Input,
    PromptSpec,
    Selection,
    TrainRequest,
    TrainSpec,
    parse_request,
    without_paths,
)
from zoo.data.battles import Battles, read_battles
from zoo.data.splits import fold_of, normal_text, prompt_hash, select_training
from zoo.entries.load import load_entry, override, with_files_from
from zoo.entries.toml import contract_toml
from zoo.errors import ZooError
from zoo.experiments.recipes import run_recipe
from zoo.pipeline.chain import battles_input, chain
from zoo.scores.tables import score_table
from zoo.stages.train import extra_battles as extra
from zoo.stages.train import stage as train
from zoo.store import fingerprint

WORDS = [" why is it", "Why  IS it ", "ﬁre", "fire", "x", "y", "How?", "", "  "]
NEAR = "near-prompts-1"
PROMPTS = st.lists(st.sampled_from(WORDS) | st.none(), min_size=1, max_size=3)


def frame_of(prompts: list[list[str | None]], first_id: int = 0, answer: str = "answer") -> pd.DataFrame:
    rows = [(str(first_id + i), turns, [f"{answer} {first_id + i}"], ["other"], 0) for i, turns in enumerate(prompts)]
    return pd.DataFrame(rows, columns=["id", "prompt", "response_a", "response_b", "label"])


def plain(turn: str | None) -> str:
    """An independent form of a turn for the oracle below: ligatures apart, lower case, one space between words."""
    return " ".join((turn or "").replace("ﬁ", "fi").lower().split())


@given(st.lists(PROMPTS, min_size=1, max_size=8), st.lists(PROMPTS, min_size=1, max_size=12), st.integers(0, 2))
def test_no_turn_of_a_held_prompt_is_learned(main: list[Any], more: list[Any], fold: int) -> None:
    held = Held(n_folds=3, fold=fold)
    taken = extra.why_not(frame_of(more, 1000), frame_of(main), held, NEAR) == ""
    asked = {plain(turn) for turns in main if fold_of(turns, 3) == fold for turn in turns} - {""}
    for turns, learned in zip(more, taken, strict=True):
        expected = fold_of(turns, 3) != fold and not asked & {plain(turn) for turn in turns}
        joined = " ".join(filter(None, map(plain, turns)))
        assert learned <= expected
        if expected and len([t for t in turns if plain(t)]) < 2 and all(len(t) < 2 for t in main):
            assert learned, joined  # nothing is left out without a reason


def test_a_prompt_held_as_one_text_is_not_learned_in_turns() -> None:
    turns = next([f"one {i}", "two"] for i in range(99) if fold_of([f"one {i}", "two"], 2) != fold_of([f"one {i}\n\ntwo"], 2))
    held = Held(n_folds=2, fold=fold_of([f"{turns[0]}\n\ntwo"], 2))
    assert extra.why_not(frame_of([turns], 9), frame_of([[f"{turns[0]}\n\ntwo"]]), held, NEAR).all()


def test_a_battle_of_the_main_file_is_not_doubled() -> None:
    main = frame_of([["q0"], ["q1"], ["q2"]])
    held = Held(n_folds=10**6, fold=0)  # nothing is held out
    new, same_id = frame_of([["q9"]], 50), frame_of([["q8"]], 1)
    same_texts = main.iloc[[2]].assign(id="77")
    turned = main.iloc[[0]].assign(id="78", response_a=main["response_b"], response_b=main["response_a"])
    more = pd.concat([new, same_id, same_texts, turned], ignore_index=True)
    assert extra.why_not(more, main, held, NEAR).tolist() == ["", extra.DOUBLED, extra.DOUBLED, extra.DOUBLED]


RIDDLE = "Sally (a girl) has 3 brothers. Each brother has 2 sisters. How many sisters does Sally have?"


def test_a_near_copy_of_a_held_out_prompt_is_not_learned_from() -> None:
    main = frame_of([[f"{RIDDLE} Let's think step by step"], ["Why is the sky blue, and why is it red at night?"]])
    more = frame_of([[RIDDLE], ["Something else?", RIDDLE], ["Something else?"]], 50)
    for rule in (None, NEAR):
        held = Held(n_folds=1000, fold=fold_of(main["prompt"][0], 1000), rule=rule)
        assert extra.why_not(more, main, held, NEAR).tolist() == [extra.NEAR, extra.NEAR, ""]


def prompts_apart(n_folds: int) -> tuple[str, str, str]:
    """Two prompts of different folds that are no near-copies, and one that is a near-copy of both."""
    words = " ".join(f"word{i}" for i in range(16))
    for i in range(99):
        middle = f"{words} {i}"
        left, right = f"{middle} and then also the first end", f"here is the other end for {middle}"
        if fold_of([left], n_folds) != fold_of([right], n_folds):
            return left, middle, right
    raise AssertionError


def test_a_row_that_would_join_two_groups_is_left_out() -> None:
    left, middle, right = prompts_apart(3)
    main, more = frame_of([[left], [right]]), frame_of([[middle]], 50)
    folds = {fold_of([left], 3), fold_of([right], 3)}
    (neither,) = {0, 1, 2} - folds
    found = extra.why_not(more, main, Held(n_folds=3, fold=neither, rule=NEAR), NEAR)
    assert found.tolist() == [extra.BETWEEN]
    assert extra.joined_groups(more, main.iloc[:1], NEAR) == [{prompt_hash(normal_text(left))}]


def test_an_added_row_is_of_the_fold_of_the_group_that_it_joins() -> None:
    """Also where its own hash says another: each fold either holds it out or may learn from it, as from its group."""
    for i in range(20):
        main, more = frame_of([[f"{RIDDLE} {i}"]]), frame_of([[f"{RIDDLE} {i} Think!"]], 50)
        for fold in range(4):
            learned = extra.why_not(more, main, Held(n_folds=4, fold=fold, rule=NEAR), NEAR)[0] == ""
            assert learned == (fold != fold_of([f"{RIDDLE} {i}"], 4))


def test_a_request_of_an_earlier_version_compares_exactly() -> None:
    """Its fingerprint says so: the rule is a field that it does not have."""
    main, more = frame_of([[RIDDLE]]), frame_of([[f"{RIDDLE} Go!"]], 50)
    held = next(
        Held(n_folds=n, fold=f) for n in range(2, 9) for f in [fold_of([RIDDLE], n)] if fold_of([f"{RIDDLE} Go!"], n) != f
    )
    assert extra.why_not(more, main, held, None).tolist() == [""]
    assert extra.why_not(more, main, held, NEAR).tolist() == [extra.NEAR]


# --- the stage --------------------------------------------------------------------------------------------------------


def split(source: Path, folder: Path, *, votes: bool = False) -> tuple[Path, Path]:
    """The file's first 160 rows, and all its rows under other ids as an extra file with a note of each row's own id."""
    rows = list(csv.DictReader(source.open()))
    paths = folder / "main.csv", folder / "extra.csv"
    more = [{**row, "id": str(10**6 + i), "of": row["id"]} for i, row in enumerate(rows)]
    if votes:
        more = [{**row, "votes_a": "1", "votes_b": "3", "votes_tie": "0"} for row in more]
    for path, part in zip(paths, (rows[:160], more), strict=True):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, part[0].keys())
            writer.writeheader()
            writer.writerows(part)
    return paths


def taken(path: Path, main: Battles, held: Held, spec: TrainSpec, **given: Any) -> extra.ExtraRows:
    weight = given.pop("weight", 1.0)
    file = ExtraBattles(battles=Input(path=path, fingerprint="x"), weight=weight)
    return extra.extra_rows(file, main, held, spec, NEAR, **given)


def test_only_new_rows_off_the_held_fold_are_used(sample_csv: Path, tmp_path: Path) -> None:
    """The extra file holds every row of the main one: its held-out rows must not come back, nor its others twice."""
    path, more = split(sample_csv, tmp_path)
    main, held = read_battles(path), Held(n_folds=4, fold=1)
    found = taken(more, main, held, TrainSpec(label_smoothing=0.3), weight=0.25)
    frame, new = found.frame, read_battles(sample_csv).frame[160:]
    held_out = select_training(main, held)[1]
    assert not {fold_of(turns, 4) for turns in frame["prompt"]} & {1}
    assert not {json.dumps(p) for p in frame["prompt"]} & {json.dumps(p) for p in held_out["prompt"]}
    assert set(frame["id"]) <= {str(10**6 + i) for i in new.index}
    assert found.labelled == 240 == len(frame) + sum(found.left_out.values())
    assert 0 < found.left_out[extra.NEAR] < sum(found.left_out.values())
    assert 0 < len(frame) < 80
    assert np.allclose(found.targets, 0.25 * (0.7 * np.eye(3)[frame["label"]] + 0.1))


def test_votes_of_extra_rows_where_the_file_has_them(sample_csv: Path, tmp_path: Path) -> None:
    """Asked for with those of the main file, or by themselves: then the main file needs no such columns."""
    path, more = split(sample_csv, tmp_path, votes=True)
    main, asked = read_battles(path), (TrainSpec(targets="votes"), TrainSpec(extra_targets="votes"))
    assert all(np.allclose(taken(more, main, Held(), spec).targets, [0.25, 0.75, 0]) for spec in asked)
    hard = TrainSpec(targets="votes", extra_targets="hard")
    assert set(taken(more, main, Held(), hard).targets.ravel()) == {0, 1}
    more = split(sample_csv, tmp_path)[1]
    for spec in asked:
        found = taken(more, main, Held(), spec)
        assert np.array_equal(found.targets, np.eye(3)[found.frame["label"]]) and found.voted == 0


def test_extra_votes_that_no_file_has_are_refused(sample_csv: Path, tmp_path: Path) -> None:
    path, more = split(sample_csv, tmp_path)
    request = request_of(tmp_path, path, [more], TrainSpec(extra_targets="votes"))
    with pytest.raises(ZooError, match=r"train\.extra_targets = 'votes': no row of the extra files has votes_a, "):
        extra.all_extra_rows(request, read_battles(path))


def test_a_file_of_nothing_new_is_refused(sample_csv: Path) -> None:
    with pytest.raises(ZooError, match=r"train\.extra: .*none of its 240 labelled rows can be learned from: 240 also in"):
        taken(sample_csv, read_battles(sample_csv), Held(), TrainSpec())


def test_a_teacher_reaches_extra_rows_labelled_or_not(sample_csv: Path, tmp_path: Path) -> None:
    """Oracle: the same softening and mixing as of rows of the main file; what has no label has the teacher's alone."""
    path, more = split(sample_csv, tmp_path)
    rows = list(csv.DictReader(more.open()))
    bare = tmp_path / "bare.csv"
    with bare.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "prompt", "response_a", "response_b"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    main, spec = read_battles(path), TrainSpec(teacher_weight=0.75, teacher_temperature=2.0)
    every = taken(more, main, Held(), spec)
    p = np.random.default_rng(0).dirichlet((1, 1, 1), len(every.frame))
    ids, half = every.frame["id"].tolist(), len(every.frame) // 2
    teacher = score_table(ids[:half], p[:half]).set_index("id")
    soft = np.sqrt(p) / np.sqrt(p).sum(axis=1, keepdims=True)
    labels = np.eye(3)[every.frame["label"]]
    found = taken(more, main, Held(), spec, weight=0.5, teacher=teacher)
    assert found.taught == half and found.frame["id"].tolist() == ids
    assert np.allclose(found.targets[:half], 0.5 * (0.75 * soft + 0.25 * labels)[:half])
    assert np.allclose(found.targets[half:], 0.5 * labels[half:])
    pseudo = taken(bare, main, Held(), spec, teacher=teacher)
    assert pseudo.frame["id"].tolist() == ids[:half] and np.allclose(pseudo.targets, soft[:half])


def test_a_battle_of_two_extra_files_is_learned_from_the_first(sample_csv: Path, tmp_path: Path) -> None:
    path, more = split(sample_csv, tmp_path)
    main = read_battles(path)
    lines = more.read_text().splitlines(keepends=True)
    (tmp_path / "half.csv").write_text("".join([lines[0], *lines[-60:]]))
    request = request_of(tmp_path, path, [tmp_path / "half.csv", more], TrainSpec())
    (first, second), counts = extra.all_extra_rows(request, main)
    assert not set(first.frame["id"]) & set(second.frame["id"])
    assert second.left_out[extra.EARLIER] == len(first.frame)
    assert set(first.frame["id"]) | set(second.frame["id"]) == set(taken(more, main, Held(), TrainSpec()).frame["id"])
    assert counts["train/extra_rows"] == len(first.frame) + len(second.frame)
    assert counts["train/extra_rows_left_out"] == 60 + 240 - counts["train/extra_rows"]
    assert np.allclose(first.targets.sum(axis=1), 1.0) and np.allclose(second.targets.sum(axis=1), 0.5)


def request_of(folder: Path, main: Path, files: list[Path], spec: TrainSpec) -> TrainRequest:
    first, *more = (Input(path=file, fingerprint=f"x{i}") for i, file in enumerate(files))
    prompt = PromptSpec(template=TEMPLATE, max_tokens=128)
    inputs = {"base": Input(path=folder / "base", fingerprint="b"), "battles": Input(path=main, fingerprint="m")}
    further = tuple(ExtraBattles(battles=one, weight=0.5) for one in more)
    return TrainRequest(
        entry="tiny", **inputs, held=Held(), prompt=prompt, spec=spec, extra=first, more_extra=further, extra_rule=NEAR
    )


def test_a_model_is_trained_on_all_files(tiny_llama: Path, sample_csv: Path, tmp_path: Path) -> None:
    path, more = split(sample_csv, tmp_path)
    lines = more.read_text().splitlines(keepends=True)
    (tmp_path / "half.csv").write_text("".join([lines[0], *lines[-60:]]))
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model").symlink_to(tiny_llama)
    (tmp_path / "out").mkdir()
    spec = TrainSpec(rank=2, eval_rows=8, max_rows=16, batch_rows=8)
    request = request_of(tmp_path, path, [tmp_path / "half.csv", more], spec)
    result = train.run(request, tmp_path / "out")
    used = result.metrics["train/extra_rows"]
    assert used > 0 and result.metrics["train/rows"] == 16 + used == result.measurements.rows


# --- what an entry and a recipe name ------------------------------------------------------------------------------------


def train_request_of(settings: list[str], battles: Path, folder: Path) -> Any:
    entry = with_files_from(override(load_entry("smollm2-135m"), settings), folder)
    requests = chain(entry, battles_input(battles), "cpu", folder, held=Held(), selection=Selection(), source="hub")
    return requests[1]


def test_the_content_of_the_extra_file_is_part_of_identity_and_its_place_is_not(sample_csv: Path, tmp_path: Path) -> None:
    for place in ("one", "two", "three"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "extra.csv").write_text(sample_csv.read_text() + ("\n" if place == "three" else ""))
    plain, *found = (
        train_request_of(settings, sample_csv, tmp_path / place)
        for settings, place in (([], "one"), *((["train.extra=extra.csv"], p) for p in ("one", "two", "three")))
    )
    one, two, three = map(fingerprint, found)
    assert one == two != three and fingerprint(plain) not in (one, three)
    assert found[0].extra.path == tmp_path / "one" / "extra.csv" and found[0].spec.extra == ()


def test_requests_without_extra_battles_keep_their_fingerprint(sample_csv: Path, tmp_path: Path) -> None:
    dumped = train_request_of([], sample_csv, tmp_path).model_dump(mode="json")
    assert not [key for key in (*dumped, *dumped["spec"]) if "extra" in key]


def test_one_file_is_the_same_request_however_it_is_written(sample_csv: Path, tmp_path: Path) -> None:
    (tmp_path / "extra.csv").write_text(sample_csv.read_text())
    (tmp_path / "more.csv").write_text(sample_csv.read_text() + "\n")
    one, listed, weighted, two = (
        train_request_of(settings, sample_csv, tmp_path)
        for settings in (
            ["train.extra=extra.csv", "train.extra_weight=0.5"],
            ['train.extra=[{file="extra.csv", weight=0.5}]'],
            ['train.extra=[{file="extra.csv", weight=2}]', "train.extra_weight=0.25"],
            ['train.extra=[{file="extra.csv"}, {file="more.csv", weight=0.5}]', "train.extra_weight=0.5"],
        )
    )
    assert fingerprint(one) == fingerprint(listed) == fingerprint(weighted) != fingerprint(two)
    assert not {"more_extra", "teaches_extra"} & one.model_dump(mode="json").keys()
    assert [(e.battles.path.name, e.weight) for e in two.extra_files] == [("extra.csv", 0.5), ("more.csv", 0.25)]
    other = train_request_of(
        ['train.extra=[{file="extra.csv"}, {file="more.csv", weight=0.6}]', "train.extra_weight=0.5"], sample_csv, tmp_path
    )
    assert fingerprint(other) != fingerprint(two)
    assert parse_request(two.model_dump_json()) == two
    assert fingerprint(without_paths(two)) == fingerprint(two) and str(tmp_path) not in without_paths(two).model_dump_json()


def test_extra_files_survive_being_written_as_toml() -> None:
    for written in ('"judged.csv"', '[{file = "judged.csv", weight = 0.5}, {file = "made.parquet"}]'):
        entry = override(load_entry("smollm2-135m"), [f"train.extra={written}"])
        assert Entry.model_validate(tomllib.loads(contract_toml(entry))) == entry


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ('[{file="x.csv", wieght=2}]', "unknown key `train.extra.0.wieght`; did you mean `weight`?"),
        ('[{file="x.csv", weight=0}]', "`train.extra.0.weight`: Input should be greater than 0, got 0"),
        ("[{weight=1}]", "key `train.extra.0.file` is missing"),
        ("5", "`train.extra`: Input should be a valid tuple, got 5"),
    ],
)
def test_faults_of_extra_files_are_named(setting: str, expected: str) -> None:
    with pytest.raises(ZooError) as error:
        override(load_entry("smollm2-135m"), [f"train.extra={setting}"])
    assert expected in str(error.value)


def test_a_recipe_takes_files_from_its_data_folder(sample_csv: Path, tmp_path: Path) -> None:
    settings = '["train.extra=nowhere.csv"]'
    recipe = f'question = "?"\ndata = "{sample_csv.name}"\n[[runs]]\nentry = "smollm2-135m"\nset = {settings}\n'
    (tmp_path / "recipe.toml").write_text(recipe)
    with pytest.raises(ZooError, match=rf"train\.extra: {sample_csv.parent}/nowhere\.csv: no such file; give a file"):
        run_recipe(tmp_path, sample_csv.parent, tmp_path / "store", say=lambda _: None)
