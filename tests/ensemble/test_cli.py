"""The command line as people use it: tables in, a plan out, errors on one line."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensemble.cli import main
from tests.helpers.command_lines import Done, run_command
from zoo.data.battles import read_battles
from zoo.data.sample import write_sample
from zoo.pipeline.import_table import import_scores


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A home with three imported members of known odds."""
    folder = tmp_path_factory.mktemp("home")
    battles = folder / "battles.csv"
    write_sample(battles, rows=200, seed=3)
    frame = read_battles(battles).frame
    rng = np.random.default_rng(0)
    truth = np.eye(3)[frame["label"].to_numpy()]
    for name, see, seconds in (("weak", 0.4, 0.001), ("fair", 0.9, 0.1), ("good", 1.3, 0.5)):
        p = np.exp(truth * see + rng.normal(size=truth.shape))
        p /= p.sum(axis=1, keepdims=True)
        table = pd.DataFrame({"id": frame["id"], "p_a": p[:, 0], "p_b": p[:, 1], "p_tie": p[:, 2]})
        table.to_csv(folder / f"{name}.csv", index=False)
        import_scores(
            name,
            folder / f"{name}.csv",
            battles,
            target="t4x2",
            load_seconds=5.0,
            seconds_per_row=seconds,
            seconds_per_1k_tokens=None,
            store=folder / "mlruns" / "store",
        )
    return folder


def ensemble(home: Path, *arguments: str) -> Done:
    return run_command(main, "ensemble", *arguments, home=home / "mlruns", folder=home)


def test_build_writes_a_plan_that_show_explains(home):
    built = ensemble(home, "build", "--budget", "2h", "-o", "blend.json")
    assert built.returncode == 0, built.stderr
    assert "log loss" in built.stdout
    shown = ensemble(home, "show", "blend.json", "--json")
    plan = json.loads(shown.stdout)
    assert plan == json.loads((home / "blend.json").read_text())
    assert {"oof_log_loss", "oof_log_loss_se", "budget_seconds", "predicted_seconds", "margin"} <= plan.keys()
    assert all({"name", "weight", "coverage", "predicted_seconds"} <= member.keys() for member in plan["members"])
    assert plan["budget_seconds"] == 7200
    assert plan["predicted_seconds"] * plan["margin"] <= 7200
    assert plan["rows"] == 25_000
    assert not list((home / "mlruns").rglob("blend.json")), "tracking keeps no copy of it"
    assert re.fullmatch(r"t4x2 2h 3 members battles [0-9a-f]{8}", plan["study"]["name"])
    assert (plan["study"]["storage"], plan["study"]["trials"], plan["study"]["feasible"]) == ("studies.db", 50, 1.0)
    assert plan["study"]["name"] in built.stdout
    (home / "blend.json").rename(home / "plan.json")
    assert "margin 1.5: target t4x2" in ensemble(home, "show").stdout


def test_a_study_is_shown_with_its_pictures_and_named_in_mlflow(home):
    built = ensemble(home, "build", "--budget", "2h", "--trials", "12", "--whole-file", "-o", "studied.json")
    assert built.returncode == 0, built.stderr
    shown = ensemble(home, "study", "studied.json", "-o", "pictures")
    assert shown.returncode == 0, shown.stderr
    for text in ("12 trials", "100% fit the budget", "what mattered", "optuna-dashboard sqlite:///", "the plan is the "):
        assert text in shown.stdout
    assert "Optuna" in shown.stdout
    pictures = {path.name: path.read_bytes()[:4] for path in (home / "pictures").iterdir()}
    assert pictures == dict.fromkeys(("study-history.png", "study-importance.png", "study-seconds.png"), b"\x89PNG")
    data = json.loads(ensemble(home, "study", "studied.json", "--json").stdout)
    assert (len(data["trials"]), data["feasible"], data["facts"]["data"]) == (12, 1.0, "battles.csv")
    assert sum(data["importance"].values()) == pytest.approx(1)
    assert str(home) not in (home / "studied.json").read_text()
    with sqlite3.connect(home / "mlruns" / "mlflow.db") as database:
        named = database.execute("select value from tags where key = 'zoo.study'").fetchall()
        run, *_ = database.execute(
            "select run_uuid from tags where key = 'zoo.study' and value = ?", (data["name"],)
        ).fetchone()
        (trace,) = database.execute(
            "select request_id from trace_request_metadata where key = 'mlflow.sourceRun' and value = ?", (run,)
        ).fetchone()
        spans = database.execute(
            "select name, span_id, parent_span_id, content from spans where trace_id = ?", (trace,)
        ).fetchall()
    assert (data["name"],) in named
    names = {span_id: name for name, span_id, _, _ in spans}
    parents = {name: names.get(parent) for name, _, parent, _ in spans}
    steps = ("gather members", "prices", "search", "rehearsal", "study", "assemble")
    assert [parents[name] for name in ("build", *steps)] == [None, *["build"] * len(steps)]
    assert {"subsets", "judging whole files", "frontier", "fits"} <= parents.keys() and "judging coverage" not in parents
    trials = [json.loads(content)["attributes"]["trials"] for name, _, parent, content in spans if names.get(parent) == "study"]
    assert sum(int(count) for count in trials) == 12, "a span a family of pools, with how many trials it had"


def test_a_study_that_is_gone_is_one_line(home, tmp_path):
    built = ensemble(home, "build", "--budget", "2h", "--trials", "1", "--whole-file", "-o", "gone.json")
    assert built.returncode == 0, built.stderr
    (tmp_path / "gone.json").write_text((home / "gone.json").read_text())
    plan = json.loads((home / "gone.json").read_text())
    (tmp_path / "none.json").write_text(json.dumps({key: value for key, value in plan.items() if key != "study"}))
    for name, text in (("gone.json", "is not there any more"), ("none.json", "built without a study")):
        failed = ensemble(tmp_path, "study", name)
        assert failed.returncode == 2
        assert text in failed.stderr.splitlines()[-1]
        assert "Traceback" not in failed.stderr


def test_parsimony_is_asked_for(home):
    def plan(*options: str) -> dict:
        built = ensemble(home, "build", "--trials", "0", "--whole-file", "--json", "-o", "asked.json", *options)
        assert built.returncode == 0, built.stderr
        return json.loads(built.stdout)

    best, same, cheaper = (plan("--budget", "2h", *more) for more in ((), ("--no-parsimony",), ("--parsimony",)))
    assert best["members"] == same["members"]
    assert cheaper["predicted_seconds"] <= best["predicted_seconds"]
    assert "--parsimony" not in best["parsimony"]


def test_a_frontier_is_asked_as_a_build_is(home):
    options = ("--target", "t4x2", "--rows", "10000", "--include", "weak", "--whole-file", "--margin", "1.2", "--trials", "3")
    drawn = ensemble(home, "frontier", *options, "--points", "2", "--json")
    assert drawn.returncode == 0, drawn.stderr
    dearest = json.loads(drawn.stdout)[-1]
    built = ensemble(home, "build", *options, "--budget", f"{dearest['budget_seconds']:.0f}s", "--json", "-o", "same.json")
    assert built.returncode == 0, built.stderr
    plan = json.loads(built.stdout)
    assert (plan["rows"], plan["margin"]) == (10_000, 1.2)
    assert set(dearest["members"]) <= {"weak@ab", "fair@ab", "good@ab", "weak", "fair", "good"}


def test_a_build_takes_the_pool_and_the_members_it_is_told(home):
    options = ("--budget", "2h", "--pool", "linear", "--exclude", "good", "--json", "-o", "told.json")
    built = ensemble(home, "build", *options)
    assert built.returncode == 0, built.stderr
    plan = json.loads(built.stdout)
    assert {pool["blend"]["pool"] for pool in plan["pools"]} == {"linear"}
    assert {reason["name"] for reason in plan["reasons"]["members"]} == {"weak", "fair"}
    assert plan["left_out"] == {"good": "--exclude good"}
    assert "left out: good: --exclude good" in ensemble(home, "show", "told.json").stdout


def test_without_a_target_the_only_one_with_costs_is_taken_and_said(home, tmp_path):
    for name in ("weak", "good"):
        arguments = {"target": "cpu", "load_seconds": 5.0, "seconds_per_row": 0.01, "store": tmp_path / "mlruns" / "store"}
        import_scores(name, home / f"{name}.csv", home / "battles.csv", **arguments)
    built = ensemble(tmp_path, "build", "--budget", "2h")
    assert built.returncode == 0, built.stderr
    assert "planning for cpu, not for t4x2" in built.stderr
    assert json.loads((tmp_path / "plan.json").read_text())["target"]["name"] == "cpu"
    asked = ensemble(tmp_path, "build", "--target", "t4x2", "--data", str(home / "battles.csv"))
    assert asked.returncode == 2
    assert "no member has a cost on target t4x2" in asked.stderr


def test_a_budget_that_buys_nothing_is_one_line_with_the_way_out(home):
    failed = ensemble(home, "build", "--budget", "10s", "-o", "none.json")
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1].startswith("error: budget 10.0 s is too small")
    assert "weak alone" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (home / "none.json").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("build", "--budget", "soon"), "give hours"),
        (("build", "--target", "abacus"), "abacus"),
        (("build", "--margin", "0.5"), "at least 1"),
        (("build", "--pool", "maple"), "--pool maple: no such kind of pool; there are linear, log, logistic"),
        (("build", "--include", "best"), "--include best: no score table is called that; there are fair, good, weak"),
        (("build", "--exclude", "best"), "--exclude best: no score table is called that; there are fair, good, weak"),
        (("build", "--include", "good", "--exclude", "good"), "--include good and --exclude good: give one of them"),
        (("show", "nothing.json"), "no such plan"),
        (("show", "/dev/zero"), "neither a file nor a link to one"),
        (("build", "--data", "battles.csv", "-o", "battles.csv"), "battles.csv, which the command reads"),
        (("build", "--lengths", "battles.csv", "-o", "./battles.csv"), "battles.csv, which the command reads"),
        (("frontier", "--data", "frontier.json", "-o", "."), "frontier.json, which the command reads"),
        (("show", "battles.csv", "--html", "battles.csv"), "battles.csv, which the command reads"),
        (("predict", "weak.csv", "battles.csv", "-o", "battles.csv"), "battles.csv, which the command reads"),
        (("predict", "weak.csv", "battles.csv", "-o", "weak.csv"), "weak.csv, which the command reads"),
        (("predict", "weak.csv", "battles.csv", "--scores", "m=good.csv", "-o", "good.csv"), "good.csv, which the command"),
        (("predict", "weak.csv", "battles.csv", "-o", ""), ".: a folder; give the name of a file"),
        (("predict", "weak.csv", "battles.csv", "--budget", "9h9h"), "each once"),
    ],
)
def test_errors_are_one_line_and_name_the_mend(home, arguments, text):
    failed = ensemble(home, *arguments)
    assert failed.returncode == 2
    assert text in failed.stderr
    assert "Traceback" not in failed.stderr


def test_help_loads_nothing_heavy():
    heavy = ("torch", "vllm", "mlflow", "optuna", "sklearn", "pandas", "scipy", "matplotlib", "transformers")
    code = (
        "import sys\nfrom ensemble.cli import main\nsys.argv = ['ensemble', '--help']\n"
        f"try: main()\nexcept SystemExit: pass\nprint([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_the_headline_command_works_where_nothing_was_measured(home, tmp_path):
    """Three tables of models that no laptop runs, at the prices of entries: a plan for two T4s, marked as forecast."""
    entries = {"weak": "llama-3-8b@ab-1024", "fair": "gemma-2-9b", "good": "yi-34b"}
    for name, entry in entries.items():
        store = tmp_path / "mlruns" / "store"
        import_scores(name, home / f"{name}.csv", home / "battles.csv", target="t4x2", like=entry, store=store)
    built = ensemble(tmp_path, "build", "--budget", "9h", "--target", "t4x2", "--json")
    assert built.returncode == 0, built.stderr
    plan = json.loads(built.stdout)
    for member in plan["members"]:
        assert member["cost"]["forecast"]["as_entry"].startswith(entries[member["name"]])
        assert f"{member['name']}: forecast (" in built.stderr
    assert plan["margin"] > 1.5 and "upper ends of forecasts" in plan["margin_reason"]
    assert plan["predicted_seconds"] * plan["margin"] <= 9 * 3600 * (1 + 1e-9)
    shown = ensemble(tmp_path, "show").stdout
    assert "forecast (" in shown and "as a Kaggle submission" in shown
    ensemble(tmp_path, "show", "--html", "plan.html")
    assert ", forecast</td>" in (tmp_path / "plan.html").read_text()
    priced = ensemble(tmp_path, "build", "--budget", "9h", "--seconds", "good=2h", "--margin", "1.2", "--json", "-o", "p.json")
    plan = json.loads(priced.stdout)
    costs = {member["name"]: member["cost"] for member in plan["members"]}
    assert plan["margin"] == 1.2 and "forecast" not in costs["good"]
    assert costs["good"]["seconds_per_row"] * 25_000 == pytest.approx(7200)
