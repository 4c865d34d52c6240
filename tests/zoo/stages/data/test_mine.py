"""The mine stage: what it leaves out it counts, its rows keep the invariants, and its folds are those of their prompts."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.helpers.logs import conversation, log_of, needs_real_data, question, write_log
from zoo.contracts import Input, Log, MineRequest
from zoo.data import logs, masks
from zoo.data.battles import read_battles
from zoo.data.made import PAIRS, REPORT
from zoo.data.splits import NEAR_PROMPTS, assign_folds
from zoo.errors import ZooError
from zoo.stages.data import mine

MODELS = ("strong", "middling", "weak", "tiny")


def given(path: Path) -> Input:
    return Input(path=path, fingerprint=path.name)


def run(tmp_path: Path, *paths: Path, licence: str | None = None, **settings: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    files = tuple(Log(file=given(path), source=path.stem, licence=licence) for path in paths)
    mine.run(MineRequest(entry="data", logs=files, most_characters=5_000, **settings), out)
    return pd.read_parquet(out / PAIRS), json.loads((out / REPORT).read_text())


def counts(report: dict[str, Any]) -> dict[str, int]:
    return {record["reason"]: record["count"] for record in report["counts"]}


def test_rows_are_battles_of_different_models_with_all_that_a_made_battle_has(tmp_path: Path) -> None:
    table, report = run(tmp_path, write_log(tmp_path / "log.jsonl", log_of(30, MODELS)))
    assert report["rows"] == len(table) == 180 and report["ended_by"] == "every pair is taken"
    assert (table["model_a"] != table["model_b"]).all() and (table["response_a"] != table["response_b"]).all()
    assert table["id"].is_unique and set(table["status"]) == {"unlabelled"} and set(table["source"]) == {"log"}
    assert set(table["licence"]) == {"MIT"} and (table["generator_a"] == table["model_a"]).all()
    assert report["largest_side_difference"] <= 1 and report["models"].keys() == set(MODELS)
    a, b = Counter(table["model_a"]), Counter(table["model_b"])
    assert all(abs(a[model] - b[model]) <= 1 for model in MODELS)
    (tmp_path / "pairs.csv").write_text(table.to_csv(index=False))
    read = read_battles(tmp_path / "pairs.csv")
    assert not read.errors and len(read.frame) == 180 and not read.labelled
    assert read.frame["response_a"].map(len).eq(1).all()


def test_ids_are_of_the_two_answers_whatever_else_is_chosen(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", log_of(10, MODELS))
    whole, _ = run(tmp_path, log)
    some, report = run(tmp_path, log, rows=7, seed=5)
    assert report["ended_by"] == "--rows" and len(some) == 7 and set(some["id"]) <= set(whole["id"])
    capped, report = run(tmp_path, log, per_prompt=2)
    assert report["ended_by"] == "--per-prompt" and len(capped) == 20 and Counter(capped["prompt"]).most_common(1)[0][1] == 2


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    rows = log_of(3, ["strong", "weak"])
    bad = [
        "{oops",
        conversation(0, "third", [(question(0), "")]),
        conversation(0, "strong", [(question(0), "once more")], conversation_id="again"),
        rows[1],
        conversation(7, "strong", [("a question for one alone", "x")]),
        conversation(8, "strong", [("both say so", "Yes")]),
        conversation(8, "weak", [("both say so", " yes ")]),
        conversation(9, "strong", [("x" * 6_000, "y")]),
    ]
    table, report = run(tmp_path, write_log(tmp_path / "log.jsonl", [*rows, *bad]))
    assert len(table) == 3 and report["conversations"] == 14
    assert counts(report) == {
        logs.NO_OBJECT: 1,
        logs.NO_ANSWER: 1,
        mine.AGAIN: 1,
        mine.DOUBLED: 1,
        logs.TOO_LONG: 1,
        mine.ALONE: 1,
        mine.IDENTICAL: 1,
        mine.NONE_DIFFER: 1,
    }
    example = next(record["example"] for record in report["counts"] if record["reason"] == mine.DOUBLED)
    assert example == f"log.jsonl:10 {rows[1]['conversation_id']}"


def test_conversations_pair_where_every_turn_of_the_user_is_the_same(tmp_path: Path) -> None:
    talks = {"a": ["hello", "and then?"], "b": ["Hello ", "and  then?"], "c": ["hello", "something else"], "d": ["hello"]}
    rows = [conversation(0, model, [(turn, f"{model} {turn}") for turn in turns]) for model, turns in talks.items()]
    table, _ = run(tmp_path, write_log(tmp_path / "log.jsonl", rows))
    assert [{row.model_a, row.model_b} for row in table.itertuples()] == [{"a", "b"}]
    assert len(json.loads(table["response_a"][0])) == len(json.loads(table["prompt"][0])) == 2


def test_several_logs_are_one_and_a_pair_of_two_has_both_licences(tmp_path: Path) -> None:
    one = write_log(tmp_path / "one.jsonl", log_of(4, ["strong"]))
    rows = [row | {"licence": "CC-BY-4.0", "source": "other"} for row in log_of(4, ["weak"])]
    table, _ = run(tmp_path, one, write_log(tmp_path / "two.jsonl", rows))
    assert len(table) == 4 and set(table["licence"]) == {"CC-BY-4.0 AND MIT"} and set(table["source"]) == {"one+other"}


def test_a_source_without_a_licence_asks_for_one(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "licence"} for row in log_of(4, MODELS)]
    log = write_log(tmp_path / "wild.jsonl", rows)
    with pytest.raises(ZooError, match=r"16 conversations of wild have no licence; .*--licence"):
        run(tmp_path, log)
    table, _ = run(tmp_path, log, licence="CC0-1.0")
    assert set(table["licence"]) == {"CC0-1.0"}


def test_prompts_of_a_test_file_and_their_near_copies_never_come_back(tmp_path: Path) -> None:
    long = f"{question(101)} {question(102)}"
    rows = [*log_of(6, MODELS), *(conversation(50, model, [(long + " please", model)]) for model in MODELS)]
    test = pd.DataFrame({"id": [1, 2], "prompt": [json.dumps([question(2).upper()]), json.dumps(["hi", long])]})
    test.assign(response_a='["x"]', response_b='["y"]').to_csv(tmp_path / "test.csv", index=False)
    table, report = run(tmp_path, write_log(tmp_path / "log.jsonl", rows), never=(given(tmp_path / "test.csv"),))
    prompts = {json.loads(cell)[0] for cell in table["prompt"]}
    assert prompts == {question(n) for n in (0, 1, 3, 4, 5)}
    assert counts(report) == {masks.EXACT: 1, masks.NEAR: 1}
    assert all(near["similarity"] < 0.7 for near in report["nearest_kept"])


def test_near_copies_of_a_prompt_are_one_group_and_one_fold(tmp_path: Path) -> None:
    long = f"{question(101)} {question(102)}"
    near = [(60, long), (61, long + " now")]
    rows = [*log_of(6, MODELS), *(conversation(n, model, [(text, model)]) for n, text in near for model in MODELS)]
    table, report = run(tmp_path, write_log(tmp_path / "log.jsonl", rows))
    groups = table.groupby(table["prompt"].map(lambda cell: json.loads(cell)[0]))["prompt_group"].unique()
    assert groups.map(len).eq(1).all() and groups[long] == groups[long + " now"]
    assert report["prompts"] == 8 and report["prompt_groups"] == table["prompt_group"].nunique() == 7
    table.to_csv(tmp_path / "pairs.csv", index=False)
    folds = assign_folds(read_battles(tmp_path / "pairs.csv").frame, 5, NEAR_PROMPTS)
    assert [int(group, 16) % 5 for group in table["prompt_group"]] == folds.tolist()


def test_only_pairs_that_a_judge_has_judged(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", log_of(5, MODELS))
    judged = tmp_path / "preferences.csv"
    judged.write_text("prompt_id,model_a,model_b,share_b,judge\np1,weak,strong,0,j\np3,tiny,weak,1,j\np3,tiny,tiny,0.5,j\n")
    table, report = run(tmp_path, log, judged=(given(judged),))
    found = {frozenset((row.log_id_a, row.log_id_b)) for row in table.itertuples()}
    assert found == {frozenset(("p1-weak", "p1-strong")), frozenset(("p3-tiny", "p3-weak"))}
    assert counts(report) == {mine.NOT_JUDGED: 3, mine.UNJUDGED: 5 * 6 - 2}


@pytest.mark.parametrize("models", [["alone"], []])
def test_a_log_without_a_pair_says_why(tmp_path: Path, models: list[str]) -> None:
    rows: list[Any] = log_of(4, models) or [conversation(0, "a", [("q", "")])]
    with pytest.raises(ZooError, match=r"no pair in \d conversations \(.*(one model alone|without an answer)"):
        run(tmp_path, write_log(tmp_path / "log.jsonl", rows))


@needs_real_data
@pytest.mark.slow
def test_a_real_log_keeps_the_invariants(tmp_path: Path) -> None:
    from tests.helpers.logs import REAL

    table, report = run(tmp_path, REAL / "answers_log.jsonl.gz", rows=3_000, never=(given(REAL / "human_train.csv.gz"),))
    assert report["conversations"] == 39_450 and len(table) == 3_000 and report["largest_side_difference"] <= 1
    assert table["id"].is_unique and (table["model_a"] != table["model_b"]).all()
    assert counts(report)[masks.EXACT] > 100 and len(report["models"]) > 45
