"""`ensemble recalibrate` and `build --calibrate-on`: fit a plan's calibration."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.members.texts import is_known, row_digests, script_of
from ensemble.plan import Calibration, Plan, RowSummary
from ensemble.pools.calibration import Fitted, blend_by_plan, equal_weights, fit_calibration
from ensemble.pools.features import row_features, summary_of
from ensemble.pools.gate import mask_of, spend
from ensemble.pools.patterns import gated_gain
from ensemble.predict.missing import Labelled, all_known
from ensemble.predict.replan import predicted_row_seconds
from zoo.contracts import FoldRule, Say
from zoo.data.battles import Battles, dataset_digest, labels_digest, text_lengths
from zoo.data.splits import prompt_groups
from zoo.data.usable import usable_battles
from zoo.errors import ZooError, amount
from zoo.scores.metrics import mean_and_error

_RULE: FoldRule = "near-prompts-1"  # near-copies of a prompt share a fold, and count as one


@dataclass(frozen=True)
class _Rows:
    """The labelled rows that are not in the fit and that every member of whole files has scored.

    `tables` (rows, 3) and `has` (rows,) by member; `also_in_fit` and `unscored`: how many others there are.
    """

    battles: Battles
    frame: pd.DataFrame
    tables: dict[str, np.ndarray]
    has: dict[str, np.ndarray]
    sources: dict[str, str]
    also_in_fit: int
    unscored: int

    @property
    def y(self) -> np.ndarray:
        y: np.ndarray = self.frame["label"].to_numpy(dtype=np.int64)
        return y


def recalibrate(plan: Plan, plan_path: Path, asked: Labelled, *, say: Say = lambda _: None) -> Plan:
    """The plan with a calibration fitted on labelled battles, in place of one that it has.

    `plan_path`: where the plan lies, for its name and to run members. ZooError where members' probabilities are missing (with
    their names and forecast seconds), where all rows are in the fit, or too few are left.
    """
    bare = plan.model_copy(update={"calibration": None})
    rows = _rows(bare, plan_path, asked, say)
    lengths = text_lengths(rows.frame) if rows.battles.has_texts else None
    if lengths is None and any(pool.blend.reads_lengths for pool in plan.pools):
        told = "has no texts, whose lengths the plan's trees read: calibrated without these trees; give the battles"
        say(f"warning: {asked.path}: {told}")
    characters = np.zeros(len(rows.frame)) if lengths is None else lengths.sum(axis=1)
    has = _as_gated(bare, rows.tables, rows.has, characters)
    p = blend_by_plan(bare, rows.tables, has, as_planned=np.ones(len(rows.frame), dtype=bool), lengths=lengths).p
    equal = equal_weights(rows.tables, has, ties=plan.ties)
    groups = prompt_groups(rows.frame, _RULE if rows.battles.has_texts else None)
    try:
        fitted = fit_calibration(p, equal, rows.y, groups, ties=plan.ties)
    except ValueError as error:
        raise ZooError(f"{asked.path}: {error}") from error
    summary = _summary(bare, rows, characters)
    digest = hashlib.sha256(bare.model_dump_json().encode()).hexdigest()[:12]
    calibration = _calibration(rows, fitted, groups, summary, made_from=f"{plan_path.name} {digest}")
    return plan.model_copy(update={"calibration": calibration})


def _rows(plan: Plan, plan_path: Path, asked: Labelled, say: Say) -> _Rows:
    names = [member.name for member in plan.members]
    if strangers := [name for name in asked.scores if name not in names]:
        raise ZooError(f"--scores {strangers[0]}=...: the plan has no member {strangers[0]!r}; it has {', '.join(names)}")
    battles = usable_battles(asked.path, say=say, most_bad=asked.most_bad, need_texts=False)
    if not battles.labelled:
        raise ZooError(f"{asked.path}: has no winner columns; give labelled battles")
    if battles.can_tie != plan.ties:
        kinds = "can be ties, and the plan knows none" if battles.can_tie else "cannot be ties, and the plan's can"
        raise ZooError(f"{asked.path}: its battles {kinds}; give battles of the plan's kind")
    frame = battles.frame[battles.frame["label"] >= 0].reset_index(drop=True)
    in_fit = rows_in_fit(plan, battles, frame, say)
    frame = frame[~in_fit].reset_index(drop=True)
    if frame.empty:
        raise ZooError(f"{asked.path}: the plan was fitted on all of its {amount(len(in_fit), 'labelled row')}; give others")
    known = all_known(plan, plan_path, battles, frame, asked, say)
    has = known.has()
    scored = np.all([has[member.name] for member in plan.members if member.gate is None], axis=0)
    if not scored.all():
        say(f"{int((~scored).sum()):,} of {amount(len(frame), 'row')} left out: without some member")
    return _Rows(
        battles,
        frame[scored].reset_index(drop=True),
        {name: table[scored] for name, table in known.tables.items()},
        {name: on[scored] for name, on in has.items()},
        known.sources,
        int(in_fit.sum()),
        int((~scored).sum()),
    )


def rows_in_fit(plan: Plan, battles: Battles, frame: pd.DataFrame, say: Say = lambda _: None) -> np.ndarray:
    """Which rows, bool (rows,), the plan was fitted on, by their texts.

    Where the plan or the file has no texts it can only be told for a whole file, and that is said.
    """
    if plan.dataset_digest in (dataset_digest(battles), labels_digest(battles)):
        return np.ones(len(frame), dtype=bool)
    if plan.fitting is None or not plan.fitting.known or not battles.has_texts:
        what = "the file has no texts" if not battles.has_texts else "the plan does not know its fitting rows again"
        say(f"warning: {what}: rows that are also in the fit cannot be told from others, and flatter what they are judged by")
        return np.zeros(len(frame), dtype=bool)
    found = is_known(plan.fitting.known, row_digests(frame))
    if found.any():
        say(f"{int(found.sum()):,} of {amount(len(frame), 'row')} left out: also in the plan's fit")
    return found


def _as_gated(
    plan: Plan, tables: Mapping[str, np.ndarray], has: Mapping[str, np.ndarray], characters: np.ndarray
) -> dict[str, np.ndarray]:
    """The rows, bool (rows,), that each member would see in a prediction of these battles: all, or those its gate takes."""
    reach = {member.name: has[member.name] for member in plan.members if member.gate is None}
    for member in plan.members:
        if member.gate is not None:
            gain = gated_gain(member.gate, plan.pools, tables, reach, characters, otherwise=np.inf)
            seconds = predicted_row_seconds(member, characters)
            share = member.coverage if member.work_share is None else member.work_share
            order, count = spend(gain, seconds, share * float(seconds.sum()))
            reach[member.name] = has[member.name] & mask_of(order[:count], len(characters))
    return reach


def _summary(plan: Plan, rows: _Rows, characters: np.ndarray) -> RowSummary:
    names = [member.name for member in plan.members if member.gate is None]
    features = row_features(np.stack([rows.tables[name] for name in names]), characters)
    return summary_of(features, [script_of(turns) for turns in rows.frame["prompt"]] if rows.battles.has_texts else [])


def _calibration(rows: _Rows, fitted: Fitted, groups: np.ndarray, summary: RowSummary, *, made_from: str) -> Calibration:
    before, before_error = mean_and_error(fitted.before, groups)
    after, after_error = mean_and_error(fitted.after, groups)
    return Calibration(
        temperature=fitted.numbers.temperature,
        tie_bias=fitted.numbers.tie_bias,
        equal_share=fitted.numbers.equal_share,
        kept=fitted.kept,
        battles=rows.battles.path.name,
        dataset_digest=dataset_digest(rows.battles),
        rows=len(rows.y),
        prompts=len(np.unique(groups)),
        also_in_fit=rows.also_in_fit,
        unscored=rows.unscored,
        log_loss_before=before,
        log_loss_before_se=before_error,
        log_loss=after,
        log_loss_se=after_error,
        gain=fitted.gain,
        gain_se=fitted.gain_se,
        members_from=rows.sources,
        made_from=made_from,
        made_at=datetime.now(UTC),
        summary=summary,
    )
