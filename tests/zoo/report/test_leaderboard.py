"""The leaderboard says what the store holds: each member's loss and price, data set by data set."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from tests.helpers.manifests import finished, partial_folder, score_card
from zoo.contracts import Cost, Held, Input, Measurements, PromptSpec, ScoreRequest, ScoreSpec, Selection, Variant
from zoo.cost.forecast import forecast
from zoo.cost.lengths import file_of
from zoo.data.battles import read_battles
from zoo.data.sample import write_sample
from zoo.data.splits import prompt_groups
from zoo.entries.load import load_entry
from zoo.errors import ZooError
from zoo.pipeline.import_table import import_scores
from zoo.pipeline.members import score_tables
from zoo.report.leaderboard import SortBy, leaderboard
from zoo.report.leaderboard_page import COLUMNS, leaderboard_page, leaderboard_table
from zoo.report.text import Format, _rendered, as_text
from zoo.scores.metrics import standard_error
from zoo.scores.tables import score_table, unscored_table, write_card, write_scores
from zoo.store import list_artifacts
from zoo.targets import load_target
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
    assert [row.member for row in leaderboard(tmp_path, data="ee")] == ["new@ab-512"]
    assert len(leaderboard(tmp_path, data="b.csv")) == 3, "by the file's name both"
    with pytest.raises(ZooError, match=r"--data f: no scored member is of such data; there are b \(dddddddd\), b \(eeeeeeee\)"):
        leaderboard(tmp_path, data="f")
    text = as_text(leaderboard_page(leaderboard(tmp_path))[0])
    assert "b eeeeeeee: 8 labelled battles" in text and "b dddddddd: 8 labelled battles that all 2 have" in text


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
    heading, *rest = markdown.splitlines()
    lines = [line for line in rest if line.startswith("|")]
    assert heading == "b dddddddd: 9 labelled battles"
    assert len(lines) == 3 and all(line.count("|") == len(COLUMNS) + 1 for line in lines)
    assert records[0]["log_loss"] == 1.05 and records[0]["failed_rows"] == 1
    assert leaderboard_table(rows).records() == records, "CSV has all that JSON has"


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
    assert "tables that others of their name replace" in text


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
    assert "folds by" not in as_text(page), "of each data set there is one rule"
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
    assert "folds go by different rules (near-prompts-1, prompts)" in str(page[-1]) and "--fold-rule RULE" in str(page[-1])


SHARPNESS = {"weak": 0.2, "fair": 0.6, "good": 1.0, "close": 0.98}


def imported(folder: Path, **drop: slice) -> dict[str, np.ndarray]:
    """Members with real losses on 120 labelled battles; their losses by row. `drop`: rows that a member lacks."""
    battles = folder / "battles.csv"
    write_sample(battles, rows=120, seed=3)
    frame = read_battles(battles).frame
    truth, rng = np.eye(3)[frame["label"].to_numpy()], np.random.default_rng(0)
    losses = {}
    for name, sharpness in SHARPNESS.items():
        p = np.exp(truth * sharpness + rng.normal(size=truth.shape) / 2)
        table = pd.DataFrame(p / p.sum(axis=1, keepdims=True), columns=["p_a", "p_b", "p_tie"])
        losses[name] = -np.log(table.to_numpy()[np.arange(120), frame["label"].to_numpy()])
        table.insert(0, "id", frame["id"])
        lacking = table.index[drop.get(name, slice(0))]
        table["status"] = np.where(table.index.isin(lacking), "refused", "ok")
        table.loc[lacking, ["p_a", "p_b", "p_tie"]] = np.nan
        table.to_csv(folder / f"{name}.csv", index=False)
        price = {"target": "t4x2", "load_seconds": 5.0, "seconds_per_row": 0.1, "store": folder / "store"}
        import_scores(name, folder / f"{name}.csv", battles, **price)
    return losses


def test_differences_are_paired_on_the_rows_that_all_have(tmp_path: Path) -> None:
    """The same mean and clustered error as by hand; a row that one member lacks counts for none."""
    losses = imported(tmp_path, fair=slice(3, 5))
    rows = {row.member: row for row in leaderboard(tmp_path / "store")}
    frame = read_battles(tmp_path / "battles.csv").frame
    kept = np.delete(np.arange(120), [3, 4])
    best = min(SHARPNESS, key=lambda name: losses[name][kept].mean())
    assert {row.common_rows for row in rows.values()} == {118} and [n for n, row in rows.items() if row.is_best] == [best]
    prompts = prompt_groups(frame)[kept]
    for name, row in rows.items():
        apart = losses[name][kept] - losses[best][kept]
        sums = pd.Series(apart - apart.mean()).groupby(prompts).sum().to_numpy()
        error = np.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum()) / len(apart)
        assert row.difference == pytest.approx(apart.mean(), abs=1e-12)
        assert row.difference_se == pytest.approx(error, abs=1e-12)
        assert row.common_log_loss == pytest.approx(losses[name][kept].mean())
        own = kept if name == "fair" else np.arange(120)
        assert row.log_loss_se == pytest.approx(standard_error(losses[name][own], prompt_groups(frame)[own]), abs=1e-12)
    assert rows["good"].rows == 120 and rows["fair"].rows == 118


def test_a_large_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says is kept in the store; a file that is another one is read again, and one that is gone is missed."""
    imported(tmp_path)
    battles, store = tmp_path / "battles.csv", tmp_path / "store"
    read: list[Path] = []
    monkeypatch.setattr(
        "zoo.pipeline.truth.read_battles", lambda path, **how: (read.append(path), read_battles(path, **how))[1]
    )
    first = leaderboard(store)
    assert leaderboard(store) == first and read == [battles] and first[0].difference is not None
    (kept,) = (store / ".truth").iterdir()
    kept.write_bytes(b"damaged")
    assert leaderboard(store) == first and len(read) == 2
    os.utime(battles, ns=(1, 1))
    assert leaderboard(store) == first and len(read) == 3
    battles.write_text(battles.read_text()[:-200])
    assert all(row.difference is None for row in leaderboard(store)) and len(read) == 4, "other battles"
    battles.unlink()
    rows = leaderboard(store)
    assert all(row.difference is None and row.log_loss for row in rows)
    assert "battles: its file is not where it was, or is another one" in as_text(leaderboard_page(rows)[0])


def test_members_of_other_rows_are_a_group_of_their_own(tmp_path: Path) -> None:
    """As many rows, but others: two folds share none, and no difference is told between them."""
    imported(tmp_path, weak=slice(0, 60), fair=slice(60, 120))
    rows = {row.member: row for row in leaderboard(tmp_path / "store")}
    assert len({rows[name].group for name in ("good", "weak", "fair")}) == 3 and rows["close"].group == rows["good"].group
    assert rows["weak"].difference is rows["fair"].difference is None and not rows["weak"].is_best


def test_sorted_cut_and_marked(tmp_path: Path) -> None:
    imported(tmp_path)
    store = tmp_path / "store"
    by_name = [row.member for row in leaderboard(store, sort=SortBy.name)]
    assert by_name == sorted(SHARPNESS)
    accuracies = [row.accuracy for row in leaderboard(store, sort=SortBy.acc)]
    assert accuracies == sorted(accuracies, reverse=True)
    assert [row.member for row in leaderboard(store, top=2)] == [row.member for row in leaderboard(store)][:2]
    (table,) = [t for t in score_tables(store) if t.name == "weak"]
    rows = leaderboard(store, champions={"weak": table.card.checkpoint, "good": "another"})
    assert [row.member for row in rows if row.is_champion] == ["weak"]
    text = as_text(leaderboard_page(rows)[0])
    assert "battles " in text and "120 labelled battles that all 4 have; differences are paired" in text
    assert [line.split()[:2] for line in text.splitlines() if "champion" in line] == [["weak", "champion"]]


def test_cost_on_another_machine_is_forecast_or_says_why_not(tmp_path: Path) -> None:
    score(tmp_path, "smollm2-135m", {"ab-512": 1.0})
    (tmp_path / "x").mkdir()
    imported(tmp_path / "x")
    (own,) = leaderboard(tmp_path, target=load_target("t4x2"))
    assert (own.cost_target, own.cost_basis) == ("t4x2", "measured")
    (there,) = leaderboard(tmp_path, target=load_target("a10g"))
    assert there.cost_target == "a10g" and there.cost_basis in ("scaled", "published", "rates") and there.hours_25k
    for row in leaderboard(tmp_path / "x" / "store", target=load_target("a10g")):
        assert row.hours_25k is None and "declared for t4x2" in row.cost_note and "--like" in row.cost_note


@pytest.mark.parametrize("words", [1, 40])
def test_a_table_without_tokens_costs_what_its_battles_do_elsewhere(words: int, tmp_path: Path) -> None:
    """As `zoo cost ENTRY --lengths` has it, not for rows as long as the competition's, which these are not."""
    battles, store = tmp_path / "battles.csv", tmp_path / "store"
    frame = pd.DataFrame({"id": range(60), "winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0})
    frame.loc[30:, ["winner_model_a", "winner_model_b"]] = 0, 1
    for place, name in enumerate(("prompt", "response_a", "response_b")):
        frame[name] = [json.dumps([f"text {place} {i} " * words]) for i in range(60)]
    frame.to_csv(battles, index=False)
    pd.DataFrame({"id": range(60), "p_a": 0.5, "p_b": 0.3, "p_tie": 0.2}).to_csv(tmp_path / "llama.csv", index=False)
    import_scores("llama", tmp_path / "llama.csv", battles, target="t4x2", like="llama-3-8b", store=store)
    target, entry = load_target("t4x2"), load_entry("llama-3-8b")
    first = forecast(entry, target, file_of(entry, battles, 25_000, None), [store])[0]
    for _ in range(2):  # the second time from what was kept of the file
        (row,) = leaderboard(store, target=target)
        assert row.cost_basis == first.basis and row.hours_25k == pytest.approx(first.seconds.likely / 3600, rel=0.02)
    assert row.tokens_per_row is None, "nobody counted them"
    battles.unlink()
    (row,) = leaderboard(store, target=target)
    assert row.hours_25k and row.hours_25k > 2, "as long as the competition's, where nothing is known"


@pytest.mark.parametrize("width", [80, 120])
def test_no_row_breaks_within_a_word(width: int, tmp_path: Path) -> None:
    """On a terminal of that width every line of the table is a row, and every word whole."""
    score(tmp_path, "qwen2.5-coder-1.5b", {"ab-512": 1.02, "ba-512": 1.03}, rows=600)
    score(tmp_path, "qwen2.5-coder-1.5b", {"ab-512": 0.5}, rows=24, day=2)
    (tmp_path / "x").mkdir()
    imported(tmp_path / "x")
    for store in (tmp_path, tmp_path / "x" / "store"):
        page, _ = leaderboard_page(leaderboard(store, superseded=True, champions={"good": "c"}))
        text = _rendered(page, Console(width=width, force_terminal=True, color_system=None))
        lines = text.splitlines()
        assert max(map(len, lines)) <= width, text
        names = {row.member for row in leaderboard(store, superseded=True)}
        assert all(any(line.startswith(name) for line in lines) for name in names)
        assert not any(line.startswith(" ") for line in lines), "a row that goes on in the next line"
