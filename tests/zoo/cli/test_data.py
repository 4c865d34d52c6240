"""`zoo data`: what the commands print and the codes they exit with."""

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from zoo.cli.data import data_app
from zoo.data.battles import read_battles
from zoo.data.stats import battle_stats
from zoo.errors import ZooError


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(data_app, [str(a) for a in arguments])
    if isinstance(result.exception, ZooError):
        raise result.exception
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


def write(path: Path, *rows: list[str]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "prompt", "response_a", "response_b"], *rows])
    return path


def test_a_sample_is_valid_and_says_its_best_log_loss(tmp_path):
    code, text = invoke("sample", tmp_path / "b.csv", "--rows", 300)
    assert code == 0 and "best possible log loss" in text
    code, text = invoke("validate", tmp_path / "b.csv")
    assert code == 0 and "300 usable rows, 0 kept apart" in text and "usable, with warnings" in text


def test_a_sample_does_not_take_the_place_of_a_folder(tmp_path):
    for folder in (tmp_path, "."):
        with pytest.raises(ZooError, match="a folder; give the name of a file"):
            invoke("sample", folder)


def test_a_sample_does_not_take_the_place_of_battles_that_are_none(tmp_path):
    path = write(tmp_path / "train.csv", ["1", '["q"]', '["x"]', '["y"]'])
    before = path.read_bytes()
    with pytest.raises(ZooError, match="no sample; give another name"):
        invoke("sample", path)
    assert path.read_bytes() == before
    for rows in (3, 5):
        assert invoke("sample", tmp_path / "s.csv", "--rows", rows)[0] == 0


def test_validate_names_the_rows_and_fails(tmp_path):
    path = write(tmp_path / "b.csv", ["1", '["q"]', '["x"]', '["y"]'], ["77", '["q"]', "oops", '["y"]'])
    code, text = invoke("validate", path)
    assert code == 1 and "not_json_list" in text and "77" in text and "1 kept apart" in text and "NOT USABLE" in text


def test_validate_as_json_is_complete(tmp_path):
    path = write(tmp_path / "b.csv", ["1", '["q"]', "[]", '["y"]'], ["1", '["q"]', '["x"]', '["y"]'])
    code, text = invoke("validate", path, "--json")
    report = json.loads(text)
    assert code == 1 and report["usable"] is False and report["labelled"] is False
    assert {(p["kind"], p["row_id"], p["row_number"]) for p in report["problems"]} == {
        ("turn_counts", "1", 1),
        ("duplicate_id", "1", 2),
    }


def test_validate_goes_on_where_columns_are_missing_and_refuses_what_is_no_file(tmp_path):
    (tmp_path / "b.csv").write_text("id,prompt\n1,x\n")
    code, text = invoke("validate", tmp_path / "b.csv")
    assert code == 1 and "response_a is missing" in " ".join(text.split())
    with pytest.raises(ZooError, match="cannot be read"):
        invoke("validate", tmp_path / "absent.csv")


def test_validate_says_what_votes_are_for_and_which_are_no_counts(tmp_path):
    header = "id,prompt,response_a,response_b,votes_a,votes_b,votes_tie,note"
    rows = ["1,[],[],[],3,1,0,x", "2,[],[],[],,,,x", "3,[],[],[],3,one,0,x", "4,[],[],[],-1,2,0,x"]
    (tmp_path / "b.csv").write_text("\n".join([header, *rows]))
    _, text = invoke("validate", tmp_path / "b.csv")
    assert "votes_a, votes_b, votes_tie: learned from where an entry has train.targets = 'votes'" in text
    assert "no counts in 2 rows, first 3" in text and "columns that are not read: note" in " ".join(text.split())
    assert json.loads(invoke("validate", tmp_path / "b.csv", "--json")[1])["unreadable_votes"] == ["3", "4"]


def test_stats_count_labels_turns_characters_and_tokens(tmp_path):
    path = write(tmp_path / "b.csv", ["1", '["q"]', '["one two"]', '["y"]'], ["2", '["q","r"]', '["x",null]', '["y","z"]'])
    stats = battle_stats(read_battles(path), lambda text: list(range(len(text.split()))))
    assert stats["rows"] == 2 and stats["distinct_prompts"] == 2 and stats["turns"] == {"1": 0.5, "2": 0.5}
    assert stats["label_shares"] == {} and stats["lengths"]["tokens, battle"]["mean"] == (4 + 5) / 2
    assert stats["lengths"]["characters, response_a"]["max"] == 7
    code, text = invoke("stats", path)
    assert code == 0 and "characters, response_a" in text and "tokens" not in text
    assert json.loads(invoke("stats", path, "--json")[1])["rows"] == 2


def test_stats_of_an_unusable_file_name_the_row(tmp_path):
    path = write(tmp_path / "b.csv", ["1", "[]", "[]", "[]"], ["1", "[]", "[]", "[]"])
    with pytest.raises(ZooError, match="row 2: id 1"):
        invoke("stats", path)


@pytest.mark.parametrize("command", ["validate", "stats", "sample"])
def test_every_command_shows_an_example(command):
    code, text = invoke(command, "--help")
    assert code == 0 and f"zoo data {command} " in text
