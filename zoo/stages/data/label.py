"""The label stage: judges' verdicts on pairs become shares of human votes, or are refused.

Each judge's map is fitted on the battles that humans judged too, and its certificate says what that is worth. No verdict of a
judge without a certificate becomes a label.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from zoo.contracts import LabelRequest, Measurements, StageResult, inputs_of
from zoo.data.battles import Battles
from zoo.data.columns import MODEL_COLUMNS, TEXT_COLUMNS, VOTES, WINNER_COLUMNS
from zoo.data.filters import reasons
from zoo.data.judges import LOG_IDS, Judged, Verdicts, own_verdicts, read_verdicts
from zoo.data.languages import language_of_turns
from zoo.data.made import OK, PAIRS, REPORT, STATUS, write_pairs
from zoo.data.splits import NEAR_PROMPTS, group_hashes
from zoo.data.tally import Tally
from zoo.data.usable import read_rows, unkeyed_records, unusable_line
from zoo.errors import ZooError
from zoo.scores.certificate import verdict_labels
from zoo.scores.metric_names import LEFT_OUT_ROWS, MADE_ROWS
from zoo.stages import progress
from zoo.stages.data.certify import GENERATORS, Judge, certified, lengths_of
from zoo.stages.data.origins import UNKNOWN, origins
from zoo.store import write_atomic
from zoo.targets import process_age_seconds

SOURCES, LICENCES = ("source", "dataset"), ("licence", "license")
LANGUAGE = "language"  # the row's own where it has one, else the prompt's
CARRIED = (*SOURCES, *LICENCES, *MODEL_COLUMNS, *GENERATORS, *LOG_IDS, LANGUAGE, "prompt_group")
BAD_ROW, UNJUDGED, REFUSED = "bad row: see `zoo data validate`", "unjudged", "refused: its judge has no certificate"
MOST_SHOWN = 3


def run(request: LabelRequest, out_dir: Path) -> StageResult:
    """Write `pairs.parquet`, `rows.parquet` and `report.json`.

    The first has the rows with labels, the second the status of every row, which is the reason of those without.
    """
    load_seconds, started, tally = process_age_seconds(), time.monotonic(), Tally()
    pairs, human = read_rows(request.pairs.path, CARRIED, models=True), read_rows(request.human.path)
    progress.note(f"{len(pairs.frame):,} pairs, {int((human.frame['label'] >= 0).sum()):,} battles that humans judged")
    sources = _column(pairs, SOURCES, request.source)
    known: dict[str, str] = {}
    if request.judges:
        paths = [given.path for given in request.judges]
        on_pairs, on_human, tables = read_verdicts(paths, request.names, pairs, human, tally)
        known = {" + ".join(tables): "; ".join(dict.fromkeys(origins(paths, tables, request.names, pairs, human).values()))}
    else:
        on_pairs, on_human = own_verdicts(pairs, sources), Verdicts.none(len(human.frame))
    progress.note("comparing them")
    judges = certified(request, Judged.of(pairs, on_pairs), Judged.of(human, on_human))
    for judge in judges.values():
        judge.origin = known.get(judge.name, UNKNOWN)
    shares = _shares(judges, pairs.frame, on_pairs)
    status, dropped = _status(request, judges, pairs.frame, on_pairs, shares)
    if not (status == OK).any():
        raise ZooError(_nothing(request, judges, status, tally))
    write_pairs(out_dir / PAIRS, _records(pairs, sources, on_pairs, shares, status))
    told = [*zip(pairs.frame["id"], status, strict=True), *((row_id, BAD_ROW) for row_id in pairs.bad_ids)]
    write_pairs(out_dir / "rows.parquet", [{"id": row_id, STATUS: reason} for row_id, reason in told])
    counts = Counter(reason for _, reason in told)
    first = {reason: row_id for row_id, reason in reversed(told)}
    report = {
        "stage": request.stage,
        "rows": counts[OK],
        "totals": {"pairs": len(told)},
        "counts": [
            *(
                {"what": "pairs", "reason": each, "count": count, "example": "" if each == OK else first[each]}
                for each, count in counts.most_common()
            ),
            *(record for battles in (pairs, human) for record in unkeyed_records(battles)),
        ],
        "verdicts_left_out": tally.records(),
        "filters": dropped,
        "judges": {judge.name: judge.record() for judge in judges.values()},
        "warnings": [warning for judge in judges.values() for warning in judge.warnings()] + _of_files(pairs, human, status),
        "inputs": [{"file": given.path.name, "digest": given.fingerprint} for given in inputs_of(request)],
        "seconds": round(time.monotonic() - started, 3),
    }
    write_atomic(out_dir / REPORT, json.dumps(report, indent=1, ensure_ascii=False))
    metrics = {MADE_ROWS: float(counts[OK]), LEFT_OUT_ROWS: float(len(told) - counts[OK])}
    measured = Measurements(load_seconds=load_seconds, run_seconds=time.monotonic() - started, rows=len(pairs.frame))
    return StageResult(metrics=metrics, measurements=measured)


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
    flags = reasons(request.drop, frame[labelled].reset_index(drop=True), shares[labelled], request.languages)
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
                LANGUAGE: language_of_turns(row["prompt"]),
                **{name: cell for name, cell in zip(carried, kept[place], strict=True) if name != LANGUAGE or cell.strip()},
                **({} if groups is None else {"prompt_group": f"{groups[place]:016x}"}),
                "judge": verdicts.judge[place],
                "consistency": round(
                    float(verdicts.consistency[place]), 6
                ),  # NaN, which CSV leaves blank, where there is one table
                STATUS: OK,
            }
            bar.update()


def _column(pairs: Battles, names: tuple[str, ...], default: str) -> np.ndarray:
    """The first of some columns that a file has, by row, as text; `default` where it is blank."""
    name = next((name for name in names if name in pairs.kept), None)
    cells = pairs.kept.loc[pairs.frame["id"], name].tolist() if name else [""] * len(pairs.frame)
    return np.array([cell.strip() or default for cell in cells], dtype=object)


def _of_files(pairs: Battles, human: Battles, status: np.ndarray) -> list[str]:
    """What is to be told of the files themselves."""
    told = []
    if count := int((_column(pairs, LICENCES, "")[status == OK] == "").sum()):
        told.append(f"{count:,} rows have no licence: who may use them is not known")
    return told + [f"{battles.path.name}: {unusable_line(battles)}" for battles in (pairs, human) if battles.bad_ids]


def _nothing(request: LabelRequest, judges: Mapping[str, Judge], status: np.ndarray, tally: Tally) -> str:
    """Why no row has a label, as one line with the mend."""
    path = request.pairs.path
    if not judges:
        left = "; ".join(f"{each['count']:,} {each['reason']}" for each in tally.records())
        mend = (
            "give a table of these ids with --judge"
            if request.judges
            else "give labelled pairs, or a judge's table with --judge"
        )
        return f"{path}: no judge says anything of its rows{f' ({left})' if left else ''}; {mend}"
    faults = [f"{judge.name}: {judge.fault}" for judge in judges.values() if judge.fault]
    if len(faults) == len(judges):
        more = f", and {len(faults) - MOST_SHOWN} judges more" if len(faults) > MOST_SHOWN else ""
        mend = "give --human battles that the judge has judged too, --map the report of one that was measured, or another judge"
        return f"{path}: refused: {'; '.join(faults[:MOST_SHOWN])}{more}; {mend}"
    return f"{path}: --drop leaves no row ({', '.join(f'{count:,} {reason}' for reason, count in Counter(status).items())})"
