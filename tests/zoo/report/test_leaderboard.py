"""The leaderboard says what the store holds: each member's loss and price, data set by data set."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.manifests import finished, partial_folder, score_card
from zoo.contracts import Cost, Held, Input, Measurements, PromptSpec, ScoreRequest, ScoreSpec, Selection, Variant
from zoo.report.leaderboard import COLUMNS, leaderboard, leaderboard_page
from zoo.report.text import Format, as_text
from zoo.scores.tables import score_table, unscored_table, write_card, write_scores
from zoo.store import list_artifacts
from zoo.tracking.facts import stage_facts


def score(
    store: Path,
    entry: str,
    losses: dict[str, float | None],
    *,
    digest: str = "d" * 64,
    day: int = 1,
    failed: int = 0,
    emulates: str | None = None,
    rows: int = 8,
    held: Held = Held(),
    folds: bool = False,
) -> None:
    """A finished score stage: variant slug -> log loss; scored rows of 100 and 300 tokens in turn."""
    variants = tuple(Variant(order="ab" if slug.startswith("ab") else "ba", max_tokens=512) for slug in losses)
    request = ScoreRequest(
        entry=entry,
        model=Input(path=Path("m"), fingerprint="m" * 16),
        battles=Input(path=Path("b.csv"), fingerprint=digest),
        held=held,
        selection=Selection(max_rows=None if rows == 8 else rows),
        prompt=PromptSpec(template="{prompt}{response_a}{response_b}"),
        spec=ScoreSpec(variants=variants),
        target="t4x2",
    )
    partial = partial_folder(store, request)
    for variant in variants:
        (partial / variant.slug).mkdir(parents=True)
        frame = score_table([f"r{i}" for i in range(rows)], np.full((rows, 3), 1 / 3), n_tokens=[100, 300] * (rows // 2))
        frame = frame.assign(fold=0) if folds else frame
        if failed:
            import pandas as pd

            frame = pd.concat([frame, unscored_table([f"x{i}" for i in range(failed)], "refused")])
        write_scores(frame, partial / variant.slug / "scores.parquet")
        card = score_card(
            f"{entry}@{variant.slug}",
            variant,
            target="h200" if emulates else "t4x2",
            emulates=emulates,
            dataset_digest=digest,
            rows=rows + failed,
            failed_rows=failed,
            fold_rule=held.rule if folds else None,
            request=request,
            cost=Cost(target="t4x2", load_seconds=120, seconds_per_row=0.1, seconds_per_token=0.002, seconds_per_token_sq=1e-6),
        )
        write_card(card, partial / variant.slug / "scores.json")
    metrics = {f"{v.slug}:val/log_loss": loss for v, loss in zip(variants, losses.values(), strict=True) if loss is not None}
    created = datetime.datetime(2026, 1, day, tzinfo=datetime.UTC)
    finished(store, request, metrics=metrics, measurements=Measurements(peak_bytes=3 * 2**30), created_at=created)


def test_best_first_and_unlabelled_last(tmp_path: Path) -> None:
    score(tmp_path, "one", {"ab-512": 1.05, "ba-512": 0.95})
    score(tmp_path, "two", {"ab-512": 1.0})
    score(tmp_path, "three", {"ab-512": None}, day=2)
    assert [row.member for row in leaderboard(tmp_path)] == ["one@ba-512", "two@ab-512", "one@ab-512", "three@ab-512"]


def test_losses_on_different_data_are_not_mixed(tmp_path: Path) -> None:
    score(tmp_path, "old", {"ab-512": 0.5}, day=1)
    score(tmp_path, "new", {"ab-512": 1.05}, digest="e" * 64, day=3)
    score(tmp_path, "older", {"ab-512": 0.4}, day=2)
    assert [row.member for row in leaderboard(tmp_path)] == ["new@ab-512", "older@ab-512", "old@ab-512"]
    assert [row.member for row in leaderboard(tmp_path, dataset="ee")] == ["new@ab-512"]


def test_price_is_that_of_the_scored_rows_on_the_target(tmp_path: Path) -> None:
    score(tmp_path, "one", {"ab-512": 1.0}, failed=3)
    (row,) = leaderboard(tmp_path)
    expected = np.mean([0.1 + 0.002 * n + 1e-6 * n * n for n in (100, 300)])
    assert row.seconds_per_row == pytest.approx(expected)
    assert row.tokens_per_row == 200 and row.rows == 11 and row.failed_rows == 3 and row.peak_gib == 3
    assert row.hours_25k == pytest.approx((120 + 25_000 * expected / 2) / 3600), "one copy on each of the two cards"


def test_rendering(tmp_path: Path) -> None:
    score(tmp_path, "one", {"ab-512": 1.05}, failed=1)
    rows = leaderboard(tmp_path)
    page, records = leaderboard_page(rows)
    text, markdown = as_text(page), as_text(page, Format.markdown)
    assert "one@ab-512" in text and "1.0500" in text
    lines = markdown.splitlines()
    assert len(lines) == 3 and all(line.count("|") == len(COLUMNS) + 1 for line in lines)
    assert records[0]["log_loss"] == 1.05 and records[0]["failed_rows"] == 1


def test_the_speed_of_an_emulated_run_is_shown_nowhere(tmp_path: Path) -> None:
    """Neither on the leaderboard nor as metrics of its MLflow run, whose tags say that it emulated; its log loss counts."""
    score(tmp_path, "real", {"ab-512": 1.0})
    score(tmp_path, "faked", {"ab-512": 0.9}, emulates="t4x2")
    faked, real = leaderboard(tmp_path)
    assert (faked.log_loss, faked.target, real.target) == (0.9, "h200 as t4x2", "t4x2")
    assert faked.load_seconds is faked.seconds_per_row is faked.hours_25k is faked.tokens_per_row is None
    assert real.load_seconds == 120 and real.hours_25k and real.seconds_per_row
    for artifact in list_artifacts(tmp_path):
        (facts,) = stage_facts(artifact.manifest, artifact.path, None)
        is_faked = facts.tags["zoo.member"] == "faked@ab-512"
        assert facts.tags.get("zoo.emulates") == ("t4x2" if is_faked else None)
        assert any(name.startswith("cost/") for name in facts.metrics) != is_faked
    assert "0.9000" in as_text(leaderboard_page([faked, real])[0])


def test_fewer_rows_of_a_model_never_rank_beside_more(tmp_path: Path) -> None:
    """The leaderboard shows the table that a build takes; the other one below, where it is asked for, with the reason."""
    score(tmp_path, "one", {"ab-512": 1.0}, rows=600)
    score(tmp_path, "one", {"ab-512": 0.5}, rows=24, day=2)
    score(tmp_path, "two", {"ab-512": 1.05}, rows=600)
    assert [(row.member, row.rows) for row in leaderboard(tmp_path)] == [("one@ab-512", 600), ("two@ab-512", 600)]
    rows = leaderboard(tmp_path, superseded=True)
    assert [row.rows for row in rows] == [600, 600, 24]
    assert rows[2].superseded.endswith(" with 600 rows is taken; this has 24")
    text = as_text(leaderboard_page(rows)[0])
    assert "one@ab-512 (best)" in text and text.count("(best)") == 1 and rows[2].superseded in text


def test_losses_of_other_row_counts_are_not_ranked_together(tmp_path: Path) -> None:
    """A fold's worth of rows says less than all: those members come below, with a best of their own."""
    score(tmp_path, "all", {"ab-512": 1.06}, rows=600)
    score(tmp_path, "nearly", {"ab-512": 1.05}, rows=590)
    score(tmp_path, "fold", {"ab-512": 0.9, "ba-512": 0.91}, rows=120)
    rows = leaderboard(tmp_path)
    assert [row.member for row in rows] == ["nearly@ab-512", "all@ab-512", "fold@ab-512", "fold@ba-512"]
    text = as_text(leaderboard_page(rows)[0])
    assert "nearly@ab-512 (best)" in text and "fold@ab-512 (best)" in text and text.count("(best)") == 2


def test_fold_rules_are_shown_where_members_of_one_data_set_differ_in_them(tmp_path: Path) -> None:
    """A member by prompts alone may have learned from near-copies of what it is scored on; one without folds says nothing."""
    near = Held(rule="near-prompts-1")
    score(tmp_path, "one", {"ab-512": 1.0}, folds=True)
    score(tmp_path, "other", {"ab-512": 1.0}, digest="e" * 64, folds=True, held=near)
    score(tmp_path, "whole", {"ab-512": 1.0})
    page, records = leaderboard_page(leaderboard(tmp_path))
    assert len(page) == 1 and "folds by" not in as_text(page), "of each data set there is one rule"
    assert {record["member"][:3]: record["fold_rule"] for record in records} == {
        "one": "prompts",
        "oth": "near-prompts-1",
        "who": "",
    }
    score(tmp_path, "two", {"ab-512": 1.1}, folds=True, held=near)
    page, _ = leaderboard_page(leaderboard(tmp_path))
    text = as_text(page, Format.markdown)
    (one,), (two,), (whole,) = (
        [line for line in text.splitlines() if f"| {name}@" in line] for name in ("one", "two", "whole")
    )
    assert "| prompts |" in one and "| near-prompts-1 |" in two and "prompts" not in whole
    assert "folds go by different rules (near-prompts-1, prompts)" in str(page[1]) and "--fold-rule RULE" in str(page[1])
