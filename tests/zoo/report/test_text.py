"""Tables: what fits a terminal, what stays whole in a pipe, and plain data for programs."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.color import Color

from zoo.report import text
from zoo.report.text import Column, Format, Table, as_text, lowest, show

PROSE = "a sentence that is much longer than any column of a narrow terminal could ever be, and then some more"
TABLE = Table(
    [Column("member"), Column("loss", "log_loss", ".3f"), Column("rows", form=",", drop=2), Column("why", prose=True, drop=1)],
    [["one@ab", 1.05678, 12345, PROSE], ["two|b", 0.9, None, "ok"]],
    frozenset({1}),
)


def shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], table: Table, columns: int, **environment: str
) -> str:
    """What a terminal of so many columns gets."""
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": str(columns), "TERM": "xterm-256color", **environment}.items():
        monkeypatch.setenv(name, value)
    show([table])
    return capsys.readouterr().out


def plain(ansi: str) -> list[str]:
    from rich.text import Text

    return Text.from_ansi(ansi).plain.splitlines()


@pytest.mark.parametrize("columns", [30, 40, 60, 80, 120, 200])
def test_a_terminal_gets_lines_no_wider_than_it_is(monkeypatch, capsys, columns) -> None:
    lines = plain(shown(monkeypatch, capsys, TABLE, columns))
    assert all(len(line) <= columns for line in lines)
    assert any("1.057" in line for line in lines)


def test_the_least_important_columns_go_first_and_that_is_said(monkeypatch, capsys) -> None:
    wide, narrow, narrower = (plain(shown(monkeypatch, capsys, TABLE, columns)) for columns in (200, 50, 24))
    assert wide[0].split() == ["member", "loss", "rows", "why"] and not wide[-1].startswith("not shown")
    assert narrow[0].split() == ["member", "loss", "why"] and "not shown at this width: rows;" in " ".join(narrow)
    assert narrower[0].split() == ["member", "loss"] and "rows, why" in " ".join(narrower)


def test_a_pipe_gets_all_of_it_on_whole_lines_without_escapes(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    show([TABLE])
    out = capsys.readouterr().out
    assert "\x1b" not in out and len(out.splitlines()) == 3 and PROSE in out


def test_colour_is_for_terminals_that_want_it(monkeypatch, capsys) -> None:
    assert "\x1b[1;38;5;" in shown(monkeypatch, capsys, TABLE, 80)
    assert "38;5" not in shown(monkeypatch, capsys, TABLE, 80, NO_COLOR="1")


def test_the_best_row_is_marked_by_word() -> None:
    lines = as_text(TABLE).splitlines()
    assert lines[2].startswith("two|b (best)") and "best" not in lines[1]
    assert lowest([2.0, None, 1.0, float("nan")]) == {2} and lowest([1.0]) == frozenset() == lowest([])


@pytest.mark.parametrize("style", [text.GOOD, text.WARN, text.FAIL])
@pytest.mark.parametrize("background", [0.0, 1.0])
def test_colours_stand_out_from_black_and_from_white(style: str, background: float) -> None:
    """Contrast as WCAG 2 defines it, at least what it asks of graphics and large text with a margin."""

    def linear(value: int) -> float:
        share = value / 255
        return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

    red, green, blue = Color.parse(style).get_truecolor()
    luminance = 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
    low, high = sorted((luminance, background))
    assert (high + 0.05) / (low + 0.05) > 3.8


def test_a_line_of_prose_breaks_between_words_on_a_terminal_alone(monkeypatch, capsys) -> None:
    path = "/folder/" + "x" * 60
    block = "export ZOO_ENTRIES=/a/folder/of/entries\nzoo run lexical --data battles.csv --target cpu"
    show([PROSE, path, block])
    assert capsys.readouterr().out == f"{PROSE}\n{path}\n{block}\n"
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "40", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    show([PROSE])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1 and all(len(line) <= 40 for line in lines) and " ".join(lines) == PROSE
    show([path, block])
    assert capsys.readouterr().out == f"{path}\n{block}\n"


def test_a_table_without_rows_is_a_header_in_csv_and_nothing_in_text(capsys) -> None:
    page = ["nothing yet", Table(TABLE.columns, [])]
    show(page, Format.csv)
    assert capsys.readouterr().out == "member,log_loss,rows,why\n"
    for style in (Format.table, Format.markdown):
        show(page, style)
        assert capsys.readouterr().out == "nothing yet\n"


def test_csv_and_json_hold_numbers_under_keys(capsys) -> None:
    show(["a line", TABLE], Format.csv)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert rows[0]["log_loss"] == "1.05678" and rows[0]["rows"] == "12345" and rows[1]["rows"] == "" and rows[0]["why"] == PROSE
    show(["a line", TABLE], Format.json)
    records = json.loads(capsys.readouterr().out)
    assert records[0] == {"member": "one@ab", "log_loss": 1.05678, "rows": 12345, "why": PROSE} and records[1]["rows"] is None
    show([TABLE], Format.json, data={"loss": float("nan"), "rows": (1, 2)})
    assert json.loads(capsys.readouterr().out) == {"loss": None, "rows": [1, 2]}


def test_large_numbers_are_no_powers_of_ten_and_small_ones_keep_their_digits() -> None:
    two, six, three = text.digits(2), text.digits(6), text.digits(3, all_of_them=True)
    assert [two(n) for n in (0.00612, 6.94, 13.7, 99.7, 137, 0)] == ["0.0061", "6.9", "14", "100", "137", "0"]
    assert [six(n) for n in (600, 1234567, 0.96265812, 5e-05)] == ["600", "1234567", "0.962658", "5e-05"]
    assert [three(n) for n in (8, 7.62, 123.4, 1234.5, 99.96)] == ["8.00", "7.62", "123", "1234", "100"]


def test_markdown_keeps_a_cell_a_cell() -> None:
    lines = as_text(TABLE, Format.markdown).splitlines()
    assert len(lines) == 4 and "two\\|b (best)" in lines[3]
    assert all(line.replace("\\|", "").count("|") == 5 for line in lines)
