"""Whatever is logged is in the list of metrics, and the document and the tables are made from it."""

from __future__ import annotations

import ast
import datetime
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensemble.search.build import build_plan, plan_numbers
from scripts.metric_table import PATH, page
from tests.helpers.members import make_members, request
from tests.helpers.paths import ROOT
from zoo.contracts import LABELS, Input, Manifest, Measurements, MergeRequest, MergeSpec
from zoo.report.leaderboard_page import COLUMNS as SHOWN
from zoo.scores.ladder import ladder_metrics, steps_of
from zoo.scores.metric_names import FORMS, HEADLINES, METRICS, find_metric
from zoo.scores.metrics import score_metrics
from zoo.scores.slices import LabelledRows, slice_metrics
from zoo.stages.score.tally import Tally
from zoo.tracking.facts import stage_facts
from zoo.tracking.view import COLUMNS


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.dirichlet((1, 1, 1), 200), rng.integers(0, 3, 200)


def unknown(names: Iterator[str] | dict[str, float]) -> list[str]:
    return [name for name in names if find_metric(name) is None]


def test_what_a_scored_table_logs_is_in_the_list(scored: tuple[np.ndarray, np.ndarray]) -> None:
    p, y = scored
    found = score_metrics(p, y, np.arange(200))
    assert {f"val/log_loss_{label}" for label in LABELS} < found.keys() and not unknown(found)
    rows = LabelledRows(p, y, np.arange(200), np.arange(200) % 2 + 1, np.arange(200) % 3 > 0, pd.Series(dtype="str"))
    assert len(slice_metrics(rows)) == 6 and not unknown(slice_metrics(rows))


def test_what_a_ladder_logs_is_in_the_list(scored: tuple[np.ndarray, np.ndarray]) -> None:
    p, y = scored
    found = ladder_metrics(steps_of({form: np.roll(p, i, axis=0) for i, form in enumerate(FORMS)}, y))
    assert "quant/delta_log_loss" in found and not unknown(found)


def test_what_a_stage_and_an_engine_log_is_in_the_list(tmp_path: Path) -> None:
    weights = Input(fingerprint="w")
    manifest = Manifest(
        stage="merge",
        fingerprint="f",
        request=MergeRequest(entry="e", base=weights, adapter=weights, spec=MergeSpec()),
        files={},
        metrics={"size/weights_gib": 1.0, **Tally(card_bytes=1).metrics()},
        measurements=Measurements(load_seconds=1.0, run_seconds=2.0, peak_bytes=3),
        hardware={},
        packages={},
        git_commit=None,
        argv=(),
        created_at=datetime.datetime.now(datetime.UTC),
    )
    (fact,) = stage_facts(manifest, tmp_path, None)
    assert {"time/run_seconds", "mem/peak_gib", "engine/card_bytes"} < fact.metrics.keys() and not unknown(fact.metrics)


def test_what_a_plan_logs_is_in_the_list() -> None:
    numbers = plan_numbers(build_plan(make_members(rows=120), request(9 * 3600)))
    assert {name.partition("/")[0] for name in numbers} >= {"val", "baseline", "paired", "weight", "coverage"}
    assert not unknown(numbers)


def literals(path: Path) -> Iterator[str]:
    """Texts of a module that are written like a metric's name, `{}` for what is filled in."""
    tree = ast.parse(path.read_text())
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def test_every_name_written_in_the_code_is_in_the_list() -> None:
    """Also those of stages that a test cannot run: whatever begins like a known metric is one."""
    sections = {name.partition("/")[0] for name in METRICS if "/" in name}
    found = set()
    for package in ("zoo", "ensemble"):
        for path in (ROOT / package).rglob("*.py"):
            found |= {text for text in literals(path) if re.fullmatch(rf"({'|'.join(sections)})/[\w{{}}/]+", text)}
    assert len(found) > 40
    forms = {text: re.compile(re.escape(text).replace(r"\{\}", ".+")) for text in found}
    assert [text for text, form in forms.items() if not any(form.fullmatch(name) for name in METRICS)] == []


def test_names_that_vary_are_found_and_others_are_not() -> None:
    assert find_metric("ab-512:val/log_loss_tie") is METRICS["val/log_loss_{label}"]
    assert find_metric("weight/llama-3-8b/ab-2048") is METRICS["weight/{member}"]
    assert find_metric("val/log_loss_of_something_else") is None and find_metric("ladder/gguf/log_loss") is None


def test_tables_and_the_document_are_made_from_the_list() -> None:
    assert PATH.read_text() == page(), "run `python scripts/metric_table.py --write`"
    assert set(HEADLINES) <= set(METRICS) and all(column.title for column in SHOWN)
    assert all(column.split("`")[1] in METRICS for column in COLUMNS if column.startswith("metrics."))
