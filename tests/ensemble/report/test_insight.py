"""`ensemble insight`: the plan's own rows, who is right where members differ, and who would help where."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from ensemble.cli import app
from ensemble.members.files import tables_of_files
from ensemble.plan import Plan, load_plan
from ensemble.report.at_hand import fitted_rows, fitted_rows_of_files, other_tables, rows_text
from ensemble.report.insight import plan_insight
from tests.helpers.plans import plan_member, plan_of, plan_pool, written
from zoo.data.battles import read_battles, text_lengths
from zoo.data.sample import write_sample
from zoo.errors import ZooError
from zoo.pipeline.import_table import import_scores
from zoo.pipeline.members import score_tables
from zoo.report.insight import Insight
from zoo.report.insight_rows import ANSWERS, LABEL
from zoo.scores.metrics import log_loss_rows

ROWS = 240
MEMBERS = ("fair", "good")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the plan's members `fair` and `good`, and `long`, which is better than them on long answers alone."""
    folder = tmp_path_factory.mktemp("plan-insight")
    write_sample(folder / "battles.csv", ROWS, seed=5)
    frame, rng = read_battles(folder / "battles.csv").frame, np.random.default_rng(1)
    truth = np.eye(3)[frame["label"].to_numpy()]
    length = text_lengths(frame)[:, 1:].sum(axis=1)
    longest = length >= np.quantile(length, 0.75)
    for name, sharpness in (("fair", 0.6), ("good", 0.8), ("long", np.where(longest, 1.6, 0.2)[:, None])):
        p = np.exp(truth * sharpness + 0.4 * rng.normal(size=truth.shape))
        table = pd.DataFrame(p / p.sum(axis=1, keepdims=True), columns=["p_a", "p_b", "p_tie"])
        table.insert(0, "id", frame["id"])
        table.to_csv(folder / f"{name}.csv", index=False)
        price = {"target": "cpu", "load_seconds": 5.0, "seconds_per_row": 0.1, "store": folder / "store"}
        import_scores(name, folder / f"{name}.csv", folder / "battles.csv", **price)
    return folder


@pytest.fixture
def plan(home: Path) -> Plan:
    tables = {table.name: table for table in score_tables(home / "store")}
    members = [plan_member(name, checkpoint=tables[name].card.checkpoint, weight=0.5) for name in MEMBERS]
    digest = tables["good"].card.dataset_digest
    return plan_of(members, [plan_pool(MEMBERS, 0.9)], dataset_digest=digest, fitted_rows=ROWS)


def insight_of_store(plan: Plan, store: Path) -> Insight:
    return plan_insight(plan, fitted_rows(plan, store), other_tables(plan, store), "mine")


def test_the_plan_s_rows_are_blended_as_the_plan_does(plan: Plan, home: Path) -> None:
    found = insight_of_store(plan, home / "store")
    tables = {
        name: pd.read_csv(home / f"{name}.csv", dtype={"id": "str"}).set_index("id").loc[found.rows.frame["id"]]
        for name in MEMBERS
    }
    p = np.mean([table[["p_a", "p_b", "p_tie"]].to_numpy() for table in tables.values()], axis=0)
    assert np.allclose(found.rows.p, p) and len(found.rows.y) == ROWS
    assert found.metrics["val/log_loss"] == pytest.approx(log_loss_rows(p, found.rows.y).mean())
    (pair,) = found.agreements
    assert {pair.first, pair.second} == set(MEMBERS) and 0 < pair.same < 1


def test_a_member_helps_where_it_is_better_and_nowhere_else(plan: Plan, home: Path) -> None:
    found = insight_of_store(plan, home / "store")
    assert found.others == ("long",)
    assert found.helpers and {gain.other for gain in found.helpers} == {"long"}
    best = min((gain for gain in found.helpers if gain.kind == ANSWERS), key=lambda gain: gain.difference)
    assert best.name.endswith("and more") and best.difference + 1.96 * best.error < 0
    assert not any(gain.kind == LABEL for gain in found.helpers), "nobody knows a label beforehand"


def test_the_command_writes_a_page_and_says_the_same(
    plan: Plan, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_HOME", str(home))
    path, page = written(plan, tmp_path / "mine.json"), tmp_path / "mine.html"
    done = CliRunner().invoke(app, ["insight", str(path), "--worst", "5", "-o", str(page), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert len(told["worst"]) == 5 and set(told["worst"][0]["members"]) == set(MEMBERS)
    assert told["agreement"] and told["would_help"] and told["others"] == ["long"]
    text = page.read_text()
    assert "Where another member would help" in text and "Where members differ" in text and "<script" not in text


def test_without_its_tables_there_is_no_insight(plan: Plan, home: Path, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="not on this machine"):
        insight_of_store(plan, tmp_path / "none")
    with pytest.raises(ZooError, match="has no score table of good"):
        other = plan.model_copy(update={"members": (plan.members[0], plan.members[1].model_copy(update={"checkpoint": "x"}))})
        insight_of_store(other, home / "store")
    with pytest.raises(ZooError, match="fitted on 777"):
        insight_of_store(plan.model_copy(update={"fitted_rows": 777}), home / "store")


def test_rows_that_another_candidate_lacked_are_told_too(plan: Plan, home: Path) -> None:
    found = fitted_rows(plan.model_copy(update={"fitted_rows": 200}), home / "store")
    assert len(found.frame) == ROWS and "fitted on 200 of them" in rows_text(found)


def test_a_plan_of_files_takes_them_again(plan: Plan, home: Path, tmp_path: Path) -> None:
    """The same insight as of a store with these tables; a file that is not the one it was fitted on is none."""
    files = {name: home / f"{name}.csv" for name in (*MEMBERS, "long")}
    labels = home / "battles.csv"
    tables = {table.name: table for table in tables_of_files(files, labels, "cpu")}
    members = [member.model_copy(update={"checkpoint": tables[member.name].card.checkpoint}) for member in plan.members]
    of_files = plan.model_copy(update={"members": tuple(members)})
    path, page = written(of_files, tmp_path / "files.json"), tmp_path / "files.html"
    given = [word for name in files for word in ("--scores", f"{name}={files[name]}")]
    done = CliRunner().invoke(app, ["insight", str(path), *given, "--labels", str(labels), "-o", str(page), "--json"])
    assert done.exit_code == 0, done.output
    told, same = json.loads(done.stdout), insight_of_store(plan, home / "store")
    assert told["metrics"] == pytest.approx(same.metrics) and told["others"] == ["long"]
    with pytest.raises(ZooError, match="blends good, too"):
        fitted_rows_of_files(load_plan(path), {"fair": files["fair"]}, labels)
    with pytest.raises(ZooError, match=r"fair.csv: not the table of good"):
        fitted_rows_of_files(load_plan(path), files | {"good": files["fair"]}, labels)
    write_sample(tmp_path / "other.csv", ROWS, seed=6)
    with pytest.raises(ZooError, match=r"other.csv: not the rows"):
        fitted_rows_of_files(load_plan(path), files, tmp_path / "other.csv")
