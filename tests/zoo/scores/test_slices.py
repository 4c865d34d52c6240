"""Log loss of parts of the battles, and what quantization cost, against direct computation."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from zoo.contracts import (
    Held,
    Input,
    Manifest,
    Measurements,
    MergeRequest,
    MergeSpec,
    PromptSpec,
    QuantizeRequest,
    QuantizeSpec,
    Request,
    ScoreRequest,
    ScoreSpec,
    Variant,
)
from zoo.report.figures import cost_figure, curve_figures, png
from zoo.scores.metrics import log_loss_rows
from zoo.scores.slices import FEWEST_ROWS, is_english, labelled_rows, slice_metrics
from zoo.scores.tables import score_table, write_scores
from zoo.store import Artifact, artifact_name, commit, fingerprint, source_of
from zoo.tracking.facts import quantization_delta

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


def battles(rows: int) -> pd.DataFrame:
    """Battles whose length grows with the row, every third of two turns, every fourth not English, the last unlabelled."""
    turns = [["and the " * (i + 1)] if i % 4 else ["und die " * (i + 1)] for i in range(rows)]
    turns = [turn * (2 if i % 3 == 0 else 1) for i, turn in enumerate(turns)]
    label = [i % 3 for i in range(rows - 1)] + [-1]
    ids = [f"r{i}" for i in range(rows)]
    return pd.DataFrame(
        {"id": ids, "prompt": turns, "response_a": [["x"]] * rows, "response_b": [[None]] * rows, "label": label}
    )


def test_parts_are_means_of_their_rows() -> None:
    frame, rng = battles(121), np.random.default_rng(0)
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
    frame = battles(FEWEST_ROWS)
    rows = labelled_rows(score_table(frame["id"].tolist(), np.full((len(frame), 3), 1 / 3)), frame)
    assert slice_metrics(rows) == {}


def finished(store: Path, request: Request, tables: dict[str, pd.DataFrame] | None = None) -> Artifact:
    partial = store / ".partial" / artifact_name(request)
    partial.mkdir(parents=True)
    for slug, table in (tables or {}).items():
        (partial / slug).mkdir()
        write_scores(table, partial / slug / "scores.parquet")
    return commit(
        partial,
        store / artifact_name(request),
        lambda files: Manifest(
            stage=request.stage,
            fingerprint=fingerprint(request),
            request=request.model_dump(mode="json"),
            files=files,
            metrics={},
            measurements=Measurements(),
            hardware={},
            packages={},
            git_commit=None,
            argv=(),
            created_at=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        ),
    )


def test_quantization_delta_is_paired_with_the_merged_weights(tmp_path: Path) -> None:
    frame, rng = battles(101), np.random.default_rng(1)
    ids, data = frame["id"].tolist(), Input(path=Path("b.csv"), fingerprint="d" * 64)
    prompt = PromptSpec(template="{prompt}{response_a}{response_b}")

    def of(artifact: Artifact) -> Input:
        return Input(path=artifact.path, fingerprint=artifact.fingerprint)

    def score(model: Artifact, p: np.ndarray, chosen: list[str]) -> Artifact:
        spec = ScoreSpec(variants=(Variant(order="ab", max_tokens=64),))
        request = ScoreRequest(entry="m", model=of(model), battles=data, held=Held(), prompt=prompt, spec=spec, target="cpu")
        return finished(tmp_path, request, {"ab-64": score_table(chosen, p)})

    base = Input(path=Path("base"), fingerprint="b" * 16)
    merged = finished(tmp_path, MergeRequest(entry="m", base=base, adapter=base, spec=MergeSpec()))
    quantize = QuantizeRequest(
        entry="m", model=of(merged), battles=data, held=Held(), prompt=prompt, spec=QuantizeSpec(group_size=32)
    )
    quantized = finished(tmp_path, quantize)
    before, after = rng.dirichlet((2, 2, 2), size=101), rng.dirichlet((2, 2, 2), size=80)
    scored = score(quantized, after, ids[:80])
    assert quantization_delta(scored.manifest, scored.path, "ab-64", frame) == {}, "nothing to compare with yet"
    score(merged, before[::-1], ids[::-1])
    found = quantization_delta(scored.manifest, scored.path, "ab-64", frame)
    y = frame["label"].to_numpy()[:80]
    difference = log_loss_rows(after, y) - log_loss_rows(before[:80], y)
    assert found["quant/delta_log_loss"] == pytest.approx(difference.mean())
    assert found["quant/delta_log_loss_se"] == pytest.approx(difference.std(ddof=1) / np.sqrt(80))
    origin = source_of(scored.manifest, scored.path, "merge")
    assert origin is not None and origin.fingerprint == merged.fingerprint
    assert source_of(scored.manifest, scored.path, "fetch") is None


def test_figures_of_curves_and_costs() -> None:
    curves = {"train/loss": [(0, 1.1), (5, 1.0)], "val/log_loss": [(0, 1.09)], "train/learning_rate": [(0, 1e-4), (5, 0.0)]}
    assert list(curve_figures(curves)) == ["curves.png"] and curve_figures({}) == {}
    assert curve_figures({"train/loss": []}) == {}, "a curve without points draws nothing"
    points = {"a@ab": (0.01, 1.0, 0.01), "b@ab": (3.0, 0.9, 0.01)}
    for plan in (None, (3.1, 0.88, 0.01)):
        assert png(cost_figure(points, plan, target="t4x2")).startswith(b"\x89PNG")
