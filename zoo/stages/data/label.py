"""The label stage: judges' verdicts on pairs become shares of human votes, or are refused.

Each judge's map is fitted on the battles that humans judged too, and its certificate says what that is worth. No verdict of a
judge without a certificate becomes a label.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from zoo.contracts import Drop, LabelRequest, Measurements, StageResult
from zoo.data.battles import Battles, join_turns, read_battles
from zoo.data.columns import MODEL_COLUMNS, TEXT_COLUMNS, VOTES, WINNER_COLUMNS
from zoo.data.filters import reasons
from zoo.data.judges import LOG_IDS, Verdicts, both_orders, own_verdicts, read_verdicts, shared_with_humans
from zoo.data.made import OK, PAIRS, REPORT, STATUS, write_pairs
from zoo.data.splits import NEAR_PROMPTS, group_hashes, prompt_groups
from zoo.data.tally import Tally
from zoo.errors import ZooError
from zoo.reading import read_json_object
from zoo.scores.certificate import LEAST_PROMPTS, WITH_LENGTH, Certificate, certify, longer_wins, verdict_labels
from zoo.scores.metric_names import LEFT_OUT_ROWS, MADE_ROWS
from zoo.scores.vote_map import VoteMap, fit_vote_map, length_ratio
from zoo.stages import progress
from zoo.store import write_atomic
from zoo.targets import process_age_seconds

SOURCES, LICENCES = ("source", "dataset"), ("licence", "license")
GENERATORS = ("generator_a", "generator_b")
CARRIED = (*SOURCES, *LICENCES, *MODEL_COLUMNS, *GENERATORS, *LOG_IDS, "language", "prompt_group")
BAD_ROW, UNJUDGED, REFUSED = "bad row: see `zoo data validate`", "unjudged", "refused: its judge has no certificate"
FEW_MODELS, NEARLY_ALL = 2, 0.9  # models that nearly all pairs have one of: their style is learned in the place of quality
MOST_SHOWN = 3


@dataclass
class Judge:
    """One judge of the pairs: its certificate and map, where the map is from, or why it is refused."""

    name: str
    certificate: Certificate | None = None
    map: VoteMap | None = None
    borrowed: str = ""
    fault: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    filters: list[dict[str, Any]] = field(default_factory=list)


def run(request: LabelRequest, out_dir: Path) -> StageResult:
    """Write `pairs.parquet` (rows with labels), `rows.parquet` (each row's status and reason) and `report.json`."""
    load_seconds, started, tally = process_age_seconds(), time.monotonic(), Tally()
    pairs = read_battles(request.pairs.path, keep=CARRIED)
    human = read_battles(request.human.path)
    progress.note(f"{len(pairs.frame):,} pairs, {int((human.frame['label'] >= 0).sum()):,} battles that humans judged")
    sources = _column(pairs, SOURCES, request.source)
    if request.judges:
        on_pairs, on_human = read_verdicts([given.path for given in request.judges], request.names, pairs, human, tally)
    else:
        on_pairs, on_human = own_verdicts(pairs, sources), Verdicts.none(len(human.frame))
    judges = certified(request, pairs, on_pairs, human, on_human)
    shares = _shares(judges, pairs.frame, on_pairs)
    status, dropped = _status(request, judges, pairs.frame, on_pairs, shares)
    if not (status == OK).any():
        raise ZooError(_nothing(request, judges, status, tally))
    write_pairs(out_dir / PAIRS, _records(pairs, sources, on_pairs, shares, status))
    told = pd.concat([pd.DataFrame({"id": pairs.frame["id"], STATUS: status}), pd.DataFrame({"id": pairs.bad_ids, STATUS: BAD_ROW})])
    write_pairs(out_dir / "rows.parquet", iter(told.astype(str).to_dict("records")))
    kept = int((status == OK).sum())
    report = {
        "stage": request.stage,
        "rows": kept,
        "counts": [{"what": "pairs", "reason": reason, "count": count, "example": ""} for reason, count in _counts(told[STATUS])],
        "verdicts_left_out": tally.records(),
        "filters": dropped,
        "judges": {judge.name: _record(judge) for judge in judges.values()},
        "warnings": _warnings(judges, int((_column(pairs, LICENCES, "")[status == OK] == "").sum())),
        "inputs": [{"file": given.path.name, "digest": given.fingerprint} for given in (request.pairs, *request.judges, request.human)],
        "seconds": round(time.monotonic() - started, 3),
    }
    write_atomic(out_dir / REPORT, json.dumps(report, indent=1, ensure_ascii=False))
    measured = Measurements(load_seconds=load_seconds, run_seconds=time.monotonic() - started, rows=len(pairs.frame))
    return StageResult(metrics={MADE_ROWS: float(kept), LEFT_OUT_ROWS: float(len(told) - kept)}, measurements=measured)


def certified(
    request: LabelRequest, pairs: Battles, on_pairs: Verdicts, human: Battles, on_human: Verdicts
) -> dict[str, Judge]:
    """Every judge of the pairs, with its certificate and map or why it has none."""
    earlier = _earlier_maps(request)
    judged = (human.frame["label"] >= 0).to_numpy()
    found = {}
    for name in sorted({*on_pairs.judge.tolist()} - {""}):
        judge = found[name] = Judge(name)
        shared = shared_with_humans(name, pairs, on_pairs, human, on_human, judged)
        rows = human.frame.iloc[shared.places].reset_index(drop=True)
        _certify(judge, rows, shared.p, request.drop)
        if judge.certificate is None and earlier:
            _borrow(judge, earlier)
        judge.facts |= _facts(pairs, on_pairs, name)
    return found


def _certify(judge: Judge, rows: pd.DataFrame, p: np.ndarray, drops: tuple[Drop, ...]) -> None:
    """Give a judge its certificate and map, by the human battles that it judged too, or say what is wrong."""
    groups = prompt_groups(rows, NEAR_PROMPTS) if len(rows) else np.empty(0)
    count = len(np.unique(groups))
    if count < LEAST_PROMPTS:
        judge.fault = f"humans judged battles of {count} of its prompts (near-copies count once), and {LEAST_PROMPTS} are needed"
        return
    y, lengths = rows["label"].to_numpy(dtype=np.int64), lengths_of(rows)
    flags = reasons(drops, rows, fit_vote_map(p, lengths, y, by_length=True).apply(p, lengths))
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


def _facts(pairs: Battles, verdicts: Verdicts, judge: str) -> dict[str, Any]:
    """Shares of all rows that a judge has judged, where they say something of how it judges or whom."""
    own = verdicts.judge == judge
    frame, p = pairs.frame[own], verdicts.p[own]
    orders, same = both_orders(pairs, verdicts, judge)
    consistency = verdicts.consistency[own]
    models = _models(pairs, own)
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


def _shares(judges: Mapping[str, Judge], frame: pd.DataFrame, verdicts: Verdicts) -> np.ndarray:
    """Shares of votes (rows, 3), NaN where a row has no judge or its judge no map."""
    lengths, shares = lengths_of(frame), np.full((len(frame), 3), np.nan)
    for judge in judges.values():
        own = verdicts.judge == judge.name
        if judge.map is not None and not judge.fault:
            shares[own] = judge.map.apply(verdicts.p[own], lengths[own])
    return shares


def _status(
    request: LabelRequest, judges: Mapping[str, Judge], frame: pd.DataFrame, verdicts: Verdicts, shares: np.ndarray
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Why each row has no label, or OK, and how many rows each filter loses by itself."""
    status = np.full(len(frame), OK, dtype=object)
    labelled = np.isfinite(shares).all(axis=1)
    places, dropped = np.flatnonzero(labelled), []
    flags = reasons(request.drop, frame[labelled].reset_index(drop=True), shares[labelled])
    for drop in reversed(request.drop):  # the first of those that apply is the reason
        status[places[flags[drop]]] = drop
    for drop in request.drop:
        dropped.append({"filter": drop, "rows_lost": int(flags[drop].sum()), "rows": len(places)})
    status[~labelled] = REFUSED
    status[verdicts.judge == ""] = UNJUDGED
    return status, dropped


def _records(
    pairs: Battles, sources: np.ndarray, verdicts: Verdicts, shares: np.ndarray, status: np.ndarray
) -> Iterator[dict[str, Any]]:
    """The rows with labels, as rows of a file of battles."""
    carried = [name for name in CARRIED if name in pairs.kept and name not in (*SOURCES, *LICENCES)]
    licences = _column(pairs, LICENCES, "")
    groups = group_hashes(pairs.frame, NEAR_PROMPTS) if "prompt_group" not in carried else None
    kept, labels = pairs.kept.loc[pairs.frame["id"], carried].to_numpy(), verdict_labels(shares)
    with progress.bar(int((status == OK).sum()), "write", "pair") as bar:
        for place in np.flatnonzero(status == OK).tolist():
            row = pairs.frame.iloc[place]
            yield {
                "id": row["id"],
                **{name: json.dumps(row[name], ensure_ascii=False) for name in TEXT_COLUMNS},
                **{name: int(labels[place] == label) for label, name in enumerate(WINNER_COLUMNS)},
                **{name: round(float(shares[place, label]), 6) for label, name in enumerate(VOTES)},
                "source": sources[place],
                "licence": licences[place],
                **dict(zip(carried, kept[place], strict=True)),
                **({} if groups is None else {"prompt_group": f"{groups[place]:016x}"}),
                "judge": verdicts.judge[place],
                "consistency": round(float(verdicts.consistency[place]), 6),  # NaN, which CSV leaves blank, where there is one table
                STATUS: OK,
            }
            bar.update()


def _column(pairs: Battles, names: tuple[str, ...], default: str) -> np.ndarray:
    """The first of some columns that a file has, by row, as text; `default` where it is blank."""
    name = next((name for name in names if name in pairs.kept), None)
    cells = pairs.kept.loc[pairs.frame["id"], name].tolist() if name else [""] * len(pairs.frame)
    return np.array([cell.strip() or default for cell in cells], dtype=object)


def _counts(status: pd.Series) -> list[tuple[str, int]]:
    return [(str(reason), int(count)) for reason, count in status.value_counts().items()]


def _record(judge: Judge) -> dict[str, Any]:
    return {
        "certificate": judge.certificate.model_dump() if judge.certificate else None,
        "map": judge.map.model_dump() if judge.map else None,
        "borrowed": judge.borrowed,
        "fault": judge.fault,
        "all_rows": judge.facts,
        "filters": judge.filters,
    }


def _warnings(judges: Mapping[str, Judge], without_licence: int) -> list[str]:
    """What a certificate does not say of its judge's rows."""
    told = [f"{judge.name}: refused, {judge.fault}" for judge in judges.values() if judge.fault]
    for judge in judges.values():
        facts = judge.facts
        if facts["reference_share"] and facts["models"] > 2 * FEW_MODELS and facts["reference_share"] >= NEARLY_ALL:
            told.append(
                f"{judge.name}: {facts['reference_share']:.0%} of its pairs have {' or '.join(facts['commonest'])} on one side: a "
                "model that learns from them learns that style and not quality, and no held-out row of theirs tells; mine pairs "
                "of all models, and judge those"
            )
        if judge.borrowed and judge.certificate:
            told.append(
                f"{judge.name}: its map is {judge.borrowed}'s, and nobody has measured it here (ties {facts['judge_ties']:.0%} "
                f"against {judge.certificate.judge_ties:.0%} there)"
            )
    if without_licence:
        told.append(f"{without_licence:,} rows have no licence: who may use them is not known")
    return told


def _nothing(request: LabelRequest, judges: Mapping[str, Judge], status: np.ndarray, tally: Tally) -> str:
    """Why no row has a label, as one line with the mend."""
    path = request.pairs.path
    if not judges:
        left = "; ".join(f"{each['count']:,} {each['reason']}" for each in tally.records())
        mend = "give a table of these ids with --judge" if request.judges else "give labelled pairs, or a judge's table with --judge"
        return f"{path}: no judge says anything of its rows{f' ({left})' if left else ''}; {mend}"
    faults = [f"{judge.name}: {judge.fault}" for judge in judges.values() if judge.fault]
    if len(faults) == len(judges):
        more = f", and {len(faults) - MOST_SHOWN} judges more" if len(faults) > MOST_SHOWN else ""
        mend = "give --human battles that the judge has judged too, --map the report of a judge that was measured, or another judge"
        return f"{path}: refused: {'; '.join(faults[:MOST_SHOWN])}{more}; {mend}"
    return f"{path}: --drop leaves no row ({', '.join(f'{n:,} {reason}' for reason, n in _counts(pd.Series(status)))})"
