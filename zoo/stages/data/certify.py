"""Judges on trial: each one's certificate and map, or why it has none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from zoo.contracts import Drop, LabelRequest
from zoo.data.battles import Battles, join_turns
from zoo.data.columns import MODEL_COLUMNS, TEXT_COLUMNS
from zoo.data.filters import reasons
from zoo.data.judges import Judged, both_orders, shared_with_humans
from zoo.data.splits import NEAR_PROMPTS, group_hashes, prompt_groups
from zoo.errors import ZooError
from zoo.reading import read_json_object
from zoo.scores.certificate import LEAST_PROMPTS, WITH_LENGTH, Certificate, certify, longer_wins
from zoo.scores.vote_map import VoteMap, fit_vote_map, length_ratio
from zoo.stages import progress

GENERATORS = ("generator_a", "generator_b")
FEW_MODELS, NEARLY_ALL = 2, 0.9  # models that nearly all pairs have one of: their style is learned in the place of quality


@dataclass
class Judge:
    """One judge of the pairs: its certificate and map, or why it is refused.

    `borrowed`: whose map it is, where it is another judge's or an earlier one. `origin`: whether it has learned from the human
    battles, as far as that is known.
    """

    name: str
    certificate: Certificate | None = None
    map: VoteMap | None = None
    borrowed: str = ""
    origin: str = ""
    fault: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    filters: list[dict[str, Any]] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """What the report says of it."""
        return {
            "certificate": self.certificate.model_dump() if self.certificate else None,
            "map": self.map.model_dump() if self.map else None,
            "borrowed": self.borrowed,
            "human_verdicts": self.origin,
            "fault": self.fault,
            "all_rows": self.facts,
            "filters": self.filters,
        }

    def warnings(self) -> list[str]:
        """What its certificate does not say of its rows."""
        if self.fault:
            return [f"{self.name}: refused, {self.fault}"]
        told, facts = [], self.facts
        if self.map is not None and self.map.margin[0] < 0:
            told.append(
                f"{self.name}: humans prefer what it does not, so its labels say the opposite of its verdicts; "
                "see whether A and B are exchanged in its table or in the human battles"
            )
        if facts["reference_share"] and facts["models"] > 2 * FEW_MODELS and facts["reference_share"] >= NEARLY_ALL:
            told.append(
                f"{self.name}: {facts['reference_share']:.0%} of its pairs have {' or '.join(facts['commonest'])} on one side: "
                "a model that learns from them learns that style and not quality, and none of their held-out rows tells; "
                "mine pairs of all models, and judge those"
            )
        if self.borrowed and self.certificate:
            here, there = facts["judge_longer"] or 0, self.certificate.judge_longer or 0
            told.append(
                f"{self.name}: its map is {self.borrowed}'s, and nobody has measured it here: ties {facts['judge_ties']:.0%}, "
                f"longer wins {here:.0%}, against {self.certificate.judge_ties:.0%} and {there:.0%} there"
            )
        return told


def certified(request: LabelRequest, pairs: Judged, human: Judged) -> dict[str, Judge]:
    """Every judge of the pairs, with its certificate and map or why it has none."""
    earlier = _earlier_maps(request)
    frame = human.battles.frame
    voted = (frame["label"] >= 0).to_numpy()
    found = {}
    for name in sorted({*pairs.verdicts.judge.tolist()} - {""}):
        judge = found[name] = Judge(name)
        progress.note(f"certifying {name}")
        shared = shared_with_humans(name, pairs, human, voted)
        _certify(judge, frame.iloc[shared.places].reset_index(drop=True), shared.p, request)
        if judge.certificate is None and earlier:
            _borrow(judge, earlier)
        judge.facts |= _facts(pairs, name)
    return found


def _certify(judge: Judge, rows: pd.DataFrame, p: np.ndarray, request: LabelRequest) -> None:
    """Give a judge its certificate and map, by the human battles that it judged too, or say what is wrong."""
    groups = prompt_groups(rows, NEAR_PROMPTS) if len(rows) else np.empty(0)
    count = len(np.unique(groups))
    if count < LEAST_PROMPTS:
        judge.fault = (
            f"humans judged battles of {count} of its prompts (near-copies count once), and {LEAST_PROMPTS} are needed"
        )
        return
    y, lengths = rows["label"].to_numpy(dtype=np.int64), lengths_of(rows)
    flags = reasons(request.drop, rows, fit_vote_map(p, lengths, y, by_length=True).apply(p, lengths), request.languages)
    whole = certify(p, lengths, y, groups)
    left = ~np.any([np.zeros(len(rows), dtype=bool), *flags.values()], axis=0)
    if len(np.unique(groups[left])) < LEAST_PROMPTS:
        judge.fault = f"--drop leaves battles of fewer than {LEAST_PROMPTS} prompts that humans judged too"
        return
    judge.certificate = whole if left.all() else certify(p[left], lengths[left], y[left], groups[left])
    judge.fault = judge.certificate.fault
    judge.map = fit_vote_map(p[left], lengths[left], y[left], by_length=True)
    judge.filters = [_effect(drop, flag, whole, p, lengths, y, groups) for drop, flag in flags.items()]


def _effect(
    drop: Drop, flag: np.ndarray, whole: Certificate, p: np.ndarray, lengths: np.ndarray, y: np.ndarray, groups: np.ndarray
) -> dict[str, Any]:
    """What a filter by itself does to the certificate: rows, and gain over the prior before and after."""
    record: dict[str, Any] = {"filter": drop, "certificate_rows_lost": int(flag.sum()), "gain": whole.step(WITH_LENGTH).gain}
    left = ~flag
    enough = len(np.unique(groups[left])) >= LEAST_PROMPTS
    after = certify(p[left], lengths[left], y[left], groups[left]) if flag.any() and enough else whole
    return record | {"gain_after": after.step(WITH_LENGTH).gain if enough else None}


def lengths_of(frame: pd.DataFrame) -> np.ndarray:
    """Log of A's characters over B's of each row of a battles frame: float64, (rows,)."""
    a, b = (np.array([len(join_turns(turns)) for turns in frame[name]]) for name in TEXT_COLUMNS[1:])
    return length_ratio(a, b)


def _earlier_maps(request: LabelRequest) -> dict[str, tuple[VoteMap, Certificate]]:
    """Maps and certificates of an earlier label's report, by judge."""
    if request.maps is None:
        return {}
    path, mend = request.maps.path, "give the report of a `zoo data label` that made labels"
    judges = read_json_object(path, mend=mend).get("judges")
    try:
        return {
            name: (VoteMap.model_validate(record["map"]), Certificate.model_validate(record["certificate"]))
            for name, record in (judges.items() if isinstance(judges, dict) else ())
            if record["map"] and record["certificate"] and not record["fault"]
        }
    except (ValidationError, KeyError, TypeError) as error:
        raise ZooError(f"{path}: no maps that can be read ({str(error).splitlines()[0]}); {mend}") from error


def _borrow(judge: Judge, earlier: Mapping[str, tuple[VoteMap, Certificate]]) -> None:
    """Give a judge that no human can speak for the map of its name, or the one that most prompts stand behind."""
    name = judge.name if judge.name in earlier else max(earlier, key=lambda known: (earlier[known][1].prompts, known))
    judge.map, judge.certificate = earlier[name]
    judge.borrowed, judge.fault = name, judge.certificate.fault


def _facts(pairs: Judged, judge: str) -> dict[str, Any]:
    """Shares of all rows that a judge has judged, where they say something of how it judges or whom."""
    own = pairs.verdicts.judge == judge
    frame, p = pairs.battles.frame[own], pairs.verdicts.p[own]
    orders, same = both_orders(pairs, judge)
    consistency = pairs.verdicts.consistency[own]
    models = _models(pairs.battles, own)
    known = not np.isnan(consistency).all()
    return {
        "rows": int(own.sum()),
        "prompt_groups": len(np.unique(group_hashes(frame, NEAR_PROMPTS))),
        "judge_ties": float(p[:, 2].mean()),
        "judge_longer": longer_wins(p, lengths_of(frame)),
        "both_orders": orders,
        "same_in_both_orders": same,
        "tables_agree": float(np.nanmean(consistency)) if known else None,
        **_commonest(models),
    }


def _models(pairs: Battles, rows: np.ndarray) -> pd.DataFrame | None:
    names = next((names for names in (MODEL_COLUMNS, GENERATORS) if set(names) <= set(pairs.kept)), None)
    return pairs.kept.loc[pairs.frame["id"][rows], list(names)] if names else None


def _commonest(models: pd.DataFrame | None) -> dict[str, Any]:
    """The model that most pairs have one of, and the second of those that it is not in, with the share that has either."""
    if models is None or models.empty:
        return {"models": 0, "commonest": [], "commonest_share": None, "reference_share": None}
    a, b = (models.iloc[:, side].to_numpy() for side in (0, 1))
    left, names, shares = np.ones(len(a), dtype=bool), [], []
    for _ in range(FEW_MODELS):
        counts = Counter([*a[left], *b[left & (a != b)]])
        if counts:
            names.append(counts.most_common(1)[0][0])
            left &= (a != names[-1]) & (b != names[-1])
            shares.append(1 - float(left.mean()))
    return {"models": len({*a, *b}), "commonest": names, "commonest_share": shares[0], "reference_share": shares[-1]}
