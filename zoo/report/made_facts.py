"""What rows of a made file are.

Sources, licences, models, lengths, labels, and how near they are to files of others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from zoo.data.battles import Battles, join_turns
from zoo.data.columns import MODEL_COLUMNS, TEXT_COLUMNS, VOTES
from zoo.data.formats import read_records
from zoo.data.keys import prompt_texts
from zoo.data.masks import EXACT, NEAR, asked_in, nearest, why_masked
from zoo.data.prompts import read_prompts
from zoo.data.splits import NEAR_PROMPTS, assign_folds, group_hashes
from zoo.data.turns import questions_and_answers
from zoo.scores.certificate import longer_wins
from zoo.scores.tables import PROBABILITIES
from zoo.scores.vote_map import length_ratio

FOLDS = 5
SOURCE, LICENCE, JUDGE, CONSISTENCY = ("source", "dataset"), ("licence", "license"), ("judge",), ("consistency",)
GENERATORS = ("generator_a", "generator_b")
KEPT = (*SOURCE, *LICENCE, *JUDGE, *CONSISTENCY, *GENERATORS, *VOTES, "language")
SPREAD = (("shortest", 0), ("a tenth below", 10), ("median", 50), ("a tenth above", 90), ("longest", 100))
NAMELESS = "not named"


def column(battles: Battles, names: Sequence[str]) -> list[str] | None:
    """The first of some columns that a file has, by row of its frame; None where it has none."""
    name = next((name for name in names if name in battles.kept), None)
    return None if name is None else [str(cell).strip() for cell in battles.kept.loc[battles.frame["id"], name]]


def vote_shares(battles: Battles) -> np.ndarray | None:
    """Labels as shares (rows, 3): of votes, else the winners; None where nothing is labelled."""
    if set(VOTES) <= set(battles.kept):
        votes = battles.kept.loc[battles.frame["id"], list(VOTES)].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
        if np.isfinite(votes).all() and (votes.sum(axis=1) > 0).all():
            shares: np.ndarray = votes / votes.sum(axis=1, keepdims=True)
            return shares
    labels = battles.frame["label"].to_numpy(dtype=np.int64)
    return np.eye(3)[labels] if len(labels) and (labels >= 0).all() else None


def characters(frame: pd.DataFrame) -> np.ndarray:
    """Characters of prompt and both answers: int64, (rows, 3)."""
    return np.array([[len(join_turns(turns)) for turns in frame[name]] for name in TEXT_COLUMNS], dtype=np.int64).T


def pair_facts(battles: Battles) -> dict[str, Any]:
    """Numbers of a file of pairs."""
    frame, shares, lengths = battles.frame, vote_shares(battles), characters(battles.frame)
    ratio = length_ratio(lengths[:, 1], lengths[:, 2])
    groups = group_hashes(frame, NEAR_PROMPTS)
    consistency = [float(cell) for cell in column(battles, CONSISTENCY) or () if cell not in ("", "nan")]
    return {
        "rows": len(frame),
        "prompts": len({join_turns(turns) for turns in frame["prompt"]}),
        "prompt_groups": len(np.unique(groups)),
        "largest_group": int(np.unique(groups, return_counts=True)[1].max()),
        "turns": dict(sorted(Counter(len(turns) for turns in frame["prompt"]).items())),
        "sources": counted(column(battles, SOURCE)),
        "licences": counted(column(battles, LICENCE)),
        "languages": counted(languages) if any(languages := column(battles, ("language",)) or []) else [],
        "judges": counted(column(battles, JUDGE)),
        "models": model_balance(battles, shares),
        "lengths": {
            name: spread(values)
            for name, values in (
                ("prompt", lengths[:, 0]),
                ("an answer", lengths[:, 1:].ravel()),
                ("a pair", lengths.sum(axis=1)),
            )
        },
        "labels": None if shares is None else label_facts(shares, ratio),
        "labels_by_judge": {} if shares is None else _by_judge(column(battles, JUDGE), shares, ratio),
        "consistency": np.histogram(consistency, bins=10, range=(0, 1))[0].tolist() if consistency else None,
        "mean_consistency": float(np.mean(consistency)) if consistency else None,
    }


def _by_judge(judges: Sequence[str] | None, shares: np.ndarray, ratio: np.ndarray) -> dict[str, Any]:
    names = np.array(judges or [], dtype=object)
    return {name: label_facts(shares[names == name], ratio[names == name]) for name in sorted(set(names.tolist()))}


def label_facts(shares: np.ndarray, ratio: np.ndarray) -> dict[str, Any]:
    """Shares of A, B and tie.

    Of longer answers among decided ones too, and the mean lead of the likeliest label.
    """
    ordered = np.sort(shares, axis=1)
    longer = longer_wins(shares, ratio)
    return {
        "a": float(shares[:, 0].mean()),
        "b": float(shares[:, 1].mean()),
        "tie": float(shares[:, 2].mean()),
        "longer": longer,
        "mean_lead": float((ordered[:, 2] - ordered[:, 1]).mean()),
    }


def counted(cells: Sequence[str] | None) -> list[dict[str, Any]]:
    """Values with their rows and shares, the commonest first."""
    if not cells:
        return []
    counts = sorted(Counter(cell or NAMELESS for cell in cells).items(), key=lambda item: (-item[1], item[0]))
    return [{"name": name, "rows": count, "share": count / len(cells)} for name, count in counts]


def model_balance(battles: Battles, shares: np.ndarray | None) -> list[dict[str, Any]]:
    """Each model's pairs as A and as B, and the mean share of votes that it has in them.

    A tie is half to each.
    """
    names = next((names for names in (MODEL_COLUMNS, GENERATORS) if set(names) <= set(battles.kept)), None)
    if names is None:
        return []
    a, b = (column(battles, [name]) or [] for name in names)
    won = [0.5] * len(a) if shares is None else (shares[:, 0] + shares[:, 2] / 2).tolist()
    as_a, as_b, total = Counter(a), Counter(b), Counter[str]()
    for first, second, share in zip(a, b, won, strict=True):
        total[first] += share
        total[second] += 1 - share
    found = [
        {
            "model": name or NAMELESS,
            "pairs": as_a[name] + as_b[name],
            "a": as_a[name],
            "b": as_b[name],
            "share": (as_a[name] + as_b[name]) / len(a),
            "won": None if shares is None else total[name] / (as_a[name] + as_b[name]),
        }
        for name in {*as_a, *as_b}
    ]
    return sorted(found, key=lambda each: (-each["pairs"], each["model"]))


def spread(values: np.ndarray) -> dict[str, int]:
    """Percentiles of lengths by name."""
    return {name: int(np.percentile(values, percent)) for name, percent in SPREAD}


def near_file(prompts: Sequence[Any], path: Path) -> dict[str, Any]:
    """Rows whose prompt a file asks exactly, and those that are near-copies.

    The latter are what an exact check lets through. Beside them the nearest of the other prompts.
    """
    asked = asked_in([path])
    reasons = why_masked(prompts, asked)
    through = [join_turns(turns) for turns, reason in zip(prompts, reasons, strict=True) if reason == NEAR]
    kept = {text for turns, reason in zip(prompts, reasons, strict=True) if not reason for text in prompt_texts(turns)}
    return {
        "file": path.name,
        "rows": len(prompts),
        "exact": reasons.count(EXACT),
        "near": len(through),
        "examples": list(dict.fromkeys(through))[:3],
        "nearest": [pair.__dict__ for pair in nearest(kept, asked)],
    }


def folds_of_main(prompts: Sequence[Any], main: Battles) -> Iterator[dict[str, Any]]:
    """What each fold of a main file asks exactly, and what an exact check lets through."""
    folds = assign_folds(main.frame, FOLDS, NEAR_PROMPTS)
    for fold in range(FOLDS):
        asked = {text for turns in main.frame["prompt"][folds == fold] for text in prompt_texts(turns)}
        reasons = why_masked(prompts, asked)
        through = {join_turns(turns) for turns, reason in zip(prompts, reasons, strict=True) if reason == NEAR}
        yield {
            "fold": fold,
            "exact": reasons.count(EXACT),
            "near": reasons.count(NEAR),
            "prompts": len(through),
            "example": min(through, default=""),
        }


def answer_facts(records: Sequence[Any]) -> dict[str, Any]:
    """Numbers of a log of answers.

    `records` as `zoo.report.made_sample.answer_records` gives them.
    """
    rows = [record for record in records if isinstance(record, dict)]
    texts = [answers for record in rows for answers in answers_of(record)]
    models = counted([str(record.get("model", "")) for record in rows])
    return {
        "rows": len(rows),
        "prompts": len({str(record.get("prompt_id")) for record in rows}),
        "sources": counted([str(record.get("source", "")) for record in rows]),
        "licences": counted([str(record.get("licence", "")) for record in rows]),
        "models": [{"model": each["name"], "pairs": each["rows"], "share": each["share"]} for each in models],
        "lengths": {"an answer": spread(np.array([len(text) for text in texts]))} if texts else {},
        "statuses": counted([str(record.get("status", "")) for record in rows]),
    }


def prompt_facts(path: Path) -> dict[str, Any]:
    """Numbers of chosen prompts."""
    rows = [record for _, record in read_records(path, ("source", "licence", "language")) if isinstance(record, dict)]
    prompts = read_prompts(path).prompts
    return {
        "rows": len(rows),
        "prompts": len(prompts),
        **{f"{name}s": counted([str(row.get(name) or "") for row in rows]) for name in ("source", "licence", "language")},
        "models": [],
        "lengths": {"prompt": spread(np.array([len(join_turns(prompt.turns)) for prompt in prompts]))},
    }


def table_facts(path: Path) -> dict[str, Any]:
    """Numbers of a table of verdicts: what is said, how often nothing is, and how consistently."""
    names = ("id", *PROBABILITIES, "status", *CONSISTENCY)
    rows = [record for _, record in read_records(path, names) if isinstance(record, dict)]
    cells = pd.DataFrame(rows, columns=list(names))
    numbers = cells[[*PROBABILITIES, *CONSISTENCY]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    p = numbers[np.isfinite(numbers[:, :3]).all(axis=1)]
    agreed = p[np.isfinite(p[:, 3]), 3]
    return {
        "rows": len(rows),
        "prompts": None,
        "models": [],
        "lengths": {},
        "statuses": counted([str(status or "") for status in cells["status"]]),
        "labels": {**label_facts(p[:, :3], np.zeros(len(p))), "longer": None} if len(p) else None,
        "consistency": np.histogram(agreed, bins=10, range=(0, 1))[0].tolist() if len(agreed) else None,
        "mean_consistency": float(agreed.mean()) if len(agreed) else None,
    }


def answers_of(record: Any) -> list[str]:
    """The texts of a conversation's answers."""
    try:
        return [text for text in questions_and_answers(record.get("conversation"))[1] if text is not None]
    except ValueError:
        return []
