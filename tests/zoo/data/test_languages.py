"""Languages: what is told of a text, and what is not said where nobody could be sure."""

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.data import languages
from zoo.data.languages import UNDETERMINED, check_languages, in_another, language_of, language_of_turns
from zoo.errors import ZooError


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Write a short letter to my landlord about the broken heating.", "en"),
        ("Schreibe einen kurzen Brief an meinen Vermieter.", "de"),
        ("Écris un poème sur la mer, s'il te plaît.", "fr"),
        ("Escribe una carta breve a mi casero.", "es"),
        ("请写一封信给我的房东", "zh"),
        ("Напиши короткое письмо моему другу", "ru"),
        ("家主に短い手紙を書いてください。", "ja"),
        ("2 + 2 = ?", UNDETERMINED),
        ("", UNDETERMINED),
        ("   \n", UNDETERMINED),
        ("```python\nfor line in open(path): print(line)\n```", UNDETERMINED),
        ("Erkläre mir bitte diesen Code:\n```python\nfor the_line in open(the_path):\n    print(the_line)\n```", "de"),
    ],
)
def test_a_text_s_language(text: str, code: str) -> None:
    assert language_of(text) == code


def test_turns_are_one_text() -> None:
    assert language_of_turns(["Was ist das?", None, "Und warum ist das so?"]) == "de"


@given(st.text(st.characters(), max_size=200))
def test_any_text_has_a_code_or_none(text: str) -> None:
    found = language_of(text)
    assert found.isascii() and 2 <= len(found) <= 3


def test_no_network_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    languages._detector.cache_clear()
    assert language_of("This is a sentence in English.") == "en"


def test_nothing_is_said_against_what_is_undetermined() -> None:
    assert not in_another(UNDETERMINED, ["en"]) and not in_another("en", ["en"]) and in_another("de", ["en"])


def test_codes_are_in_order_and_names_are_refused() -> None:
    assert check_languages(["EN", "de", "en"]) == ("de", "en")
    with pytest.raises(ZooError, match="--language english: give a code"):
        check_languages(["English"])
