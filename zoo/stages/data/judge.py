"""The judge stage: one table of what trained entries say of pairs and of human battles.

Score tables are read here, and no model is run. Which fold models may speak for a row is found anew, whatever rows the tables
have: a row is never judged by a model that has seen its prompt (`zoo.stages.data.unseen`).
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.contracts import EntryJudge, Input, JudgeRequest, Measurements, ScoreCard, StageResult
from zoo.data.battles import Battles, read_battles
from zoo.data.judges import BATTLE, CONSISTENCY, JUDGED_BY, battle_names, pooled
from zoo.data.made import OK, REPORT, STATUS, VERDICTS, write_pairs
from zoo.data.usable import read_rows, unkeyed_records, unusable_line
from zoo.errors import ZooError
from zoo.scores.metric_names import JUDGE_GPU_SECONDS, LEFT_OUT_ROWS, MADE_ROWS
from zoo.scores.tables import BAD_ROW, CARD, PROBABILITIES, read_card
from zoo.stages import progress
from zoo.stages.data.fold_verdicts import SEEN, Said, said_of_human, said_of_pairs
from zoo.store import read_manifest, write_atomic
from zoo.targets import process_age_seconds

OF, PAIR, HUMAN = "of", "pair", "human"
HUMAN_BATTLES, AMONG_PAIRS = "human battles", "among the pairs too, and told as one"
CUT = "n_truncated_tokens"
ON_GPU = "engine/card_bytes"  # a metric of scoring that is there where a card was used
Both = tuple[Said, Said]


def run(request: JudgeRequest, out_dir: Path) -> StageResult:
    """Write `verdicts.parquet`, a row for every pair and every human battle, and `report.json`."""
    load_seconds, started = process_age_seconds(), time.monotonic()
    pairs, human = read_rows(request.pairs.path), read_battles(request.human.path)
    said: dict[str, Both] = {}
    for judge in request.judges:
        progress.note(f"{judge.name}: who has not seen which of {len(pairs.frame):,} pairs")
        said[judge.name] = said_of_pairs(judge, pairs, human), said_of_human(judge, human)
    rows = list(_rows({name: both[0] for name, both in said.items()}, pairs, PAIR))
    asked = set(pairs.ids)
    own = _rows({name: both[1] for name, both in said.items()}, human, HUMAN)
    counts = Counter(row[STATUS] for row in rows)
    if not counts[OK]:
        told = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common(3))
        raise ZooError(f"{request.pairs.path}: none of its {len(rows):,} rows is judged: {told}")
    voted = [row for row in own if row["id"] not in asked]
    write_pairs(out_dir / VERDICTS, [*rows, *voted])
    report = {
        "stage": request.stage,
        "rows": counts[OK],
        "totals": {"pairs": len(asked), HUMAN_BATTLES: len(human.ids)},
        "counts": [*_counts(rows, "pairs"), *unkeyed_records(pairs), *_counts(voted, HUMAN_BATTLES), *_among(asked, human)],
        "judges": {judge.name: _judge_record(judge, *said[judge.name]) for judge in request.judges},
        "cost": (cost := _cost(request.judges, counts[OK])),
        "warnings": _warnings(request, pairs, human),
        "inputs": [{"file": given.path.name, "digest": given.fingerprint} for given in (request.pairs, request.human)],
        "seconds": round(time.monotonic() - started, 3),
    }
    write_atomic(out_dir / REPORT, json.dumps(report, indent=1, ensure_ascii=False))
    metrics = {MADE_ROWS: float(counts[OK]), LEFT_OUT_ROWS: float(len(rows) - counts[OK])}
    metrics[JUDGE_GPU_SECONDS] = float(cost["gpu_seconds"])
    measured = Measurements(load_seconds=load_seconds, run_seconds=time.monotonic() - started, rows=len(rows))
    return StageResult(metrics=metrics, measurements=measured)


def _rows(said: Mapping[str, Said], battles: Battles, of: str) -> Iterator[dict[str, Any]]:
    """A row for every id of a file, judged or not. Judges are pooled by the mean of their logarithms, each with one voice."""
    several = len(said) > 1
    names = battle_names(battles.frame)
    with progress.bar(len(names), f"pool {of}", "row") as bar:
        for place, row_id in enumerate(battles.frame["id"]):
            faults = [f"{name}: {one.reasons[place]}" if several else one.reasons[place] for name, one in said.items()]
            fault = next((fault for fault, one in zip(faults, said.values(), strict=True) if one.reasons[place]), "")
            p = np.full(3, np.nan) if fault else pooled(np.array([one.p[place] for one in said.values()]))[0]
            agreed = [one.consistency[place] for one in said.values() if not np.isnan(one.consistency[place])]
            by = [f"{name} {one.by(place)}" if several else one.by(place) for name, one in said.items()]
            yield {
                "id": row_id,
                OF: of,
                **dict(zip(PROBABILITIES, p.tolist(), strict=True)),
                CONSISTENCY: float(np.mean(agreed)) if agreed and not fault else float("nan"),
                JUDGED_BY: "" if fault else "; ".join(by),
                CUT: int(max(one.cut[place] for one in said.values())),
                BATTLE: names[place],
                STATUS: fault or OK,
            }
            bar.update()
    nan = float("nan")
    for row_id in battles.bad_ids:
        blank = {OF: of, **dict.fromkeys(PROBABILITIES, nan), CONSISTENCY: nan, JUDGED_BY: "", CUT: 0, BATTLE: ""}
        yield {"id": row_id, **blank, STATUS: BAD_ROW}


def _counts(rows: Sequence[Mapping[str, Any]], what: str) -> list[dict[str, Any]]:
    """Rows by status, with an example of each."""
    counts, first = Counter(row[STATUS] for row in rows), dict[str, str]()
    for row in rows:
        first.setdefault(row[STATUS], row["id"])
    return [
        {"what": what, "reason": reason, "count": count, "example": "" if reason == OK else first[reason]}
        for reason, count in counts.most_common()
    ]


def _among(asked: Collection[str], human: Battles) -> list[dict[str, Any]]:
    """Human battles that the pairs have too: the table has each once."""
    shared = [row_id for row_id in human.ids if row_id in asked]
    record = {"what": HUMAN_BATTLES, "reason": AMONG_PAIRS, "count": len(shared)}
    return [{**record, "example": shared[0]}] if shared else []


def _judge_record(judge: EntryJudge, on_pairs: Said, on_human: Said) -> dict[str, Any]:
    """Whom a judge consists of, how many of them judged a row, and what each of them cost."""
    heads = Counter(on_pairs.models.sum(axis=1).tolist())
    judged, voted = on_pairs.reasons == "", on_human.reasons == ""
    card = read_card(judge.folds[0].human.path / judge.variants[0].slug / CARD)
    return {
        "variants": [variant.slug for variant in judge.variants],
        "engine": card.engine,
        "target": card.target,
        "machine": card.cost.machine,
        "fold_rule": card.fold_rule,
        "pairs": int(judged.sum()),
        "by_one_fold": heads[1],
        "by_all_folds": heads[len(judge.folds)],
        "by_some_folds": sum(count for models, count in heads.items() if 1 < models < len(judge.folds)),
        "seen_by_all": int((on_pairs.reasons == SEEN).sum()),
        "cut": int(((on_pairs.cut > 0) & judged).sum()),
        "human_battles": int(voted.sum()),
        "consistency": _mean(on_pairs.consistency),
        "consistency_human": _mean(on_human.consistency),
        "folds": [
            {
                "fold": fold.fold,
                "trained": fold.trained.path.name,
                "checkpoint": _checkpoint(read_card(fold.human.path / judge.variants[0].slug / CARD)),
                "pairs": _spent(fold.pairs, judge),
                "human": _spent(fold.human, judge),
            }
            for fold in judge.folds
        ],
    }


def _checkpoint(card: ScoreCard) -> str:
    """The artifact of a table's weights; its fingerprint where nobody knows where it was."""
    place = card.request.model.place if card.request else None
    return place.name if place else card.checkpoint


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _spent(scored: Input | None, judge: EntryJudge) -> dict[str, Any] | None:
    """What a score stage took: GPU seconds of all its cards, loading included; 0 where it ran on processors."""
    if scored is None:
        return None
    manifest = read_manifest(scored.path)
    measured, card = manifest.measurements, read_card(scored.path / judge.variants[0].slug / CARD)
    cards = max(1, card.cost.gpus) * max(1, int(manifest.metrics.get("engine/replicas", 1)))
    seconds = measured.load_seconds + measured.run_seconds
    return {
        "artifact": scored.path.name,
        "rows": measured.rows,
        "tokens": measured.tokens,
        "seconds": round(seconds, 3),
        "gpu_seconds": round(cards * seconds, 3) if ON_GPU in manifest.metrics else 0.0,
    }


def _cost(judges: Sequence[EntryJudge], judged: int) -> dict[str, Any]:
    """What judging the pairs took of all judges, each score artifact once: a lexical one is of all folds."""
    spent = [_spent(fold.pairs, judge) for judge in judges for fold in judge.folds]
    voted = {fold.human.fingerprint: _spent(fold.human, judge) for judge in judges for fold in judge.folds}
    gpu, seconds, tokens = (sum(one[key] for one in spent if one) for key in ("gpu_seconds", "seconds", "tokens"))
    return {
        "gpu_seconds": round(gpu, 3),
        "gpu_hours_per_thousand_pairs": round(gpu / 3.6 / judged, 6) if gpu else None,
        "seconds": round(seconds, 3),
        "tokens": tokens,
        "gpu_seconds_of_human_battles": round(sum(one["gpu_seconds"] for one in voted.values() if one), 3),
    }


def _warnings(request: JudgeRequest, pairs: Battles, human: Battles) -> list[str]:
    told = [f"{battles.path.name}: {unusable_line(battles)}" for battles in (pairs, human) if battles.bad_ids]
    for judge in request.judges:
        if len(judge.variants) == 1 and judge.variants[0].max_tokens:  # a lexical one says the same in both
            told.append(f"{judge.name}: scores one response order alone: nothing tells how far its verdicts go by side")
    return told
