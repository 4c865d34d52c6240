"""The prompts stage: like a target, or where held-out loss is worst; what is held out itself is never chosen."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.helpers.logs import REAL, needs_real_data, question
from zoo.contracts import Input, PromptsRequest
from zoo.data.columns import WINNER_COLUMNS
from zoo.data.made import CHOSEN, REPORT
from zoo.data.masks import asked_in, why_masked
from zoo.data.prompts import read_prompts
from zoo.errors import ZooError
from zoo.stages.data import prompts

COOKING = "How do I bake bread with flour and yeast in the oven for dinner, {}"
CODE = "Fix this python function that raises an exception inside a loop, {}"
GERMAN = "Schreibe mir bitte einen kurzen Brief an den Vermieter, {}"


def given(path: Path) -> Input:
    return Input(path=path, fingerprint=path.name)


def file_of(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"prompt": text, "licence": "MIT"}) + "\n" for text in texts))
    return path


def run(tmp_path: Path, pool: Path, **fields: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    prompts.run(PromptsRequest(entry="data", pool=given(pool), **fields), out)
    rows = [json.loads(line) for line in (out / CHOSEN).read_text().splitlines()]
    return rows, json.loads((out / REPORT).read_text())


def mixed(first: int, cooking: int, code: int, german: int) -> list[str]:
    """Prompts of three kinds; no two ask the same."""
    kinds = enumerate([(COOKING, cooking), (CODE, code), (GERMAN, german)])
    return [text.format(question(first + 20_000 * kind + n)) for kind, (text, count) in kinds for n in range(count)]


def test_the_chosen_are_like_the_target_and_the_floor_lets_any_through(tmp_path: Path) -> None:
    pool, target = file_of(tmp_path / "pool.jsonl", mixed(0, 300, 60, 60)), tmp_path / "target.jsonl"
    file_of(target, mixed(5000, 10, 60, 30))
    rows, report = run(tmp_path, pool, like=given(target), rows=60, floor=0.1)
    assert len(rows) == 60 == report["rows"] and len({row["prompt_id"] for row in rows}) == 60
    for feature in ("language", "topic"):
        assert report["distance"][feature]["after"] < 0.5 * report["distance"][feature]["before"]
    of_german = sum(row["language"] == "de" for row in rows) / 60
    assert abs(of_german - 0.3) < 0.12 and report["least_chance"] >= 60 * 0.1 / 420 * 0.999
    assert all(0 < row["inclusion_probability"] <= 1 for row in rows)
    more, _ = run(tmp_path, pool, like=given(target), rows=150, floor=0.1)
    assert [row["prompt_id"] for row in more[:60]] == [row["prompt_id"] for row in rows]
    read = read_prompts(tmp_path / "out" / CHOSEN).prompts
    assert [(p.id, p.licence) for p in read] == [(row["prompt_id"], "MIT") for row in more]


def test_what_the_target_asks_is_never_chosen(tmp_path: Path) -> None:
    target = file_of(tmp_path / "target.jsonl", mixed(0, 20, 20, 0))
    pool = file_of(tmp_path / "pool.jsonl", [*mixed(0, 20, 20, 0), "What is the time? " + mixed(0, 1, 0, 0)[0], "Who are you?"])
    rows, report = run(tmp_path, pool, like=given(target), rows=50)
    assert [row["prompt"] for row in rows] == [["Who are you?"]] and report["pool"] == 1
    with pytest.raises(ZooError, match="every prompt is one of the target's"):
        run(tmp_path, target, like=given(target), rows=5)


def battles(path: Path, hard: float) -> tuple[Path, Path]:
    """Battles of two topics, and a table whose loss is higher on one of them."""
    texts = mixed(9000, 60, 60, 0)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, len(texts))
    frame = pd.DataFrame({"id": [f"b{n}" for n in range(len(texts))], "prompt": [json.dumps([text]) for text in texts]})
    frame = frame.assign(response_a=json.dumps(["yes"]), response_b=json.dumps(["no"]))
    frame[list(WINNER_COLUMNS)] = np.eye(3, dtype=int)[y]
    right = np.where(np.arange(len(texts)) < 60, 0.6, 0.6 - hard) + rng.normal(0, 0.05, len(texts))
    p = np.where(np.eye(3, dtype=bool)[y], right[:, None], (1 - right[:, None]) / 2)
    table = pd.DataFrame(p, columns=["p_a", "p_b", "p_tie"]).assign(id=frame["id"])
    frame.to_csv(path / "battles.csv", index=False)
    table.to_csv(path / "oof.csv", index=False)
    return path / "battles.csv", path / "oof.csv"


def test_more_is_asked_where_the_loss_is_worst(tmp_path: Path) -> None:
    file, table = battles(tmp_path, 0.3)
    pool = file_of(tmp_path / "pool.jsonl", [*mixed(0, 200, 200, 0), *mixed(9000, 30, 30, 0)])
    rows, report = run(tmp_path, pool, worst_of=(given(table),), battles=given(file), rows=100)
    of_code = sum("python" in row["prompt"][0] for row in rows) / 100
    assert report["pool"] == 400 and report["wanted"] and 0.85 < of_code < 1  # what is held out itself is left out
    assert report["loss"]["chance"] < 1e-6 and report["loss"]["worst"][0]["mean"] > report["loss"]["mean"]


def test_chance_alone_is_no_reason(tmp_path: Path) -> None:
    file, table = battles(tmp_path, 0.0)
    pool = file_of(tmp_path / "pool.jsonl", mixed(0, 100, 100, 0))
    rows, report = run(tmp_path, pool, worst_of=(given(table),), battles=given(file), rows=40)
    assert not report["wanted"] and {row["inclusion_probability"] for row in rows} == {0.2}


def test_what_a_table_says_of_no_labelled_battle_is_counted(tmp_path: Path) -> None:
    file, table = battles(tmp_path, 0.3)
    rows = pd.read_csv(table).astype({"p_a": object})
    rows.loc[0, "p_a"] = "high"
    rows.loc[len(rows)] = [0.2, 0.3, 0.5, "elsewhere"]
    rows.loc[len(rows)] = rows.loc[1]
    rows.to_csv(table, index=False)
    pool = file_of(tmp_path / "pool.jsonl", mixed(0, 20, 20, 0))
    _, report = run(tmp_path, pool, worst_of=(given(table),), battles=given(file), rows=4)
    counts = {each["reason"]: each["count"] for each in report["counts"]}
    expected = {"no probabilities that can be read": 1, "of an id that occurs more than once": 2, prompts.OF_NO_LABEL: 1}
    assert counts == expected | {prompts.NOT_DRAWN: 36} and report["loss"]["rows"] == 118


def test_a_table_of_other_battles_is_refused(tmp_path: Path) -> None:
    file, _ = battles(tmp_path, 0.0)
    (tmp_path / "other.csv").write_text("id,p_a,p_b,p_tie\nx,0.2,0.3,0.5\n")
    pool = file_of(tmp_path / "pool.jsonl", mixed(0, 5, 5, 0))
    with pytest.raises(ZooError, match=r"other\.csv: no row of it is a labelled battle of .*battles\.csv"):
        run(tmp_path, pool, worst_of=(given(tmp_path / "other.csv"),), battles=given(file), rows=4)


@needs_real_data
def test_a_real_log_is_matched_to_real_battles(tmp_path: Path) -> None:
    pool, target = REAL / "answers_log.jsonl.gz", REAL / "lmsys_dev.csv"
    rows, report = run(tmp_path, pool, like=given(target), rows=300)
    apart = report["distance"]
    assert len(rows) == 300 and report["pool_lacks"]["turns"] == ["2", "3 or 4", "5 or more"]
    assert all(apart[name]["after"] < 0.6 * apart[name]["before"] for name in ("language", "characters", "topic"))
    assert not any(why_masked([row["prompt"] for row in rows], asked_in([target])))
