"""The commands on files that people have: small cases with their right values, whatever the format."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers.battles_files import (
    ONE_HOT,
    Row,
    arena,
    as_csv,
    as_jsonl,
    as_parquet,
    competition,
    named,
    write,
    zstd,
)
from tests.helpers.command_lines import Done, run_command
from zoo.cli.main import main

ANSWERS = ("It's late; why not?", "Answer one.", "Because it is so.", "No.")
ROWS: list[Row] = [
    (str(9_000_000 + i), [f"What is {i} times 6?"], [f"{ANSWERS[i % 4]} {i}"], [f"{ANSWERS[(i + 1) % 4]} {i}"], i % 3)
    for i in range(30)
]
TWO_CLASS: list[Row] = [row for row in ROWS if row[4] < 2]
WSDM: list[Row] = [(f"{i:032x}", *row[1:4], i % 2) for i, row in enumerate(ROWS)]


def plain(rows: list[Row]) -> pd.DataFrame:
    frame = competition(rows)
    return frame.assign(
        **{name: [json.loads(text)[0] for text in frame[name]] for name in ("prompt", "response_a", "response_b")}
    )


def two_bad() -> pd.DataFrame:
    frame = competition(ROWS)
    frame.loc[3, "response_a"], frame.loc[4, "response_b"] = "", "null"
    return frame


CASES: dict[str, tuple[bytes, int, tuple[int, int, int]]] = {  # the file, rows used, and how many A, B and ties they have
    "battles.csv": (as_csv(competition(ROWS)), 30, (10, 10, 10)),
    "two_bad_rows.csv": (as_csv(two_bad()), 28, (9, 9, 10)),
    "plain_text.csv": (as_csv(plain(ROWS)), 30, (10, 10, 10)),
    "two_class.csv": (as_csv(competition(TWO_CLASS)), 20, (10, 10, 0)),
    "wsdm.parquet": (as_parquet(named(WSDM, language="English")), 30, (15, 15, 0)),
    "wsdm.csv": (as_csv(named(WSDM, language="English")), 30, (15, 15, 0)),
    "arena.jsonl.zst": (zstd(as_jsonl(arena(ROWS, ("model_a", "model_b", "tie (bothbad)")))), 30, (10, 10, 10)),
    "excel.csv": (as_csv(competition(ROWS), ";", "utf-16"), 30, (10, 10, 10)),
}


@pytest.fixture
def zoo(tmp_path: Path) -> Callable[..., Done]:
    def run(*arguments: str) -> Done:
        return run_command(main, "zoo", *arguments, home=tmp_path / "home", folder=tmp_path)

    return run


@pytest.mark.parametrize("name", CASES)
def test_validate_and_stats_say_what_a_file_holds(tmp_path, zoo, name):
    content, rows, (a, b, tie) = CASES[name]
    write(tmp_path / name, content)
    report = json.loads(zoo("data", "validate", name, "--json").stdout)
    assert (report["usable_rows"], report["labelled"], report["ties"]) == (rows, True, not name.startswith("wsdm"))
    done = zoo("data", "validate", name)
    assert f"{rows} usable rows" in done.stdout and f"read as {report['kind']} columns; {report['format']}" in done.stdout
    assert done.returncode == (rows == 28)
    stats = zoo("data", "stats", name, "--json")
    shares = json.loads(stats.stdout)["label_shares"]
    assert [round(share * rows) for share in shares.values()] == [a, b, tie]
    assert ("28 of 30 rows used; 2 cannot be: 9000003 (response_a" in stats.stderr) == (rows == 28)


@pytest.mark.services
@pytest.mark.parametrize("name", CASES)
def test_the_lexical_entry_runs_on_every_case(tmp_path, zoo, name):
    content, rows, (_, _, tie) = CASES[name]
    write(tmp_path / name, content)
    done = zoo("run", "lexical", "--data", name, "--json")
    assert done.returncode == 0, done.stderr
    (artifact,) = json.loads(done.stdout)["artifacts"]
    metrics = artifact["metrics"]
    assert (metrics["ab:val/rows"], metrics["ab:rows/failed"]) == (rows, 2 if rows == 28 else 0)
    table = pd.read_parquet(Path(artifact["path"]) / "ab" / "scores.parquet").query("status == 'ok'")
    assert np.isclose(table[["p_a", "p_b", "p_tie"]].sum(axis=1), 1).all() and (tie > 0 or table["p_tie"].max() < 0.05)
    if rows == 28:
        told = next(line for line in done.stderr.splitlines() if "28 of 30 rows used; 2 cannot be: " in line)
        assert re.search(r"9000003 \(response_a: .*9000004 \(response_b: ", told)


@pytest.mark.services
def test_a_handful_of_sentences_with_numbers_behind_them_can_be_learned_from(tmp_path, zoo):
    """Near-copies in one fold would leave folds without a winner: each prompt goes alone, and that is said."""
    frame = competition(ROWS)
    asked = ("How do I boil an egg?", "Name a river.", "Say hello.")
    frame["prompt"] = [json.dumps([f"{asked[i % 3]} ({i})"]) for i in range(len(frame))]
    write(tmp_path / "b.csv", as_csv(frame))
    done = zoo("run", "lexical", "--data", "b.csv")
    assert done.returncode == 0 and "--fold-rule prompts" in done.stderr, done.stderr
    asked_for = zoo("run", "lexical", "--data", "b.csv", "--fold-rule", "near-prompts-1")
    assert asked_for.returncode != 0 and "error: " in asked_for.stderr, "what was asked for is not changed"


def test_above_a_share_the_command_stops_before_anything_runs(tmp_path, zoo):
    frame = competition(ROWS)
    frame.loc[range(4), "prompt"] = "oops"
    write(tmp_path / "b.csv", as_csv(frame))
    for command in ("run", "train", "score"):
        done = zoo(command, "lexical", "--data", "b.csv")
        assert done.returncode == 2 and "26 of 30 rows used; 4 cannot be: 9000000 (" in done.stderr
        assert "13% of the rows, more than 10%" in done.stderr and "--max-bad-rows" in done.stderr
    assert "give a share of the rows" in zoo("run", "lexical", "--data", "b.csv", "--max-bad-rows", "nan").stderr
    assert not list((tmp_path / "home").rglob("manifest.json"))


@pytest.mark.parametrize("columns", [["id", *ONE_HOT], ["id", "winner"], ["id", "prompt", "winner"]])
@pytest.mark.parametrize("make", [as_csv, as_jsonl, as_parquet])
def test_labels_of_an_import_need_ids_and_winners_only(tmp_path, zoo, columns, make):
    both = competition(ROWS).assign(winner=[("model_a", "model_b", "both_bad")[row[4]] for row in ROWS])
    write(tmp_path / "labels", make(both[columns]))
    write(tmp_path / "whole.csv", as_csv(competition(ROWS)))
    rng = np.random.default_rng(0)
    p = rng.dirichlet([2, 2, 2], len(ROWS))
    scores = pd.DataFrame({"id": [row[0] for row in ROWS], "p_a": p[:, 0], "p_b": p[:, 1], "p_tie": p[:, 2]})
    scores.to_csv(tmp_path / "oof.csv", index=False)
    losses = []
    for labels in ("labels", "whole.csv"):
        done = zoo("import", "m", "--scores", "oof.csv", "--labels", labels, "--seconds-per-row", "0.1", "--gpus", "1")
        assert done.returncode == 0, done.stderr
        manifest = json.loads((Path(done.stdout.strip().splitlines()[-1]) / "manifest.json").read_text())
        losses.append(next(value for name, value in manifest["metrics"].items() if name.endswith("val/log_loss")))
        if labels == "labels":
            assert f"folds go by {'prompt' if 'prompt' in columns else 'id, for want of prompts'}" in done.stderr
    assert losses[0] == pytest.approx(losses[1]) == -np.log(p[range(30), [row[4] for row in ROWS]]).mean()
