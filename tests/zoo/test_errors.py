"""Control and escape sequences of ids, headers, names and messages never reach a terminal."""

from __future__ import annotations

import io
import json
import tomllib
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from zoo.cli.base import say
from zoo.cli.main import app
from zoo.entries.toml import document
from zoo.errors import ZooError, printable
from zoo.report.text import Column, Format, Table, show
from zoo.stages import progress

TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
CLEAR, TITLE, OSC8, C1, TURN = "\x1b[2J\x1b[H", "\x1b]0;owned\x07", "\x1b]8;;http://x\x1b\\", "\x9b31m", "\u202egnp.exe"


def is_harmless(text: str) -> bool:
    """By Unicode's own tables: no control, separator or lone surrogate, and nothing that turns the direction of text."""
    return not any(
        unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(c) in TURNING
        or c in "\u061c\u200e\u200f"
        for c in text
    )


@given(st.text(st.characters()))
def test_any_text_becomes_harmless_and_harmless_text_stays(text: str) -> None:
    shown = printable(text)
    assert is_harmless(shown) and printable(shown) == shown
    assert shown == text or not is_harmless(text)
    assert is_harmless(str(ZooError(text)))


@given(st.text())
def test_escapes_are_those_of_json_and_toml(text: str) -> None:
    assert json.loads(printable(json.dumps(text, ensure_ascii=False))) == text
    assert tomllib.loads(printable(document({"x": text}), keep="\n"))["x"] == text


@pytest.mark.parametrize("attack", [CLEAR, TITLE, OSC8, C1, TURN, "\r\x08\x7f", "\nerror: all is well"])
def test_notes_tables_and_progress(attack: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    say(f"entry {attack}")
    noted = capsys.readouterr().err
    assert noted.count("\n") == 1 and is_harmless(noted.rstrip("\n"))
    for style in Format:
        show([f"{attack}:", Table([Column("id"), Column("why", prose=True)], [[attack, attack], ["", None]])], style)
        assert is_harmless(capsys.readouterr().out.replace("\n", "")), style
    terminal = io.StringIO()
    monkeypatch.setattr(progress, "_terminal", terminal)
    progress.note(attack)
    assert is_harmless(terminal.getvalue().rstrip("\n"))


def test_an_id_a_header_and_a_file_name_with_escapes(tmp_path: Path) -> None:
    """As a person meets them: `zoo data validate` of a file that would clear the screen and set the title."""
    path = tmp_path / f"b{TITLE}.csv"
    rows = [f'7{CLEAR},"[""p""]","[""a""]",not json{C1}', f'8{TURN},"[""p""]","[""a""]",no']
    path.write_text("\n".join([f"id,prompt,response_a,response_b,extra{CLEAR}", *(f"{row},x" for row in rows)]))
    for name in (path, tmp_path / f"absent{TITLE}.csv"):
        shown = CliRunner().invoke(app, ["data", "validate", str(name)])
        assert shown.exit_code != 0
        assert is_harmless((shown.output + str(shown.exception or "")).replace("\n", "")), ascii(shown.output)
    assert r"7\u001b[2J" in CliRunner().invoke(app, ["data", "validate", str(path)]).output.replace("\n", "")
