"""What `zoo data generate` prints: a line a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.contracts import GenerateRequest
from zoo.data.logs import WHOLE
from zoo.data.made import OK
from zoo.data.prompts import Prompts
from zoo.report.text import Column, Page, Table
from zoo.store import Artifact

PREFIX, STATUS, NOT_ASKED = "generate/", "_rows", "not asked"
PROMPT_ROWS = "rows of prompts"


def statuses(artifact: Artifact) -> dict[str, int]:
    """Rows by status, as `zoo.stages.generate.rows` names them."""
    found = {
        name.removeprefix(PREFIX).removesuffix(STATUS).replace("_", " "): int(value)
        for name, value in artifact.manifest.metrics.items()
        if name.startswith(PREFIX) and name.endswith(STATUS)
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def generated_record(artifact: Artifact) -> dict[str, Any]:
    """One model's answers as plain data."""
    manifest = artifact.manifest
    numbers = {name.removeprefix(PREFIX): value for name, value in manifest.metrics.items() if name.startswith(PREFIX)}
    kept = {name: value for name, value in numbers.items() if not name.endswith(STATUS)}
    found = {"model": manifest.request.entry, "path": str(artifact.path), "statuses": statuses(artifact)}
    return {
        **found,
        "ended_by": ended_by(artifact),
        **kept,
        "load_seconds": manifest.measurements.load_seconds,
        "run_seconds": manifest.measurements.run_seconds,
    }


def generated_report(artifacts: Sequence[Artifact], prompts: Prompts) -> dict[str, Any]:
    """What was asked and answered, as it lies beside the log."""
    counts = [(reason, count, prompts.first[reason]) for reason, count in prompts.left_out.items()]
    requests = [artifact.manifest.request for artifact in artifacts]
    request = next(request for request in requests if isinstance(request, GenerateRequest))
    return {
        "stage": request.stage,
        "rows": sum(int(artifact.manifest.metrics["generate/rows"]) for artifact in artifacts),
        "totals": {PROMPT_ROWS: prompts.rows},
        "counts": [
            {"what": PROMPT_ROWS, "reason": reason, "count": count, "example": example}
            for reason, count, example in [*counts, (OK, len(prompts.prompts), "")]
        ],
        "models": [generated_record(artifact) for artifact in artifacts],
        "artifacts": [artifact.path.name for artifact in artifacts],
        "settings": request.model_dump(include={"rows", "rows_seed", "samples", "seed", "sampling"}),
        "inputs": [{"file": prompts.path.name, "digest": prompts.digest}],
    }


def ended_by(artifact: Artifact) -> str:
    """Which ceiling ended a request, or that its prompts did."""
    request, found = artifact.manifest.request, statuses(artifact)
    assert isinstance(request, GenerateRequest)
    if request.accept is not None and sum(found.get(name, 0) for name in WHOLE) >= request.accept:
        return f"--accept {request.accept}"
    return f"--gpu-hours {request.gpu_hours:g}" if request.gpu_hours and NOT_ASKED in found else "all prompts are asked"


def generated_page(artifacts: Sequence[Artifact], out: Path, rows: int) -> Page:
    """What each model made and took from the store, how fast, and how its answers ended."""
    columns = [
        Column("model"),
        Column("rows", form=",.0f"),
        Column("made", "answers_made", form=",.0f"),
        Column("reused", "answers_reused", form=",.0f"),
        Column("tokens", form=",.0f"),
        Column("tokens/s", "tokens_per_second", form=",.0f", drop=1),
        Column("GPU s", "gpu_seconds", form=",.1f", drop=2),
        Column("ended", "statuses", prose=True),
    ]
    lines, ends = [], []
    for artifact in artifacts:
        record = generated_record(artifact)
        ended = ", ".join(f"{name} {count:,}" for name, count in record["statuses"].items())
        numbers = [record[name] for name in ("rows", "made", "reused", "tokens", "tokens_per_second", "gpu_seconds")]
        if NOT_ASKED in record["statuses"]:
            ends.append(f"{record['model']}: {record['ended_by']} ended it, and a larger one goes on")
        lines.append([record["model"], *numbers, ended])
    return [Table(columns, lines), *ends, f"{out}: {rows:,} rows"]
