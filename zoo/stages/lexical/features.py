"""Lexical features of a battle: lengths, markdown, refusals, repetition, overlap.

Features belong to an answer (they are compared between A and B), to the prompt, or to the pair (the same either way round), so
that a model of them can be exactly symmetric in A and B.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from zoo.data.battles import join_turns

ANSWER_FEATURES = (
    *("log_characters", "log_lines", "log_code_fences", "log_bullets", "log_numbers", "log_bold", "log_headings"),
    *("refusal", "distinct_words", "ends_cleanly", "repeated_sentences", "empty", "words_from_prompt", "prompt_covered"),
)
PROMPT_FEATURES = ("log_characters", "turns", "has_code", "question_marks", "not_ascii")
PAIR_FEATURES = ("words_in_common", "identical", "same_start")
REFUSAL_CHARACTERS = 150  # a refusal comes first

_WORD = re.compile(r"\w+")
_BULLET = re.compile(r"^\s*[-*•]\s", re.MULTILINE)
_NUMBER = re.compile(r"^\s*\d+[.)]\s", re.MULTILINE)
_HEADING = re.compile(r"^#+\s", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?\n]+")
_CLEAN_END = re.compile(r"[.!?)`\"\]]\s*$")
_REFUSAL = re.compile(r"i'm sorry|i am sorry|sorry,|as an ai|i can ?not|i can't|unable to|not able to|apologi", re.IGNORECASE)


def answer_features(answer: str, prompt_words: set[str]) -> list[float]:
    """ANSWER_FEATURES of one answer's text."""
    words = [word.lower() for word in _WORD.findall(answer)]
    distinct = set(words)
    sentences = [part.strip() for part in _SENTENCE_END.split(answer) if part.strip()]
    counts = (
        len(answer),
        answer.count("\n"),
        answer.count("```"),
        len(_BULLET.findall(answer)),
        len(_NUMBER.findall(answer)),
        answer.count("**"),
        len(_HEADING.findall(answer)),
    )
    return [
        *np.log1p(counts),
        float(bool(_REFUSAL.search(answer[:REFUSAL_CHARACTERS]))),
        len(distinct) / (len(words) + 1),
        float(bool(_CLEAN_END.search(answer[-20:]))),
        1 - len(set(sentences)) / len(sentences) if sentences else 0.0,
        float(not words),
        sum(word in prompt_words for word in words) / (len(words) + 1),
        len(prompt_words & distinct) / (len(prompt_words) + 1),
    ]


def prompt_features(prompt: str, turns: int) -> list[float]:
    """PROMPT_FEATURES of one prompt's text."""
    not_ascii = 0.0 if prompt.isascii() else sum(ord(c) > 127 for c in prompt) / len(prompt)
    return [np.log1p(len(prompt)), float(turns), float("```" in prompt), float(np.log1p(prompt.count("?"))), not_ascii]


def pair_features(a: str, b: str) -> list[float]:
    """PAIR_FEATURES of two answers' texts: the same whichever comes first."""
    words_a, words_b = ({word.lower() for word in _WORD.findall(text)} for text in (a, b))
    common = len(words_a & words_b) / (len(words_a | words_b) + 1)
    return [common, float(a.strip() == b.strip()), float(a[:20] == b[:20])]


class Features:
    """Arrays of a frame of battles.

    `a`, `b` (rows, ANSWER_FEATURES), `prompt`, `pair`, and the joined texts.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.prompt_texts, self.a_texts, self.b_texts = (
            [join_turns(turns) for turns in frame[name]] for name in ("prompt", "response_a", "response_b")
        )
        words = [{word.lower() for word in _WORD.findall(text)} for text in self.prompt_texts]
        self.a = _array((answer_features(t, w) for t, w in zip(self.a_texts, words, strict=True)), ANSWER_FEATURES)
        self.b = _array((answer_features(t, w) for t, w in zip(self.b_texts, words, strict=True)), ANSWER_FEATURES)
        turns = (len(t) for t in frame["prompt"])
        self.prompt = _array((prompt_features(t, n) for t, n in zip(self.prompt_texts, turns, strict=True)), PROMPT_FEATURES)
        self.pair = _array((pair_features(a, b) for a, b in zip(self.a_texts, self.b_texts, strict=True)), PAIR_FEATURES)


def _array(rows: object, names: Sequence[str]) -> np.ndarray:
    return np.array(list(rows), dtype=np.float64).reshape(-1, len(names))  # type: ignore[call-overload]
