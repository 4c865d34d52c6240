"""`ensemble evaluate`: what a submission is measured against, joined by id."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensemble.plan import Plan
from ensemble.report import evaluate
from ensemble.report.shift import calibration_table
from tests.helpers.plans import plan_member, plan_of, plan_pool
from tests.helpers.shifts import calibration
from zoo.data.battles import read_battles
from zoo.errors import ZooError
from zoo.scores.metrics import log_loss_rows
from zoo.scores.tables import write_submission


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the prior and the promise of the plan count here, and no prediction ran, so there are no members' lines."""
    promise = {"oof_log_loss": 0.9, "oof_log_loss_se": 0.01, "fitted_rows": 500}
    monkeypatch.setattr(evaluate, "load_plan", lambda _: Plan.model_construct(prior=(0.4, 0.4, 0.2), **promise))


def test_lines_are_joined_by_id_and_hold_the_best_possible(plan: None, sample_csv: Path, tmp_path: Path) -> None:
    frame = read_battles(sample_csv).frame
    truth = pd.read_csv(sample_csv.with_name("battles.truth.csv"), dtype={"id": "str"})
    shuffled = truth.sample(frac=1, random_state=0)
    write_submission(shuffled["id"].tolist(), shuffled[["p_a", "p_b", "p_tie"]].to_numpy(), tmp_path / "sub.csv")
    lines = {line.name: line for line in evaluate.evaluate(tmp_path / "plan.json", sample_csv, tmp_path / "sub.csv")}
    assert list(lines) == [
        "promised, out of fold",
        "uniform",
        "label prior of the training data",
        "blend",
        "best possible",
    ]
    assert lines["uniform"].log_loss == math.log(3)
    expected = log_loss_rows(truth.set_index("id").loc[frame["id"]].to_numpy(), frame["label"].to_numpy()).mean()
    assert math.isclose(lines["blend"].log_loss, lines["best possible"].log_loss, rel_tol=1e-9)
    assert math.isclose(lines["blend"].log_loss, expected, rel_tol=1e-9)


def test_a_submission_without_some_ids_is_refused(plan: None, sample_csv: Path, tmp_path: Path) -> None:
    ids = read_battles(sample_csv).frame["id"].tolist()
    write_submission(ids[2:], np.full((len(ids) - 2, 3), 1 / 3), tmp_path / "sub.csv")
    with pytest.raises(ZooError, match=f"2 ids of the battles are missing, first {ids[0]}"):
        evaluate.evaluate(tmp_path / "plan.json", sample_csv, tmp_path / "sub.csv")


def test_the_promise_is_the_recalibration_s_where_there_is_one_and_z_is_of_two_independent_means() -> None:
    plan = plan_of([plan_member("m")], [plan_pool(("m",), 1.0)], oof_log_loss=0.9, oof_log_loss_se=0.03, fitted_rows=500)
    blend = evaluate.Line("blend", 1.05, 0.04, 200)
    found = evaluate.promise(plan, blend)
    assert (found.log_loss, found.rows, found.difference) == (0.9, 500, pytest.approx(0.15))
    assert found.z == pytest.approx(0.15 / 0.05)
    recalibrated = plan.model_copy(update={"calibration": calibration(log_loss=1.02, log_loss_se=0.03, rows=50)})
    found = evaluate.promise(recalibrated, blend)
    assert (found.name, found.log_loss, found.rows) == ("promised, recalibrated on votes.csv", 1.02, 50)


@pytest.mark.parametrize("cell", ["", "nan", "inf", "none"])
def test_a_submission_with_what_is_no_number_names_its_rows(plan: None, sample_csv: Path, tmp_path: Path, cell: str) -> None:
    frame = pd.read_csv(sample_csv.with_name("battles.truth.csv"), dtype={"id": "str"})
    write_submission(frame["id"].tolist(), frame[["p_a", "p_b", "p_tie"]].to_numpy(), tmp_path / "sub.csv")
    lines = (tmp_path / "sub.csv").read_text().splitlines()
    lines[2] = ",".join([*lines[2].split(",")[:-1], cell])
    (tmp_path / "sub.csv").write_text("\n".join(lines))
    with pytest.raises(ZooError, match=r"1 row without three numbers, ids \w+; predict again, or mend the file"):
        evaluate.evaluate(tmp_path / "plan.json", sample_csv, tmp_path / "sub.csv")


def test_the_table_of_a_calibration_that_is_not_taken_has_what_it_would_have_lost():
    refused = calibration(kept=False, log_loss_before=1.0, log_loss=1.0, gain=-0.02, gain_se=0.005)
    before, after = calibration_table(refused).records()
    assert (before["log_loss"], after["log_loss"]) == (1.0, pytest.approx(1.02))
    assert after["name"] == "recalibrated, not taken"
