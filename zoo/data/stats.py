"""Statistics of a battles file, as numbers and as lines of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from zoo.contracts import LABELS
from zoo.data.battles import Battles, dataset_digest, join_turns
from zoo.data.columns import TEXT_COLUMNS
from zoo.data.rows import FATAL, Problem
from zoo.data.splits import NEAR_PROMPTS, group_hashes, prompt_of
from zoo.data.votes import unreadable_votes

QUANTILES = {"median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
SHOWN_IDS = 8


def validation(battles: Battles) -> dict[str, Any]:
    """What a file holds and every problem of it, as plain data.

    `usable`: no problem is an error.
    """
    return {
        "file": str(battles.path),
        "usable": not battles.errors,
        "rows": len(battles.ids),
        "usable_rows": len(battles.frame),
        "labelled": battles.labelled,
        "kind": battles.kind,
        "format": battles.format,
        "plain_text": list(battles.plain),
        "ties": battles.can_tie,
        "unreadable_votes": unreadable_votes(battles),
        "extra_columns": list(battles.extra_columns),
        "digest": dataset_digest(battles),
        "problems": [vars(problem) for problem in battles.problems],
    }


def problem_rows(problems: tuple[Problem, ...]) -> list[tuple[str, str, str, str, str]]:
    """One line a kind of problem, errors first.

    Severity, kind, rows, the first ids, and an example's message.
    """
    groups: dict[tuple[str, str], list[Problem]] = {}
    for problem in sorted(problems, key=lambda p: (p.severity != "error", p.kind not in FATAL)):
        groups.setdefault((problem.severity, problem.kind), []).append(problem)
    rows = []
    for (severity, kind), found in groups.items():
        names = {p.row_number: p.row_id or f"(row {p.row_number})" for p in found if p.row_number is not None}
        ids = list(names.values())
        more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
        example = found[0].message
        rows.append((severity, kind, str(len(ids)) if ids else "file", ", ".join(ids[:SHOWN_IDS]) + more, example))
    return rows


def near_copies(frame: pd.DataFrame) -> dict[str, Any]:
    """Groups of prompts that differ little, as the fold rule near-prompts-1 finds them.

    How many, and the prompts, rows and first id of the largest by rows; nothing where there are none.
    """
    rows = pd.DataFrame(
        {"id": frame["id"], "prompt": frame["prompt"].map(prompt_of), "group": group_hashes(frame, NEAR_PROMPTS)}
    )
    by_group = rows.groupby("group").agg(prompts=("prompt", "nunique"), rows=("id", "size"), first_id=("id", "first"))
    by_group = by_group[by_group["prompts"] > 1]
    if by_group.empty:
        return {}
    largest = by_group.sort_values("rows").iloc[-1]
    return {
        "groups": len(by_group),
        "largest_prompts": int(largest["prompts"]),
        "largest_rows": int(largest["rows"]),
        "largest_id": str(largest["first_id"]),
    }


def _spread(values: np.ndarray) -> dict[str, float]:
    quantiles = {name: float(np.quantile(values, q)) for name, q in QUANTILES.items()}
    return {"mean": float(values.mean()), **quantiles}


def battle_stats(battles: Battles, count_tokens: Callable[[str], list[int]] | None = None) -> dict[str, Any]:
    """Label shares, turns and lengths of the usable rows.

    `lengths` maps `characters ...` and, where `count_tokens` gives the token ids of a text, `tokens ...` of each text column
    and of the whole battle (without a prompt template) to mean, median, p90, p99 and max.
    """
    frame = battles.frame
    stats: dict[str, Any] = {"rows": len(frame), "distinct_prompts": 0, "near_copies": {}, "label_shares": {}, "turns": {}}
    stats["lengths"] = {}
    if frame.empty:
        return stats
    stats["distinct_prompts"] = len({join_turns(turns) for turns in frame["prompt"]})
    stats["near_copies"] = near_copies(frame)
    stats["turns"] = {str(k): n / len(frame) for k, n in sorted(Counter(len(turns) for turns in frame["prompt"]).items())}
    if battles.labelled:
        stats["label_shares"] = {name: float((frame["label"] == i).mean()) for i, name in enumerate(LABELS)}
    measures: dict[str, Callable[[str], int]] = {"characters": len}
    if count_tokens is not None:
        measures["tokens"] = lambda text: len(count_tokens(text))
    for unit, measure in measures.items():
        parts = {name: np.array([measure(join_turns(turns)) for turns in frame[name]]) for name in TEXT_COLUMNS}
        for name, values in {**parts, "battle": sum(parts.values(), np.zeros(len(frame)))}.items():
            stats["lengths"][f"{unit}, {name}"] = _spread(values)
    return stats
