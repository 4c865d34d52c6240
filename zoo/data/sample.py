"""Generated battles whose true label distribution is known.

They serve the demo, and tests where no data is at hand. Each answer has a utility: the sum of known effects of correctness,
length and formatting. The outcome follows Davidson's model of paired comparisons with ties (Davidson 1970, JASA 65:317-328):
with utilities u_a and u_b,

    p_a : p_b : p_tie = exp(d / 2) : exp(-d / 2) : TIE_STRENGTH,   d = u_a - u_b

so there is no position bias, and the entropy of these probabilities is the best log loss any model can expect. Length,
formatting and refusals show in an answer alone; whether it is right shows only beside its question.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from zoo.data.columns import KNOWN_COLUMNS, TEXT_COLUMNS, WINNER_COLUMNS
from zoo.data.sample_topics import CAPITALS, CATEGORIES, EXPLANATIONS, FILLERS, OPPOSITES, REFUSALS
from zoo.errors import ZooError
from zoo.scores.metrics import log_loss_rows
from zoo.scores.tables import PROBABILITIES
from zoo.store import check_output, write_atomic

TIE_STRENGTH = 1.5
QUALITY_EFFECTS = {"right": 1.2, "wrong": -1.2, "off_topic": -1.8, "refusal": -2.8, "empty": -3.8}
QUALITY_SHARES = {"right": 0.52, "wrong": 0.24, "off_topic": 0.14, "refusal": 0.10}
FILLER_EFFECT = 1.5  # utility per doubling of 1 + filler sentences
FORMAT_EFFECT = 1.5  # utility of bold text or a list
KIND_SHARES = {"sum": 0.15, "capital": 0.25, "opposite": 0.2, "list": 0.2, "explain": 0.2}
AWKWARD_SHARE = 0.04
AWKWARD = ("null_turn", "empty", "multi_turn", "emoji", "surrogate", "identical", "long")
LONG_FILLERS = 60


@dataclass(frozen=True)
class Question:
    """A prompt with the facts that answer it right and the facts that look alike and are wrong.

    Each is one line or more.
    """

    text: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    turns: tuple[str | None, ...]
    utility: float


@dataclass(frozen=True)
class Sample:
    """What was written.

    The files, and the best possible log loss, expected and for the labels that were drawn.
    """

    path: Path
    truth_path: Path
    rows: int
    label_shares: tuple[float, float, float]
    expected_log_loss: float
    realised_log_loss: float


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _weighted(rng: np.random.Generator, shares: dict[str, float]) -> str:
    return str(rng.choice(list(shares), p=list(shares.values())))


def _other(rng: np.random.Generator, options: Sequence[str], but: str) -> str:
    return _pick(rng, [option for option in options if option != but])


def _question(rng: np.random.Generator) -> Question:
    kind = _weighted(rng, KIND_SHARES)
    if kind == "sum":
        a, b = (int(n) for n in rng.integers(2, 12, size=2))
        wrong = a + b + int(rng.choice([-3, -2, -1, 1, 2, 3]))
        return Question(f"What is {a} + {b}?", (f"It is {a + b}.",), (f"It is {wrong}.",))
    if kind == "capital":
        country = _pick(rng, list(CAPITALS))
        wrong_city = _other(rng, list(CAPITALS.values()), CAPITALS[country])
        phrase = _pick(rng, ("What is the capital of {}?", "Which city is the capital of {}?"))
        return Question(phrase.format(country), (f"The answer is {CAPITALS[country]}.",), (f"The answer is {wrong_city}.",))
    if kind == "opposite":
        word = _pick(rng, list(OPPOSITES))
        wrong_word = _other(rng, list(OPPOSITES.values()), OPPOSITES[word])
        return Question(
            f"What is the opposite of {word}?", (f"That would be {OPPOSITES[word]}.",), (f"That would be {wrong_word}.",)
        )
    if kind == "list":
        category = _pick(rng, list(CATEGORIES))
        items, others = CATEGORIES[category], CATEGORIES[_other(rng, list(CATEGORIES), category)]
        wrong_items = tuple(str(w) for w in rng.choice(others, 3, replace=False))
        return Question(f"Name three {category}.", tuple(str(w) for w in rng.choice(items, 3, replace=False)), wrong_items)
    text = _pick(rng, list(EXPLANATIONS))
    return Question(text, EXPLANATIONS[text], EXPLANATIONS[_other(rng, list(EXPLANATIONS), text)])


def _answer(rng: np.random.Generator, question: Question, fillers: int | None = None) -> Answer:
    """One turn's answer of random quality, format and length."""
    quality = _weighted(rng, QUALITY_SHARES)
    lines = question.right if quality == "right" else question.wrong
    if quality == "off_topic":
        elsewhere = _question(rng)
        while elsewhere.text == question.text or elsewhere.right[0] in question.right:
            elsewhere = _question(rng)
        lines = elsewhere.right
    formatted = quality != "refusal" and bool(rng.random() < 0.4)
    if quality == "refusal":
        text = _pick(rng, REFUSALS)
    elif formatted:
        text = "\n".join(f"- **{line}**" for line in lines)
    else:
        text = (" " if lines[0].endswith(".") else ", ").join(lines)
    count = int(rng.choice([0, 0, 1, 1, 2, 3, 4])) if fillers is None else fillers
    text += "".join(("\n\n" if i == 0 else " ") + FILLERS[j] for i, j in enumerate(rng.integers(len(FILLERS), size=count)))
    utility = QUALITY_EFFECTS[quality] + FORMAT_EFFECT * formatted + FILLER_EFFECT * np.log2(1 + count)
    return Answer((text,), float(utility))


def _battle(rng: np.random.Generator, awkward: str | None) -> tuple[tuple[str, ...], Answer, Answer]:
    """Prompt turns and both answers. Utilities of a conversation are the mean of its turns'."""
    question = _question(rng)
    prompt: tuple[str, ...] = (question.text,)
    a, b = _answer(rng, question), _answer(rng, question)
    if awkward in ("multi_turn", "null_turn"):
        second = _question(rng)
        extra_a, extra_b = _answer(rng, second), _answer(rng, second)
        if awkward == "null_turn":
            extra_b = Answer((None,), QUALITY_EFFECTS["empty"])
        prompt = (*prompt, second.text)
        a, b = (Answer(x.turns + y.turns, (x.utility + y.utility) / 2) for x, y in ((a, extra_a), (b, extra_b)))
    elif awkward == "empty":
        a = Answer(("",), QUALITY_EFFECTS["empty"])
    elif awkward == "identical":
        b = a
    elif awkward == "long":
        a = _answer(rng, question, fillers=LONG_FILLERS)
    elif awkward in ("emoji", "surrogate"):
        mark = "😀 très bien, 你好" if awkward == "emoji" else "\ud83d"
        a = replace(a, turns=(f"{a.turns[0]} {mark}",))
    return (prompt, b, a) if rng.random() < 0.5 else (prompt, a, b)


def outcome_probabilities(difference: float) -> np.ndarray:
    """Davidson's p_a, p_b, p_tie for a difference of utilities."""
    odds = np.array([np.exp(difference / 2), np.exp(-difference / 2), TIE_STRENGTH])
    return np.asarray(odds / odds.sum())


def sample_battles(rows: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Battles in the competition's columns, as text, and their true probabilities (rows, 3).

    Row i depends on (seed, i) alone: a larger sample begins with the smaller one. About 4% of the rows are awkward but usable:
    null and empty answers, several turns, emoji, lone surrogates, identical answers, a very long answer.
    """
    records, truth = [], np.empty((rows, 3))
    for i in range(rows):
        rng = np.random.default_rng([seed, i])
        awkward = _pick(rng, AWKWARD) if rng.random() < AWKWARD_SHARE else None
        prompt, a, b = _battle(rng, awkward)
        truth[i] = outcome_probabilities(a.utility - b.utility)
        winner = np.eye(3, dtype=int)[rng.choice(3, p=truth[i])]
        texts = (json.dumps(turns, ensure_ascii=awkward == "surrogate") for turns in (prompt, a.turns, b.turns))
        record = {"id": str(1_000_000 * (seed + 1) + i), "model_a": "sample", "model_b": "sample"}
        record |= dict(zip(TEXT_COLUMNS, texts, strict=True))
        records.append(record | {name: str(w) for name, w in zip(WINNER_COLUMNS, winner, strict=True)})
    return pd.DataFrame(records, columns=list(KNOWN_COLUMNS)), truth


def truth_path(path: Path) -> Path:
    """Where the true probabilities of a sample lie: battles.csv[.gz] -> battles.truth.csv."""
    stem = path.name.removesuffix(".gz").removesuffix(".csv")
    return path.with_name(f"{stem}.truth.csv")


def write_sample(path: Path, rows: int, seed: int) -> Sample:
    """Write a sample as CSV and its true probabilities beside it.

    Gzipped where the name ends in .gz. ZooError where something else has that name: battles that are no sample, which have
    no true probabilities beside them, are not replaced.
    """
    import gzip

    check_output(path)
    check_output(truth_path(path))
    if path.exists() and not truth_path(path).exists():
        raise ZooError(f"{path}: there is a file of that name that is no sample; give another name, or remove it")
    frame, truth = sample_battles(rows, seed)
    content = frame.to_csv(index=False, lineterminator="\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    true = pd.DataFrame({"id": frame["id"]} | {name: truth[:, i] for i, name in enumerate(PROBABILITIES)})
    write_atomic(truth_path(path), true.to_csv(index=False, lineterminator="\n"))  # first: it says that the other is a sample
    write_atomic(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    labels = frame[list(WINNER_COLUMNS)].astype(int).to_numpy().argmax(axis=1)
    expected, realised = -(truth * np.log(truth)).sum(axis=1).mean(), log_loss_rows(truth, labels).mean()
    share_a, share_b, share_tie = (float((labels == label).mean()) for label in range(3))
    return Sample(path, truth_path(path), rows, (share_a, share_b, share_tie), float(expected), float(realised))
