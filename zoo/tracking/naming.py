"""Names of experiments and runs: by data, entry, what was set, and what came out.

Runs are found by tags, never by these names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.contracts import LexicalScoreRequest, Manifest, MergeRequest, ScoreRequest, TrainRequest
from zoo.report.text import as_budget
from zoo.store import source_of

MOST_NAMED = 3  # members in a build's name; the others are counted
MOST_SET = 3  # settings in a run's name; its description has all


def experiment_name(data: str, digest: str) -> str:
    """`train 3f2a9c1b`: the data's file without its endings, and how their digest begins."""
    return f"{data} {digest[:8]}"


def stage_name(manifest: Manifest, folder: Path, member: str, changes: Mapping[str, tuple[str, str]]) -> str:
    """`smollm2-135m ab-512 r16 fold 0 epochs=2`: what it is, and what tells it from others.

    `member`: whose scores it holds; empty where it holds none. `changes`: settings that differ from the entry's, dotted name ->
    (here, in the entry).
    """
    request = manifest.request
    parts = [member.replace("@", " ") or f"{request.entry} {manifest.stage}", *_training_of(manifest, folder)]
    if isinstance(request, ScoreRequest) and request.emulates:
        parts.append(f"as {request.emulates}")
    told = [f"{name.rpartition('.')[2]}={here}" for name, (here, _) in changes.items() if name != "train.rank" and here]
    return " ".join(parts + told[:MOST_SET])


def _training_of(manifest: Manifest, folder: Path) -> list[str]:
    """Rank and fold of the training that a stage is, or goes back to; nothing of what learned from every fold."""
    found = manifest if isinstance(manifest.request, TrainRequest) else None
    if found is None and (artifact := source_of(manifest, folder, "train")):
        found = artifact.manifest
    trained = found.request if found and isinstance(found.request, TrainRequest) else None
    rank = [f"r{trained.spec.rank}"] if trained and trained.spec.method != "full" else []
    if is_of_all_folds(manifest, folder):
        return [*rank, "all folds"]
    request = manifest.request
    if trained:
        return [*rank, f"fold {trained.held.fold}"]
    if isinstance(request, ScoreRequest) and request.selection.rows == "held_out":
        return [f"fold {request.held.fold}"]
    return [f"fold {request.fold}"] if isinstance(request, LexicalScoreRequest) and request.fold is not None else []


def is_of_all_folds(manifest: Manifest, folder: Path) -> bool:
    """Whether a checkpoint is made of every fold's adapters."""
    found = manifest if isinstance(manifest.request, MergeRequest) else None
    if found is None and (artifact := source_of(manifest, folder, "merge")):
        found = artifact.manifest
    return found is not None and isinstance(found.request, MergeRequest) and bool(found.request.more_adapters)


def build_name(plan: Mapping[str, Any], members: Sequence[str]) -> str:
    """`9h t4x2: lexical + qwen2.5-coder-1.5b (0.9419)`: budget, target, members, log loss.

    Members by their entries, the heaviest first; by their whole names where an entry has several.
    """
    target = plan.get("target")
    where = target.get("name") if isinstance(target, dict) else target
    seconds = plan.get("budget_seconds")
    budget = as_budget(float(seconds)) if isinstance(seconds, int | float) else ""
    weights = {str(m.get("name")): float(m.get("weight") or 0.0) for m in plan.get("members") or () if isinstance(m, dict)}
    ordered = sorted(members, key=lambda name: -weights.get(name, 0.0))
    entries = [name.partition("@")[0] for name in ordered]
    pairs = zip(entries, ordered, strict=True)
    shown = [entry if entries.count(entry) == 1 else name.replace("@", " ") for entry, name in pairs]
    rest = [f"{len(shown) - MOST_NAMED} more"] if len(shown) > MOST_NAMED else []
    loss = plan.get("oof_log_loss")
    place = " ".join(part for part in (budget, where or "") if part) or "build"
    named = f"{place}: {' + '.join(shown[:MOST_NAMED] + rest)}" if shown else place
    return f"{named} ({float(loss):.4f})" if isinstance(loss, int | float) else named


def use_name(kind: str, record: Mapping[str, Any]) -> str:
    """`prediction of test.csv (25,000 rows)`: what was done to which file, what came out."""
    numbers, params = record["numbers"], record["params"]
    loss = next((numbers[name] for name in _LOSSES if name in numbers), None)
    rows = next((numbers[name] for name in _ROWS if name in numbers), None)
    of = f" of {params['battles']}" if params.get("battles") else f" of {params['plan']}" if params.get("plan") else ""
    facts = [f"{rows:,.0f} rows"] if rows is not None else []
    facts += [f"{loss:.4f}"] if loss is not None else []
    return f"{kind}{of}" + (f" ({', '.join(facts)})" if facts else "")


_LOSSES = ("board/private", "board/public", "evaluate/log_loss", "recalibrate/log_loss", "predict/log_loss")
_ROWS = ("predict/rows", "evaluate/rows", "recalibrate/rows")
