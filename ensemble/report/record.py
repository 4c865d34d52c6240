"""Records of predictions and evaluations, which the next command that logs to MLflow logs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ensemble.plan import Calibration, Plan, load_plan
from ensemble.predict.outcome import Prediction
from ensemble.report.evaluate import BLEND, PROMISED, Line
from zoo.tracking.bounded import answered_within
from zoo.tracking.home import one_line
from zoo.tracking.uses import keep_use

logger = logging.getLogger("zoo")
RECORD_SECONDS = 1.0  # for a small file, when the submission is written: a disk that stalls holds nobody up


def record_prediction(battles: Path, done: Prediction) -> None:
    """Keep what a prediction did; a line where that fails, which costs the prediction nothing.

    Under the plan that it carried out, whatever has become of the plan's file meanwhile.
    """

    def keep() -> None:
        numbers, params = prediction_numbers(done), _params(done.plan, battles)
        params |= {"output": done.output.name, "stopped_by": done.stopped_by}
        dumped = done.plan.model_dump(mode="json")
        keep_use("prediction", dumped, seconds=done.used_seconds, numbers=numbers, params=params, spans=done.spans)

    try:
        answered_within(RECORD_SECONDS, keep)
    except Exception as error:
        logger.warning("this prediction is not kept for MLflow: %s", one_line(error))


def prediction_numbers(done: Prediction) -> dict[str, float]:
    """A prediction as metrics: seconds, rows by member, and log loss where labels are."""
    numbers = {
        "predict/seconds": done.used_seconds,
        "predict/predicted_seconds": done.predicted_seconds,
        "budget_seconds": done.budget_seconds,
        "predict/rows": float(done.rows),
        "predict/bad_rows": float(done.bad_rows),
        "predict/prior_share": done.patterns.get("prior", 0) / done.rows if done.rows else 0.0,
        "members": float(len(done.used)),
    }
    for member in done.members:
        numbers[f"predict/rows/{_name(member.name)}"] = float(member.rows)
    numbers |= {f"predict/distance/{feature}": distance for feature, distance in done.distances.items()}
    if done.log_loss is not None:
        numbers["predict/log_loss"] = done.log_loss
    if done.log_loss_se is not None:
        numbers["predict/log_loss_se"] = done.log_loss_se
    return numbers


def record_recalibration(plan: Plan, seconds: float) -> None:
    """Keep how a plan was recalibrated; a line where that fails."""
    try:
        calibration = plan.calibration
        assert calibration is not None
        params = {"target": plan.target.name, "battles": calibration.battles, "made_from": calibration.made_from}
        numbers = calibration_numbers(calibration)
        keep_use("recalibration", plan.model_dump(mode="json"), seconds=seconds, numbers=numbers, params=params)
    except Exception as error:
        logger.warning("this recalibration is not kept for MLflow: %s", one_line(error))


def calibration_numbers(calibration: Calibration) -> dict[str, float]:
    """A recalibration as metrics."""
    names = ("log_loss", "log_loss_se", "log_loss_before", "gain", "gain_se", "kept", "temperature", "tie_bias", "equal_share")
    return {f"recalibrate/{name}": float(getattr(calibration, name)) for name in (*names, "rows")}


def record_evaluation(plan_path: Path, battles: Path, submission: Path, lines: Sequence[Line], seconds: float) -> None:
    """Keep a submission's log loss and what it was beside; a line where that fails."""
    try:
        plan = load_plan(plan_path)
        params = _params(plan, battles) | {"submission": submission.name}
        dumped = plan.model_dump(mode="json")
        keep_use("evaluation", dumped, seconds=seconds, numbers=evaluation_numbers(lines), params=params)
    except Exception as error:
        logger.warning("this evaluation is not kept for MLflow: %s", one_line(error))


def evaluation_numbers(lines: Sequence[Line]) -> dict[str, float]:
    """An evaluation as metrics: log loss of the blend, and of each line beside it."""
    numbers: dict[str, float] = {}
    for line in lines:
        blend, name = line.name == BLEND, _name(line.name.partition(",")[0])
        numbers["evaluate/log_loss" if blend else f"evaluate/log_loss/{name}"] = line.log_loss
        if blend:
            numbers["evaluate/rows"] = float(line.rows)
            numbers |= {} if line.log_loss_se is None else {"evaluate/log_loss_se": line.log_loss_se}
        elif line.name.startswith(PROMISED) and line.z is not None:
            numbers["evaluate/z"] = line.z
    return numbers


def _params(plan: Plan, battles: Path) -> dict[str, str]:
    return {"target": plan.target.name, "plan_budget_seconds": f"{plan.budget_seconds:g}", "battles": battles.name}


def _name(text: str) -> str:
    """A name as MLflow allows it in a metric's."""
    return text.replace("@", "/").replace(" ", "_")
