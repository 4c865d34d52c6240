"""Pipelines of score files: a build, a prediction and a pool without a store, through the command's own entry point."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensemble.cli import main
from tests.helpers.command_lines import Done, run_command
from zoo.data.battles import read_battles
from zoo.data.sample import write_sample
from zoo.scores.metrics import log_loss_rows
from zoo.scores.tables import probabilities, read_scores, read_submission

NAMES = {"a": 0.3, "b": 0.5, "c": 0.7}
WINNERS = ["winner_model_a", "winner_model_b", "winner_tie"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Out-of-fold tables `NAME.csv` of `y.csv` (ids and winners alone), and tables `NAME-test.csv` of other rows."""
    made = tmp_path_factory.mktemp("files")
    battles = write_sample(made / "battles.csv", rows=400, seed=3).path
    frame, label = pd.read_csv(battles, dtype=str), read_battles(battles).frame["label"].to_numpy()
    frame[["id", *WINNERS]].to_csv(made / "y.csv", index=False)
    rng = np.random.default_rng(0)
    for name, see in NAMES.items():
        p = np.exp(np.eye(3)[label] * see + rng.normal(size=(400, 3)) * 0.7)
        table = pd.DataFrame(
            {"id": frame["id"]} | dict(zip(("p_a", "p_b", "p_tie"), (p / p.sum(1, keepdims=True)).T, strict=True))
        )
        table[:300].sample(frac=1, random_state=1).to_csv(made / f"{name}.csv", index=False)
        table[300:].to_csv(made / f"{name}-test.csv", index=False)
    frame.loc[300:, ["id"]].to_csv(made / "ids.csv", index=False)
    run(made, "build", *files("a", "b", "c"), "--labels", "y.csv", "--trials", "0", "-o", "plan.json")
    return made


def run(folder: Path, *arguments: str) -> Done:
    return run_command(main, "ensemble", *arguments, home=folder / "home", folder=folder)


def files(*names: str) -> list[str]:
    return [text for name in names for text in ("--scores", f"{name}.csv")]


def plan_of(folder: Path, *arguments: str) -> dict:
    done = run(folder, "build", *arguments, "--trials", "0", "--json", "-o", "other.json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- build ------------------------------------------------------------------------------------------------------------------


def test_a_plan_of_files_needs_no_store_and_no_cost_and_leaves_no_home(folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    assert {member["name"] for member in plan["members"]} == set(NAMES)
    assert plan["fitted_rows"] == 300
    assert all(member["coverage"] == 1 and member["predicted_seconds"] == 0 for member in plan["members"])
    assert not (folder / "home").exists()
    shown = run(folder, "show", "plan.json")
    assert shown.returncode == 0 and "nothing runs" in shown.stdout
    assert run(folder, "show", "plan.json", "--html", "plan.html").returncode == 0
    page = (folder / "plan.html").read_text()
    for said in (shown.stdout, page):
        assert "9 h" not in said and "margin 1" not in said.lower(), "nobody gave a budget"


@pytest.mark.slow
def test_neither_the_order_of_rows_nor_that_of_files_nor_names_change_what_is_blended(folder: Path) -> None:
    before = json.loads((folder / "plan.json").read_text())
    for name in NAMES:
        pd.read_csv(folder / f"{name}.csv").sample(frac=1, random_state=5).to_parquet(folder / f"{name}.parquet")
    renamed = [text for name in ("c", "a", "b") for text in ("--scores", f"x{name}={name}.parquet")]
    plan = plan_of(folder, *renamed, "--labels", "y.csv")
    assert plan["oof_log_loss"] == pytest.approx(before["oof_log_loss"], abs=1e-6)
    assert {member["name"]: pytest.approx(member["weight"], abs=1e-4) for member in plan["members"]} == {
        f"x{member['name']}": member["weight"] for member in before["members"]
    }


@pytest.mark.slow
def test_a_budget_asks_for_prices_and_takes_them_in_seconds_or_as_an_entrys(folder: Path) -> None:
    budget = ("--budget", "9h", "--target", "t4x2", "--labels", "y.csv")
    failed = run(folder, "build", *files("a", "b"), *budget)
    assert failed.returncode == 2
    last = failed.stderr.splitlines()[-1]
    assert "a: nobody has said what it costs; price it with --seconds a=SECONDS or --like a=ENTRY[@VARIANT]" in last
    prices = ("--seconds", "a=40m", "--like", "b=llama-3-8b@ab-1024")
    plan = plan_of(folder, *files("a", "b", "c"), *budget, *prices)
    assert set(plan["left_out"]) == {"c"}
    costs = {member["name"]: member["cost"] for member in plan["members"]}
    assert set(costs) <= {"a", "b"}
    if "a" in costs:
        assert costs["a"]["seconds_per_row"] * 25_000 == pytest.approx(2400)
    assert costs["b"]["forecast"]["as_entry"] == "llama-3-8b@ab-1024"
    assert "forecast (llama-3-8b@ab-1024 on t4x2" in run(folder, "show", "other.json").stdout


def test_rows_that_a_file_lacks_are_told_and_no_members_of_the_blend(folder: Path) -> None:
    pd.read_csv(folder / "a.csv")[:290].to_csv(folder / "short.csv", index=False)
    done = run(folder, "build", *files("short", "b"), "--labels", "y.csv", "--trials", "0", "-o", "other.json")
    assert done.returncode == 0, done.stderr
    assert "short.csv: lacks 110 of the 400 rows of y.csv, first " in done.stderr
    assert json.loads((folder / "other.json").read_text())["fitted_rows"] == 290


# --- predict ----------------------------------------------------------------------------------------------------------------


def blended(folder: Path, *arguments: str) -> tuple[pd.DataFrame, Done]:
    done = run(folder, "predict", "plan.json", *arguments, "-o", "submission.csv")
    assert done.returncode == 0, done.stderr
    return read_submission(folder / "submission.csv").set_index("id"), done


TEST = [text for name in NAMES for text in ("--scores", f"{name}={name}-test.csv")]


def test_tables_are_blended_by_id_in_any_order(folder: Path) -> None:
    first, done = blended(folder, *TEST)
    assert len(first) == 100 and "100 rows  " in done.stdout and not done.stderr
    pd.read_csv(folder / "b-test.csv").sample(frac=1, random_state=2).to_csv(folder / "mixed.csv", index=False)
    again, _ = blended(folder, "--scores", "b=mixed.csv", *TEST[:2], *TEST[4:], "--ids", "ids.csv")
    assert again.index.tolist() == pd.read_csv(folder / "ids.csv", dtype=str)["id"].tolist()
    np.testing.assert_array_equal(again.to_numpy(), first.loc[again.index].to_numpy())
    label = read_battles(folder / "battles.csv").frame.set_index("id")["label"].loc[first.index].to_numpy()
    single = pd.read_csv(folder / "a-test.csv", dtype={"id": str}).set_index("id").loc[first.index].to_numpy()
    assert log_loss_rows(first.to_numpy(), label).mean() < log_loss_rows(single, label).mean()
    assert not (folder / "home").exists()


def test_rows_without_a_member_get_its_fallback_and_rows_without_any_the_prior(folder: Path) -> None:
    whole, _ = blended(folder, *TEST)
    pd.read_csv(folder / "c-test.csv")[:60].to_csv(folder / "c60.csv", index=False)
    some, done = blended(folder, *TEST[:4], "--scores", "c=c60.csv", "--ids", "ids.csv")
    without, told = blended(folder, *TEST[:4])
    np.testing.assert_array_equal(some[:60].to_numpy(), whole[:60].to_numpy())
    np.testing.assert_allclose(some[60:].to_numpy(), without[60:].to_numpy())
    assert "c: not in 40 of 100 rows, which are blended without it" in done.stderr
    assert "c: no table is given (--scores c=FILE); rows are blended without it" in told.stderr
    for name in NAMES:
        pd.read_csv(folder / f"{name}-test.csv")[:90].to_csv(folder / f"{name}90.csv", index=False)
    few, done = blended(folder, *(text for n in NAMES for text in ("--scores", f"{n}={n}90.csv")), "--ids", "ids.csv")
    prior = json.loads((folder / "plan.json").read_text())["prior"]
    np.testing.assert_allclose(few[90:].to_numpy(), np.tile(prior, (10, 1)))
    assert "no member is in 10 of 100 rows: they hold the plan's prior" in done.stderr


def test_ids_that_nobody_asked_for_are_left_alone_and_told(folder: Path) -> None:
    pd.read_csv(folder / "ids.csv", dtype=str)[:30].to_csv(folder / "ids30.csv", index=False)
    some, done = blended(folder, *TEST, "--ids", "ids30.csv", "--scores", "nobody=a-test.csv")
    assert len(some) == 30 and "70 rows whose ids ids30.csv does not have are left alone" in done.stderr
    assert "nobody: no member of the plan, which has " in done.stderr


def test_the_sample_s_columns_are_written_of_tables_alone(folder: Path) -> None:
    whole, _ = blended(folder, *TEST)
    ids = pd.read_csv(folder / "ids.csv", dtype=str)["id"]
    sample = pd.DataFrame({"winner": "model_b", "id": [*ids[1:], "a stranger"]})
    sample.to_csv(folder / "sample.csv", index=False)
    done = run(folder, "predict", "plan.json", *TEST, "--like", "sample.csv", "-o", "two.csv")
    assert done.returncode == 0 and "first a stranger; 1 of the 100 rows written are not in it" in done.stderr
    frame = pd.read_csv(folder / "two.csv", dtype=str)
    assert list(frame.columns) == ["winner", "id"]
    p = whole.loc[frame["id"]]
    assert (frame["winner"] == np.where(p["p_a"] >= p["p_b"], "model_a", "model_b")).all()


# --- pool -------------------------------------------------------------------------------------------------------------------


def test_a_pool_is_a_table_that_the_zoo_reads(folder: Path) -> None:
    for name in NAMES:
        parts = [pd.read_csv(folder / f"{name}{part}.csv") for part in ("", "-test")]
        pd.concat(parts).to_csv(folder / f"all-{name}.csv", index=False)
    pd.read_csv(folder / "y.csv", dtype=str)[:200].to_csv(folder / "votes.csv", index=False)
    judges = [f"{name}=all-{name}.csv" for name in NAMES]
    done = run(folder, "pool", *judges, "--labels", "votes.csv", "-o", "judges.parquet", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["rows"] == 400 and said["compared"][0]["rows"] == 200
    assert {line["name"] for line in said["compared"]} == {"pool", "equal weights", *NAMES}
    table = read_scores(folder / "judges.parquet")
    assert (table["fold"] >= 0).sum() == 200
    equal = run(folder, "pool", *judges, "-o", "equal.csv")
    assert "no labels: every table weighs the same" in equal.stdout
    ids = pd.read_csv(folder / "all-a.csv", dtype={"id": str})["id"]
    pooled = pd.read_csv(folder / "equal.csv", dtype={"id": str}).set_index("id").loc[ids]
    first = [pd.read_csv(folder / f"all-{n}.csv", dtype={"id": str}).set_index("id").loc[ids] for n in NAMES]
    np.testing.assert_allclose(probabilities(pooled), sum(map(probabilities, first)) / 3)
    assert not (folder / "home").exists()
    imported = run(
        folder, "build", "--scores", "judges.parquet", *files("a"), "--labels", "votes.csv", "--trials", "0", "-o", "other.json"
    )
    assert imported.returncode == 0, imported.stderr


# --- what people read --------------------------------------------------------------------------------------------------------


def test_of_tables_that_nobody_priced_no_page_speaks_of_seconds_or_budgets(folder: Path, tmp_path: Path) -> None:
    made = run(folder, "build", *files("a", "b", "c"), "--labels", "y.csv", "--trials", "8", "-o", "studied.json")
    assert made.returncode == 0, made.stderr
    page = run(folder, "show", "studied.json", "--html", "studied.html")
    assert page.returncode == 0, page.stderr
    html = (folder / "studied.html").read_text()
    for column in ("saves", "takes", ">time<", "Frontier", "More budget"):
        assert column not in html
    assert not {"saves", "takes", "fits", "more"} & set(made.stdout.split())
    assert "<code>ensemble study PLAN</code>" in html
    name = json.loads((folder / "studied.json").read_text())["study"]["name"]
    assert name.startswith("tables 3 members y ") and name in html
    shown = run(folder, "study", "studied.json", "-o", str(tmp_path))
    assert shown.returncode == 0, shown.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"study-history.png", "study-importance.png"}
    assert "predicted" not in shown.stdout and "budget" not in shown.stdout.replace("fit the budget", "")
