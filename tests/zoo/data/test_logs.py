"""Logs: what each row answers to which prompt; what cannot be used is told by reason, and stops nothing."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.logs import conversation, write_log
from zoo.data import logs
from zoo.data.formats.text import MOST_LINE_CHARACTERS
from zoo.data.logs import Conversation, Unusable, read_log
from zoo.errors import ZooError

GOOD = conversation(1, "m", [("q", "a"), ("q2", "a2")], language="English", source="s")


def read(path: Path, most: int = 1000) -> list[Conversation | Unusable]:
    return list(read_log(path, most))


def test_a_conversation_is_its_turns(tmp_path: Path) -> None:
    (found,) = read(write_log(tmp_path / "log.jsonl", [GOOD]))
    assert found == Conversation(1, "p1-m", "m", ["q", "q2"], ["a", "a2"], "English", "s", "MIT")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", logs.NO_OBJECT),
        ('["a list"]', logs.NO_OBJECT),
        ("[" * 100_000, logs.NO_OBJECT),
        (GOOD | {"conversation_id": None}, logs.NO_ID),
        (GOOD | {"model": " "}, logs.NO_MODEL),
        (GOOD | {"conversation": "hello"}, logs.NO_CONVERSATION),
        (GOOD | {"conversation": [{"role": "user", "content": [{"type": "image"}]}]}, logs.NO_CONVERSATION),
        (GOOD | {"conversation": [{"role": "oracle", "content": "x"}]}, logs.NO_CONVERSATION),
        (GOOD | {"conversation": []}, logs.NO_QUESTION),
        (GOOD | {"conversation": [{"role": "assistant", "content": "x"}]}, logs.NO_QUESTION),
        (GOOD | {"conversation": GOOD["conversation"][:3]}, logs.NO_ANSWER),
        (conversation(1, "m", [("q", " \n")]), logs.NO_ANSWER),
        (conversation(1, "m", [("q" * 2_000, "a")]), logs.TOO_LONG),
        (GOOD | {"status": "loop"}, "status 'loop'"),
        (GOOD | {"status": "too long: turn 2"}, "status 'too long'"),
    ],
)
def test_what_cannot_be_used_has_a_reason_and_stops_nothing(tmp_path: Path, line: object, reason: str) -> None:
    path = write_log(tmp_path / "log.jsonl", [line, GOOD])  # type: ignore[list-item]
    bad, good = read(path)
    assert isinstance(bad, Unusable) and (bad.row, bad.reason) == (1, reason)
    assert isinstance(good, Conversation) and good.row == 2


def test_a_line_without_end_is_one_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with path.open("w") as file:
        file.write('{"model": "' + "x" * (MOST_LINE_CHARACTERS + 5) + '"}\n' + json.dumps(GOOD) + "\n")
    bad, good = read(path)
    assert isinstance(bad, Unusable) and bad.reason == logs.NO_OBJECT and isinstance(good, Conversation)


def test_names_and_texts_come_out_fit_to_be_written(tmp_path: Path) -> None:
    row = conversation(1, "m\ud800", [("q\udfff", "a")])
    (found,) = read(write_log(tmp_path / "log.jsonl", [row]))
    assert isinstance(found, Conversation) and "�" in found.model and "�" in found.asked[0]


def test_every_format_is_the_same_log(tmp_path: Path) -> None:
    rows = [GOOD, conversation(2, "other", [("q", "b")])]
    plain = write_log(tmp_path / "log.jsonl", rows)
    packed, table, listed = tmp_path / "log.gz", tmp_path / "log.parquet", tmp_path / "log.json"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    pd.DataFrame(rows).to_parquet(table)
    listed.write_text(json.dumps(rows))
    assert read(plain) == read(packed) == read(table) == read(listed)


def test_what_is_no_log_is_refused_with_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "battles.csv"
    path.write_text("id,prompt,response_a\n1,2,3\n")
    with pytest.raises(ZooError, match=r"no row has a model and a conversation"):
        read(path)
