"""`ensemble recalibrate` and `build --calibrate-on`: what they take, what they write, and what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensemble.cli import main
from ensemble.plan import load_plan
from tests.helpers.command_lines import Done, run_command
from zoo.data.battles import read_battles
from zoo.data.sample import write_sample
from zoo.pipeline.import_table import import_scores
from zoo.scores.metrics import log_loss_rows
from zoo.tracking.kept import KeptUse, read_kept

KINDS = {"fair": 0.9, "good": 1.3}


def write_table(name: str, battles: Path, *, certainty: float, seed: int) -> Path:
    """What a member says of battles, whose log-odds are too large by `certainty`."""
    frame = read_battles(battles).frame
    rng = np.random.default_rng(seed)
    logits = np.eye(3)[frame["label"].to_numpy()] * KINDS[name] + rng.normal(size=(len(frame), 3))
    p = np.exp(certainty * logits)
    p /= p.sum(axis=1, keepdims=True)
    path = battles.with_name(f"{name}-{battles.stem}.csv")
    pd.DataFrame({"id": frame["id"], "p_a": p[:, 0], "p_b": p[:, 1], "p_tie": p[:, 2]}).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A home with a plan of two imported members, and other battles of which they are too sure."""
    folder = tmp_path_factory.mktemp("home")
    battles, other = folder / "battles.csv", folder / "other.csv"
    write_sample(battles, rows=200, seed=3)
    write_sample(other, rows=300, seed=4)
    for seed, name in enumerate(KINDS):
        table = write_table(name, battles, certainty=1.0, seed=seed)
        price = {"load_seconds": 5.0, "seconds_per_row": 0.01, "seconds_per_1k_tokens": None}
        import_scores(name, table, battles, target="t4x2", **price, store=folder / "mlruns" / "store")
        write_table(name, other, certainty=3.0, seed=10 + seed)
    done = run_command(main, "ensemble", "build", "--budget", "2h", home=folder / "mlruns", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def home(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "home"))


def ensemble(home: Path, *arguments: str) -> Done:
    return run_command(main, "ensemble", *arguments, home=home / "mlruns", folder=home)


def scores() -> list[str]:
    return [word for name in KINDS for word in ("--scores", f"{name}={name}-other.csv")]


def submission(home: Path, plan: str) -> np.ndarray:
    done = ensemble(home, "predict", plan, "other.csv", "-o", "out.csv", *scores())
    assert done.returncode == 0, done.stderr
    return pd.read_csv(home / "out.csv").iloc[:, 1:].to_numpy()


def test_a_plan_is_recalibrated_into_a_new_one_that_predicts_and_is_evaluated_as_it_promises(home):
    before = (home / "plan.json").read_bytes()
    done = ensemble(home, "recalibrate", "plan.json", "--labels", "other.csv", *scores(), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 290 <= found["rows"] <= 300 and found["kept"] and found["temperature"] > 1.5 and found["gain"] > 2 * found["gain_se"]
    assert (home / "plan.json").read_bytes() == before
    new, old = load_plan(home / "plan-recalibrated.json"), load_plan(home / "plan.json")
    assert new.calibration is not None and new.calibration.made_from.startswith("plan.json ")
    assert new.model_copy(update={"calibration": None}) == old
    y = read_battles(home / "other.csv").frame["label"].to_numpy()
    plain, recalibrated = (log_loss_rows(submission(home, name), y).mean() for name in ("plan.json", "plan-recalibrated.json"))
    assert plain == pytest.approx(found["log_loss_before"], abs=0.02), "but for a few rows that look like fitting ones"
    assert recalibrated == pytest.approx(found["log_loss"], abs=0.02) and recalibrated < plain
    shown = ensemble(home, "evaluate", "plan-recalibrated.json", "other.csv", "out.csv", "--json")
    lines = {line["name"]: line for line in json.loads(shown.stdout)}
    assert {"promised, recalibrated on other.csv", "equal weights", *KINDS, "blend"} <= lines.keys()
    promised = lines["promised, recalibrated on other.csv"]
    assert promised["log_loss"] == pytest.approx(found["log_loss"]) and abs(promised["z"]) < 2
    assert lines["good"]["difference"] == pytest.approx(lines["blend"]["log_loss"] - lines["good"]["log_loss"])
    kept = sorted((home / "mlruns" / "predictions").glob("*.json"))
    assert {path.name.partition("-")[0] for path in kept} == {"prediction", "evaluation", "recalibration"}
    assert all(read_kept(path, KeptUse) for path in kept), "MLflow takes the names of all their metrics"
    assert "calibration on other.csv: temperature" in ensemble(home, "show", "plan-recalibrated.json").stdout
    page = ensemble(home, "show", "plan-recalibrated.json", "--html", "plan.html")
    assert page.returncode == 0 and "calibration on other.csv: temperature" in (home / "plan.html").read_text()


def test_what_a_prediction_has_said_is_found_again_also_of_some_of_its_rows_and_without_labels(home):
    """Under other labels and as a part of the file; not under the same ids with other texts."""
    unlabelled = pd.read_csv(home / "other.csv").filter(regex="^(id|prompt|response)")
    unlabelled.to_csv(home / "test.csv", index=False)
    done = ensemble(home, "predict", "plan.json", "test.csv", *scores())
    assert done.returncode == 0, done.stderr
    pd.read_csv(home / "other.csv").iloc[40:140].to_csv(home / "votes.csv", index=False)
    done = ensemble(home, "recalibrate", "plan.json", "--labels", "votes.csv", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rows"] == 100 and all(source.startswith("prediction ") for source in found["members_from"].values())
    strangers = pd.read_csv(home / "battles.csv").assign(id=pd.read_csv(home / "other.csv")["id"].iloc[:200])
    strangers["prompt"] = '["never seen before ' + strangers.index.astype(str) + '"]'
    strangers.to_csv(home / "strangers.csv", index=False)
    refused = ensemble(home, "recalibrate", "plan.json", "--labels", "strangers.csv")
    assert refused.returncode == 2 and "no probabilities of" in refused.stderr


def test_an_imported_table_of_the_battles_is_taken_from_the_store(home):
    for name in KINDS:
        price = {"load_seconds": 5.0, "seconds_per_row": 0.01, "seconds_per_1k_tokens": None}
        table, other = home / f"{name}-other.csv", home / "other.csv"
        import_scores(name, table, other, target="t4x2", **price, store=home / "mlruns" / "store")
    done = ensemble(home, "recalibrate", "plan.json", "--labels", "other.csv", "--json")
    assert done.returncode == 0, done.stderr
    assert all(source.startswith("table ") for source in json.loads(done.stdout)["members_from"].values())


def test_rows_that_are_in_the_fit_are_left_out_and_counted(home):
    """By their texts: under other ids, and with A and B exchanged."""
    ours, theirs = pd.read_csv(home / "battles.csv").iloc[:60], pd.read_csv(home / "other.csv")
    exchanged = {"response_a": "response_b", "response_b": "response_a"}
    exchanged |= {"winner_model_a": "winner_model_b", "winner_model_b": "winner_model_a"}
    ours = ours.rename(columns=exchanged).assign(id=[f"again{i}" for i in range(60)])
    pd.concat([theirs, ours]).to_csv(home / "both.csv", index=False)
    done = ensemble(home, "recalibrate", "plan.json", "--labels", "both.csv", *scores(), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 60 <= found["also_in_fit"] <= 63 and found["rows"] + found["also_in_fit"] == 360
    assert f"{found['also_in_fit']} of 360 rows left out: also in the plan's fit" in done.stderr
    done = ensemble(home, "recalibrate", "plan.json", "--labels", "battles.csv")
    assert done.returncode == 2 and "fitted on all of its 200 labelled rows" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "other.csv"], "no probabilities of "),
        (["--labels", "other.csv", "--run"], "(imported)"),
        (["--labels", "other.csv", "--scores", "nobody=fair-other.csv"], "no member 'nobody'"),
        (["--labels", "other.csv", *scores(), "-o", "plan.json"], "would replace plan.json"),
        (["--labels", "other.csv", *scores(), "-o", "fair-other.csv"], "would replace fair-other.csv"),
        (["--labels", "test.csv", *scores()], "no winner columns"),
        (["--labels", "few.csv", *scores()], "are too few to calibrate on; need 20 rows"),
        (["--labels", "one.csv", *scores()], "labelled rows have the same winner; there is nothing to learn"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_and_nothing_is_written(home, arguments, message):
    other = pd.read_csv(home / "other.csv")
    other.filter(regex="^(id|prompt|response)").to_csv(home / "test.csv", index=False)
    other.iloc[:15].to_csv(home / "few.csv", index=False)
    other.assign(winner_model_a=1, winner_model_b=0, winner_tie=0).to_csv(home / "one.csv", index=False)
    before = {path: path.read_bytes() for path in home.glob("*.*")}
    done = ensemble(home, "recalibrate", "plan.json", *arguments)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert before == {path: path.read_bytes() for path in home.glob("*.*")}


def test_a_build_is_calibrated_on_the_battles_to_be_predicted_or_says_how_to_go_on(home):
    options = ["--data", "battles.csv", "--budget", "2h", "-o", "new.json", "--calibrate-on", "other.csv"]
    refused = ensemble(home, "build", *options)
    assert refused.returncode == 2 and "ensemble recalibrate new.json --labels other.csv" in refused.stderr
    assert load_plan(home / "new.json").calibration is None
    done = ensemble(home, "predict", "new.json", "other.csv", *scores())
    assert done.returncode == 0, done.stderr
    done = ensemble(home, "build", *options, "--json")
    assert done.returncode == 0, done.stderr
    plan = load_plan(home / "new.json")
    assert plan.calibration is not None and plan.calibration.kept
    rows = json.loads(done.stdout)["calibration"]["rows"]
    kept = [json.loads(path.read_text()) for path in sorted((home / "mlruns" / "predictions").glob("recalibration-*.json"))]
    assert [one["numbers"]["recalibrate/rows"] for one in kept] == [rows]


def test_a_build_takes_the_members_tables_for_its_calibration_and_leaves_others_alone(home):
    options = ["--data", "battles.csv", "--budget", "2h", "-o", "new.json", "--pool", "log", "--calibrate-on", "other.csv"]
    given = [word.replace("--scores", "--calibrate-scores") for word in scores()]
    done = ensemble(home, "build", *options, *given, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["calibration"]
    by_hand = ensemble(home, "recalibrate", "new.json", "--labels", "other.csv", *scores(), "--json")
    theirs = json.loads(by_hand.stdout)
    assert {key: found[key] for key in ("temperature", "tie_bias", "gain")} == {
        key: theirs[key] for key in ("temperature", "tie_bias", "gain")
    }
    assert set(found["members_from"]) == {member.name for member in load_plan(home / "new.json").members}
    tables = ("--calibrate-scores", "good=good-other.csv", "--calibrate-scores", "fair=fair-other.csv")
    done = ensemble(home, "build", *options, *tables, "--exclude", "fair")
    assert done.returncode == 0 and "fair: is not in the plan; its table of --calibrate-scores is left alone" in done.stderr


def test_a_build_that_cannot_run_what_is_missing_names_the_command_that_goes_on_with_what_was_given(home):
    options = ["--data", "battles.csv", "--budget", "2h", "-o", "new.json", "--include", "fair", "--run"]
    given = ("--calibrate-on", "other.csv", "--calibrate-scores", "good=good-other.csv")
    refused = ensemble(home, "build", *options, *given)
    assert refused.returncode == 2 and "no probabilities of fair (imported)" in refused.stderr
    assert "give --scores fair=FILE; new.json is written without calibration" in refused.stderr
    assert "`ensemble recalibrate new.json --labels other.csv --scores good=good-other.csv`" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calibrate-on", "none.csv"], "none.csv"),
        (
            ["--calibrate-on", "other.csv", "--calibrate-scores", "nobody=fair-other.csv"],
            "no candidate is called so; there are",
        ),
        (["--calibrate-on", "other.csv", "--calibrate-scores", "fair=none.csv"], "none.csv"),
        (["--run"], "--run: is for --calibrate-on"),
        (["--calibrate-scores", "fair=fair-other.csv"], "--calibrate-scores: is for --calibrate-on"),
        (["--calibrate-on", "other.csv", "-o", "other.csv"], "would replace other.csv"),
    ],
)
def test_what_no_build_can_be_calibrated_on_is_refused_before_it_begins(home, arguments, message):
    done = ensemble(home, "build", "--data", "battles.csv", "--budget", "2h", *arguments)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert "searching" not in done.stderr


def test_a_build_of_files_alone_is_calibrated_by_files(home):
    """Ids, winners and probabilities: neither texts nor a store."""
    for seed, name in enumerate(KINDS):
        write_table(name, home / "battles.csv", certainty=1.0, seed=seed)
    columns = ["id", "winner_model_a", "winner_model_b", "winner_tie"]
    for name in ("battles", "other"):
        pd.read_csv(home / f"{name}.csv")[columns].to_csv(home / f"{name}-labels.csv", index=False)
    fitted = [word for name in KINDS for word in ("--scores", f"{name}={name}-battles.csv")]
    given = [word.replace("--scores", "--calibrate-scores") for word in scores()]
    before = set((home / "mlruns").rglob("*"))
    labels = ["--labels", "battles-labels.csv", "--calibrate-on", "other-labels.csv"]
    done = ensemble(home, "build", *fitted, *labels, *given, "--trials", "0", "-o", "files.json", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["calibration"]
    assert found["rows"] == 300 and found["temperature"] > 1.5
    assert set((home / "mlruns").rglob("*")) == before, "a plan of files leaves nothing in the home"
