"""Log loss of parts of the battles against direct computation."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.battles import battle_frame
from zoo.scores.metrics import log_loss_rows
from zoo.scores.slices import FEWEST_ROWS, is_english, labelled_rows, slice_metrics
from zoo.scores.tables import score_table

TEXTS = {
    "What is the capital of France, and why is it there?": True,
    "Write a function that returns the sum of two numbers.\ndef add(a, b): return a + b": True,
    "Wie heißt die Hauptstadt von Frankreich, und warum liegt sie dort?": False,
    "¿Cuál es la capital de Francia y por qué está allí?": False,
    "Quelle est la capitale de la France, et pourquoi est-elle là ?": False,
    "Какая столица Франции и почему она там находится?": False,
    "法国的首都是哪里？为什么在那里？": False,
    "1 + 1 = 2": False,
    "": False,
}


@pytest.mark.parametrize(("text", "english"), TEXTS.items(), ids=[text[:12] for text in TEXTS])
def test_english_is_told_from_other_languages(text: str, english: bool) -> None:
    assert is_english(text) == english


def test_parts_are_means_of_their_rows() -> None:
    frame, rng = battle_frame(121), np.random.default_rng(0)
    table = score_table(frame["id"].tolist()[::-1], rng.dirichlet((1, 1, 1), size=121))
    table.loc[table["id"] == "r5", ["p_a", "p_b", "p_tie", "status"]] = [np.nan, np.nan, np.nan, "refused"]
    rows = labelled_rows(table, frame)
    assert len(rows.y) == 119, "one was not scored, one has no label"
    order = [row_id for row_id in table["id"] if row_id not in ("r5", "r120")]
    number = np.array([int(row_id[1:]) for row_id in order])
    assert np.array_equal(rows.y, number % 3) and np.array_equal(rows.turns, np.where(number % 3 == 0, 2, 1))
    losses, metrics = log_loss_rows(rows.p, rows.y), slice_metrics(rows)
    assert metrics["val/log_loss_not_english"] == pytest.approx(losses[number % 4 == 0].mean())
    assert metrics["val/log_loss_more_turns"] == pytest.approx(losses[number % 3 == 0].mean())
    long = rows.characters >= np.quantile(rows.characters, 0.75)
    assert metrics["val/log_loss_long"] == pytest.approx(losses[long].mean())


def test_parts_with_few_rows_are_not_reported() -> None:
    frame = battle_frame(FEWEST_ROWS)
    rows = labelled_rows(score_table(frame["id"].tolist(), np.full((len(frame), 3), 1 / 3)), frame)
    assert slice_metrics(rows) == {}


def test_parts_of_battles_without_ties_are_of_two_outcomes() -> None:
    frame = battle_frame(61)
    frame["label"] = frame["label"].clip(upper=1)
    table = score_table(frame["id"].tolist(), np.full((61, 3), 1 / 3))
    found = slice_metrics(labelled_rows(table, frame, ties=False))
    assert found and all(loss == pytest.approx(np.log(2)) for loss in found.values())
