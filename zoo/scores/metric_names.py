"""The list of metric names: what each logged metric means, its unit and direction.

A name in braces stands for what differs from run to run; `VALUES` lists what it can be where that is known. In a manifest the
metrics of one variant have its slug before them: `ab-512:val/log_loss`. A name that several modules use is a constant here.
`docs/metrics.md` is made from this list: `python scripts/metric_table.py --write`.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Literal

from zoo.contracts import LABELS

Unit = Literal[
    "nats",
    "seconds",
    "hours",
    "rows",
    "tokens",
    "tokens/s",
    "GiB",
    "MiB",
    "bytes",
    "share",
    "percent",
    "count",
    "yes or no",
    "",
]


@dataclass(frozen=True)
class Metric:
    """What a metric says.

    `better`: which direction is an improvement, if any; `title`: the header of its column in tables.
    """

    meaning: str
    unit: Unit
    better: Literal["lower", "higher", ""] = ""
    title: str = ""


LOG_LOSS, LOG_LOSS_SE, ROWS = "val/log_loss", "val/log_loss_se", "val/rows"
CALIBRATION_ERROR, REFINEMENT, ACCURACY = "val/calibration_error", "val/refinement", "val/acc"
LOAD_SECONDS, SECONDS_PER_ROW = "cost/load_seconds", "cost/seconds_per_row"
TOKENS_PER_ROW, HOURS_25K = "cost/tokens_per_row", "cost/hours_25k"
PEAK_GIB, WEIGHTS_GIB = "mem/peak_gib", "size/weights_gib"
FINER_SHARE = "quant/finer_share"
FITS_T4X2 = "t4x2/fits"
DELTA_LOG_LOSS, DELTA_LOG_LOSS_SE = "quant/delta_log_loss", "quant/delta_log_loss_se"
FAILED_ROWS, SHARED_ROWS, LEARNED_ROWS = "rows/failed", "rows/shared", "rows/learned"
MADE_ROWS, LEFT_OUT_ROWS = "made/rows", "made/rows_left_out"
JUDGE_GPU_SECONDS = "judge/gpu_seconds"
TRAIN_SHARE = "train/share_of_steps"
FLOAT16, LOSS_SCALE, SKIPPED_STEPS = "train/float16", "train/loss_scale", "train/skipped_steps"
TRAIN_LOSS, HELD_OUT_LOSS, TRAIN_SPEED = "train/loss", "held_out/log_loss", "train/tokens_per_second"

WITH_FINAL_VALUE = (TRAIN_LOSS, TRAIN_SPEED)  # curves whose last point is logged by the plain name too

FORMS = (  # of a model, from first to last: the ladder's steps
    *("base", "adapter", "merged", "awq", "engine"),
    *(f"{scheme}{where}" for scheme in ("int8", "w4a8", "fp8") for where in ("", "_engine")),
)
PARTS = ("short", "long", "one_turn", "more_turns", "english", "not_english")
STATUSES = ("ok", "cut", "empty", "loop", "too_long", "no_chat_template", "refused", "crashed", "stopped")
VALUES = {"label": LABELS, "part": PARTS, "form": FORMS, "status": STATUSES}

METRICS: dict[str, Metric] = {
    LOG_LOSS: Metric("mean log loss of the labelled rows, out of fold", "nats", "lower", "log loss"),
    LOG_LOSS_SE: Metric("its standard error", "nats", "", "se"),
    CALIBRATION_ERROR: Metric("log loss that the best temperature and label biases would take away", "nats", "lower", "calib."),
    REFINEMENT: Metric("log loss after that recalibration", "nats", "lower", "recalibrated"),
    ACCURACY: Metric("rows whose most probable label is theirs", "share", "higher", "acc"),
    ROWS: Metric("labelled rows that it was measured on", "rows", "", "rows"),
    "val/log_loss_{label}": Metric("mean log loss of the rows with that label", "nats", "lower"),
    "val/log_loss_{part}": Metric("mean log loss of a part of the rows: quarters by length, turns, language", "nats", "lower"),
    "val/log_loss_longest_quarter": Metric("mean log loss of the quarter with the most tokens", "nats", "lower"),
    "val/log_loss_before": Metric("held-out log loss before training", "nats", "lower"),
    "val/log_loss_whole_file": Metric("of the best plan in which every member sees every row", "nats", "lower"),
    "val/tokens_mean": Metric("tokens of a labelled row, as the model reads them", "tokens"),
    "baseline/log_loss_uniform": Metric("log loss of 1/3 for each label; of 1/2 where no battle can be a tie", "nats", "lower"),
    "baseline/log_loss_prior": Metric("log loss of these rows' own label shares", "nats", "lower"),
    "baseline/log_loss_{baseline}": Metric("of another way to combine the same members, out of fold", "nats", "lower"),
    "paired/{baseline}": Metric("the plan's log loss minus the baseline's, over the same rows", "nats", "lower"),
    HOURS_25K: Metric("scoring 25,000 such rows on the whole target, loading included", "hours", "lower", "25k rows h"),
    SECONDS_PER_ROW: Metric(
        "one more row, by one copy of the model; of a plan, by all",
        "seconds",
        "lower",
        "s/row",
    ),
    LOAD_SECONDS: Metric("from the start of the process to the first scored row", "seconds", "lower", "load s"),
    TOKENS_PER_ROW: Metric("tokens of a scored row", "tokens", "", "tokens/row"),
    "time/load_seconds": Metric("from the start of the stage's process to its first row", "seconds", "lower"),
    "time/run_seconds": Metric("the rest of the stage", "seconds", "lower"),
    PEAK_GIB: Metric("largest memory: of the fullest card where one was used, else of the process tree", "GiB", "lower", "GiB"),
    "mem/allocated_peak_gib": Metric("largest GPU memory that torch allocated in training so far", "GiB", "lower"),
    FITS_T4X2: Metric("whether the entry passes every check for two T4s", "yes or no", "higher"),
    "tune/trials": Metric("trials of a study of training settings", "count"),
    "tune/pruned": Metric("of these, trainings that were ended early", "count"),
    "tune/seconds": Metric("wall clock of a study's trainings, all its runs together", "seconds", "lower"),
    "tune/log_loss_own": Metric("of the entry's own settings on held-out rows that chose nothing", "nats", "lower"),
    "tune/log_loss_best": Metric("of the best trial on the same rows", "nats", "lower"),
    "tune/difference": Metric("best trial minus the entry's own settings on these rows, paired", "nats", "lower"),
    "tune/difference_se": Metric("its standard error, by prompts", "nats"),
    "tune/difference_chosen": Metric("the same on the rows that chose the best, where it flatters", "nats", "lower"),
    DELTA_LOG_LOSS: Metric("log loss of the quantized model minus that of the merged one, same rows", "nats", "lower"),
    DELTA_LOG_LOSS_SE: Metric("its standard error, of the paired differences", "nats"),
    "quant/weight_error_mean": Metric("relative error of a dequantized weight matrix, mean", "share", "lower"),
    "quant/weight_error_max": Metric("relative error of a dequantized weight matrix, largest", "share", "lower"),
    "quant/layer_error_mean": Metric("relative error of a layer's output on the calibration rows, mean", "share", "lower"),
    "quant/layer_error_max": Metric("relative error of a layer's output on the calibration rows, largest", "share", "lower"),
    "quant/label_kl": Metric("KL of label probabilities from the merged model's, on the calibration prompts", "nats", "lower"),
    FINER_SHARE: Metric("of the linear layers' products, what stays in 16 bits beside 8 bit activations", "share"),
    WEIGHTS_GIB: Metric("the weights on disk", "GiB", "lower"),
    "merge/largest_weight_change": Metric("largest change of any one weight by the adapter", ""),
    "merge/scale": Metric("factor of the adapter's update; of several adapters the mean", ""),
    FAILED_ROWS: Metric("rows that could not be scored", "rows", "lower", "failed"),
    "rows/truncated": Metric("rows that were cut to the token cap", "rows", "lower"),
    "rows/mean_tokens": Metric("tokens of a row", "tokens"),
    SHARED_ROWS: Metric("rows that are the same tokens in an earlier variant of the run, whose scores they have", "rows"),
    LEARNED_ROWS: Metric("rows that a model from elsewhere learned from, or near-copies: scored, never judged on", "rows"),
    "engine/replicas": Metric("copies of the model that scored side by side", "count"),
    "engine/restarts": Metric("engine processes that ended early and were started again", "count", "lower"),
    "engine/cached_tokens": Metric("tokens that the engine had computed for an earlier row", "tokens", "higher"),
    "engine/cached_share": Metric("their share of all tokens", "share", "higher"),
    "engine/loading_bytes": Metric("largest GPU memory that torch allocated while the model was loaded", "bytes", "lower"),
    "engine/allocated_bytes": Metric("largest GPU memory that torch allocated afterwards", "bytes", "lower"),
    "engine/card_bytes": Metric("what a card must have to run this", "bytes", "lower"),
    "generate/rows": Metric("rows of the log: prompts times samples", "rows"),
    "generate/made": Metric("answers that this run made", "count"),
    "generate/reused": Metric("answers that the store had already", "count", "higher"),
    "generate/tokens": Metric("tokens of the answers that it made", "tokens"),
    "generate/tokens_per_second": Metric("their speed, loading apart, by all copies of the model", "tokens/s", "higher"),
    "generate/gpu_seconds": Metric("of all GPUs, loading included", "seconds", "lower"),
    "generate/{status}_rows": Metric("rows of the log with that status", "rows"),
    "generate/not_asked_rows": Metric("rows that a ceiling kept from being begun", "rows"),
    TRAIN_LOSS: Metric("loss of the objective, mean of an optimizer step's rows", "nats", "lower"),
    "train/learning_rate": Metric("learning rate of the step", ""),
    TRAIN_SPEED: Metric("tokens learned from a second", "tokens/s", "higher"),
    TRAIN_SHARE: Metric("of the planned steps, those that were taken before `max_hours` or `patience` ended them", "share"),
    FLOAT16: Metric("whether training computed in float16, its loss scaled", "yes or no"),
    LOSS_SCALE: Metric("factor of the next step's loss in float16: halved where gradients overflow", ""),
    SKIPPED_STEPS: Metric("optimizer steps left out, since their gradients overflowed float16", "count", "lower"),
    "train/rows": Metric("rows that were learned from", "rows"),
    "train/padding_share": Metric("padding among the tokens of a forward pass", "share", "lower"),
    "train/rows_with_votes": Metric("rows whose target is their shares of votes", "rows"),
    "train/rows_with_teacher": Metric("rows of the main file that a teacher's table has", "rows"),
    "scale/log_loss": Metric("log loss on rows set apart, as a curve over percent of the trained update", "nats", "lower"),
    "scale/chosen": Metric("factor of the trained update with the lowest log loss there", ""),
    "scale/rows": Metric("rows set apart to choose it by", "rows"),
    "scale/held_out_log_loss": Metric("log loss of the held-out sample with that factor", "nats", "lower"),
    "train/extra_rows": Metric("rows of extra files that were learned from", "rows"),
    "train/extra_rows_left_out": Metric("their rows that the held-out fold or an earlier file rules out", "rows"),
    "train/extra_rows_near_copies": Metric("those of them that are near-copies of held-out prompts", "rows"),
    "train/extra_rows_with_votes": Metric("extra rows whose target is their shares of votes", "rows"),
    "train/extra_rows_with_teacher": Metric("extra rows that a teacher's table has", "rows"),
    MADE_ROWS: Metric("battles made by machine that a stage left", "rows"),
    LEFT_OUT_ROWS: Metric("pairs that it was given and left out", "rows"),
    JUDGE_GPU_SECONDS: Metric("of all GPUs that scored the pairs, loading included; 0 on processors", "seconds", "lower"),
    HELD_OUT_LOSS: Metric("log loss of the held-out sample as training goes", "nats", "lower"),
    "memory/checkpointed_layers": Metric("layers whose activations are computed again in the backward pass", "count", "lower"),
    "memory/kept_weights": Metric("whether dequantized weights are kept between passes", "yes or no", "higher"),
    "memory/on_host_gib": Metric("embedding and vocabulary's head that are in the host's memory instead", "GiB"),
    "memory/kept_mib_a_layer": Metric("what a layer that is not computed again keeps of the largest batch", "MiB", "lower"),
    "system/cpu_utilization_percentage": Metric("of all processors of the machine, while the stage runs", "percent"),
    "system/system_memory_usage_megabytes": Metric("memory of the machine that is in use, while the stage runs", "MiB"),
    "system/system_memory_usage_percentage": Metric("its share of all", "percent"),
    "system/gpu_{gpu}_utilization_percentage": Metric("time in which a GPU was busy, while the stage runs", "percent"),
    "system/gpu_{gpu}_memory_usage_megabytes": Metric("memory of a GPU that is in use, while the stage runs", "MiB"),
    "ladder/{form}/log_loss": Metric("mean log loss of that form of the model", "nats", "lower"),
    "ladder/{form}/log_loss_se": Metric("its standard error", "nats"),
    "ladder/{form}/change": Metric("its log loss minus that of the form before it, same rows", "nats", "lower"),
    "ladder/{form}/change_se": Metric("the change's standard error, of the paired differences", "nats"),
    "ladder/{form}/largest_probability_change": Metric("largest change of any probability from the form before it", "share"),
    "ladder/log_loss": Metric("log loss by form, as a curve over the steps", "nats", "lower"),
    "ladder/rows": Metric("labelled rows on the ladder", "rows"),
    "ladder/float32": Metric("whether the plain forms were computed in float32", "yes or no"),
    "caps/rows": Metric("labelled rows that variants were compared on", "rows"),
    "caps/{variant}/log_loss": Metric("mean log loss of a variant", "nats", "lower"),
    "caps/{variant}/log_loss_se": Metric("its standard error, by groups of near-copied prompts", "nats"),
    "caps/{variant}/change": Metric("its log loss minus that of the reference, same rows", "nats", "lower"),
    "caps/{variant}/change_se": Metric("the change's standard error, of the paired differences by groups of prompts", "nats"),
    "caps/{variant}/tokens_per_row": Metric("tokens of a row", "tokens", "lower"),
    "caps/{variant}/rows_cut": Metric("rows that were cut to the token cap", "rows", "lower"),
    "caps/{variant}/hours": Metric("of a file of such rows on the target, as forecast", "hours", "lower"),
    "caps/{variant}/worthwhile": Metric("whether it is worth its hours", "yes or no"),
    "budget_seconds": Metric("the plan's budget", "seconds"),
    "predicted_seconds": Metric("what the plan is predicted to take, without the margin", "seconds", "lower"),
    "margin": Metric("what the prediction is multiplied by before it must fit the budget", ""),
    "members": Metric("members of the plan", "count"),
    "predict/seconds": Metric("what a prediction took, from the start of its process", "seconds", "lower"),
    "predict/predicted_seconds": Metric("what it was predicted to take on its file, without the margin", "seconds"),
    "predict/rows": Metric("rows of the submission", "rows"),
    "predict/rows/{member}": Metric("rows that a member scored", "rows"),
    "predict/bad_rows": Metric("rows of the file that could not be read", "rows", "lower"),
    "predict/prior_share": Metric("rows of the submission that no member contributed to", "share", "lower"),
    "predict/log_loss": Metric("log loss of the submission, where the file has labels", "nats", "lower"),
    "predict/log_loss_se": Metric("its standard error", "nats"),
    "predict/distance/{feature}": Metric("of its rows from those of the plan's promise: 0 alike, 1 apart", "share", "lower"),
    "recalibrate/log_loss": Metric("out-of-fold log loss of a recalibrated plan on labelled battles", "nats", "lower"),
    "recalibrate/log_loss_se": Metric("its standard error", "nats"),
    "recalibrate/log_loss_before": Metric("of the same plan without calibration on the same battles", "nats", "lower"),
    "recalibrate/gain": Metric("the difference of the two", "nats", "higher"),
    "recalibrate/gain_se": Metric("its standard error", "nats"),
    "recalibrate/kept": Metric("whether the calibration was taken", "yes or no"),
    "recalibrate/temperature": Metric("what the blend's log-probabilities are divided by", ""),
    "recalibrate/tie_bias": Metric("what is added to the logit of a tie", "nats"),
    "recalibrate/equal_share": Metric("share of equal weights in the blend", "share"),
    "recalibrate/rows": Metric("labelled battles that it was fitted on", "rows"),
    "evaluate/log_loss": Metric("log loss of a submission on labelled battles", "nats", "lower"),
    "evaluate/log_loss_se": Metric("its standard error", "nats"),
    "evaluate/log_loss/{prediction}": Metric(
        "of uniform, the prior, equal weights, each member, and the promise", "nats", "lower"
    ),
    "evaluate/z": Metric("log loss above the promise, in standard errors of the difference", ""),
    "board/public": Metric("what the competition's public board said of a plan's submission", "nats", "lower"),
    "board/private": Metric("what its private board said", "nats", "lower"),
    "promise/log_loss": Metric("what the plan of a submission had promised", "nats", "lower"),
    "promise/log_loss_se": Metric("its standard error", "nats"),
    "evaluate/rows": Metric("labelled battles that it was measured on", "rows"),
    "weight/{member}": Metric("a member's weight in the blend of all members", "share"),
    "coverage/{member}": Metric("rows that a member scores", "share"),
    "study/trials": Metric("trials of the study that stood beside the exact search", "count"),
    "study/feasible": Metric("share of them whose plan fits the budget", "share", "higher"),
    "search/gap": Metric("in-sample log loss above the lower bound of every affordable set", "nats", "lower"),
    "curve/{curve}": Metric("points over the steps of a metric whose final value has the plain name", ""),
}

# What people look at first: MLflow lists a run's metrics in the order they were logged, and its comparison draws the first.
HEADLINES = (
    *(LOG_LOSS, LOG_LOSS_SE, CALIBRATION_ERROR, REFINEMENT, ACCURACY),
    *(HOURS_25K, SECONDS_PER_ROW, PEAK_GIB, FITS_T4X2, DELTA_LOG_LOSS),
)


def find_metric(name: str) -> Metric | None:
    """The metric of a logged name, with or without a variant's slug before it.

    None where it is not in the list.
    """
    name = name.rpartition(":")[2]
    if name in METRICS:
        return METRICS[name]
    return next((METRICS[pattern] for pattern, form in _patterns().items() if form.fullmatch(name)), None)


@functools.cache
def _patterns() -> dict[str, re.Pattern[str]]:
    """Names with braces as regular expressions."""
    return {name: re.compile(re.sub(r"\\{(\w+)\\}", _choices, re.escape(name))) for name in METRICS if "{" in name}


def _choices(found: re.Match[str]) -> str:
    return f"(?:{'|'.join(VALUES[found[1]])})" if found[1] in VALUES else ".+"
