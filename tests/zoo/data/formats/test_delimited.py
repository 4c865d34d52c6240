"""CSV files that lost a piece never read as fewer rows in silence; odd ones that are whole read as they are."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.battles_files import Row, as_csv, competition, named, write
from zoo.data.battles import read_battles
from zoo.errors import ZooError

PIECES = ["why", 'he said "hi"', "a, b", "line\nbreak", '"quoted"', "", "plain words", 'ends "so"', "1,2", "[1]"]
TEXT = st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map(" ".join)
TEXTS = st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=2, max_size=8)
QUOTING = st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC])


def written(texts: list[tuple[str, str, str]], quoting: int, *, plain: bool, labelled: bool) -> str:
    rows: list[Row] = [(str(i), [p], [a], [b], i % 3) for i, (p, a, b) in enumerate(texts)]
    frame = named(rows) if plain else competition(rows)
    if not labelled:
        frame = frame[["id", "prompt", "response_a", "response_b"]]
    return str(frame.to_csv(index=False, quoting=quoting))


def ids_told(path: Path, text: str) -> tuple[str, ...] | None:
    """Ids that are read; None where the file is refused, or a row told as bad."""
    path.write_text(text, encoding="utf-8", newline="")
    try:
        battles = read_battles(path)
    except ZooError as error:
        assert "\n" not in str(error)
        return None
    return None if battles.bad_ids else battles.ids


@settings(max_examples=300, deadline=None)
@given(TEXTS, QUOTING, st.booleans(), st.booleans(), st.data())
def test_a_file_that_is_cut_off_is_refused_unless_its_last_row_is_one(tmp_path_factory, texts, quoting, plain, labelled, data):
    """What is left of the last row is told, unless it has every field and each is closed; then nothing shows the cut."""
    whole = written(texts, quoting, plain=plain, labelled=labelled)
    cut = whole[: data.draw(st.integers(whole.index("\n") + 1, len(whole) - 1))]
    ids = ids_told(tmp_path_factory.mktemp("cut") / "b.csv", cut)
    if ids is None:
        return
    rows = list(csv.reader(io.StringIO(cut), strict=True))
    assert [row[0] for row in rows[1:]] == list(ids)
    assert all(len(row) == len(rows[0]) for row in rows)


@settings(max_examples=300, deadline=None)
@given(TEXTS, QUOTING, st.booleans(), st.booleans(), st.booleans(), st.data())
def test_a_quote_more_or_less_loses_no_row_in_silence(tmp_path_factory, texts, quoting, plain, labelled, more, data):
    whole = written(texts, quoting, plain=plain, labelled=labelled)
    begin = whole.index("\n") + 1
    places = range(begin, len(whole)) if more else [i for i in range(begin, len(whole)) if whole[i] == '"']
    if not places:
        return
    at = data.draw(st.sampled_from(places))
    broken = whole[:at] + '"' + whole[at:] if more else whole[:at] + whole[at + 1 :]
    ids = ids_told(tmp_path_factory.mktemp("quote") / "b.csv", broken)
    assert ids is None or len(ids) == len(texts)


@pytest.mark.parametrize(
    ("tail", "told"),
    [
        (
            '3,"q","a","cut of',
            "from line 3 to 3, the file ends inside quotes, so it is cut off or a quote is",
        ),
        ('3,"q","a,"b"\n4,"q","a","b"\n', "from line 3 to 3, ',' expected after '\"'"),
        ('3,"q","a\n4,","a","b"\n', "the row from line 3 on has 5 fields, the header 4, and it holds line breaks"),
    ],
)
def test_rows_that_may_hold_others_are_refused_by_line(tmp_path, tail, told):
    with pytest.raises(ZooError) as refusal:
        read_battles(write(tmp_path / "b.csv", f'id,prompt,response_a,response_b\n2,"q","a","b"\n{tail}'.encode()))
    assert told in str(refusal.value)


def test_quotes_within_a_field_line_breaks_and_a_row_too_short_are_read(tmp_path):
    content = b'id,prompt,response_a,response_b\n1,5" wide,"say ""so""\r\nnow","a\nb"\n2,q,a\n3,q,a,b'
    battles = read_battles(write(tmp_path / "b.csv", content))
    assert battles.frame["prompt"].tolist() == [['5" wide'], ["q"]] and battles.bad_ids == ("2",)
    assert battles.frame["response_a"][0] == ['say "so"\r\nnow']


@pytest.mark.parametrize(("line", "separator"), [("sep=;", ";"), ('"sep=|"', "|"), ("sep=^", "^"), ("sep=\t", "\t")])
def test_a_first_line_that_says_the_separator_is_honoured(tmp_path, line, separator):
    rows: list[Row] = [("1", ["a;b,c"], ["x"], ["y"], 0), ("2", ["q"], ["x"], ["y"], 2)]
    content = line.encode() + b"\r\n" + as_csv(competition(rows), separator)
    assert read_battles(write(tmp_path / "b.csv", content)).frame["prompt"].tolist() == [["a;b,c"], ["q"]]


@pytest.mark.parametrize(("place", "value", "told"), [(6, 1, "encrypted"), (8, 9, "of a method that is not read")])
def test_a_zip_file_that_cannot_be_unpacked_is_one_line(tmp_path, place, value, told):
    """Its flags say encrypted, or its method Deflate64, in both headers."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b.csv", "id\n")
    content = bytearray(out.getvalue())
    central = content.index(b"PK\1\2")
    content[place] = content[central + place + 2] = value
    with pytest.raises(ZooError, match=told) as refusal:
        read_battles(write(tmp_path / "b.zip", bytes(content)))
    assert "\n" not in str(refusal.value)


def test_windows_1252_is_read_and_told_where_a_file_is_no_utf_8(tmp_path):
    rows: list[Row] = [("1", ["Où est l’été?"], ["à Paris – ça"], ["€ 3"], 0), ("2", ["q"], ["x"], ["y"], 2)]
    frame = named(rows)
    battles = read_battles(write(tmp_path / "b.csv", frame.to_csv(index=False).encode("cp1252")))
    same = read_battles(write(tmp_path / "u.csv", frame.to_csv(index=False).encode()))
    assert battles.frame.equals(same.frame) and not battles.problems
    assert "Windows-1252" in battles.told and same.format == "CSV, commas, UTF-8"


def test_a_damaged_byte_in_utf_8_makes_no_other_encoding_of_it(tmp_path):
    content = "id,prompt,response_a,response_b\n1,été,ça,là\n".encode() + b"2,q\xff,x,y\n3,q\x81\xe9\xe9\xe9,x,y\n"
    battles = read_battles(write(tmp_path / "b.csv", content))
    assert battles.format == "CSV, commas, UTF-8" and battles.frame["prompt"].tolist()[:2] == [["été"], ["q�"]]
