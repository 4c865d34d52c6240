"""What `zoo import` shows: what the member is, what is odd about it, and the next step."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from zoo.contracts import Cost, ImportRequest, Manifest
from zoo.pipeline.import_findings import Findings
from zoo.report.text import Cell, Column, Page, Table
from zoo.scores.metrics import even_share


def imported_page(manifest: Manifest, path: Path, found: Findings) -> tuple[Page, dict[str, Any]]:
    """A member from elsewhere as a page and as plain data."""
    request = manifest.request
    assert isinstance(request, ImportRequest)
    scores, battles, cost = request.scores.path.name, request.battles.path.name, request.cost
    error = "" if found.error != found.error else f" +- {found.error:.4f}"  # NaN of one prompt
    rows: list[list[Cell]] = [
        ["member", request.entry],
        ["table", f"{scores} ({request.scores.fingerprint})"],
        ["rows", f"{found.rows:,} of {found.labelled:,} labelled in {battles}"],
        ["log loss", f"{found.log_loss:.4f}{error}"],
        ["beside it", f"label shares {found.label_shares:.4f}, {even_share(ties=found.ties)} each {found.uniform:.4f}"],
        ["price", _price(cost)],
        ["replaces", found.replaces or "nothing"],
    ]
    rows += [["read", "; ".join(found.notes)]] if found.notes else []
    columns = [Column("what"), Column("value", prose=True)]
    command = f"ensemble build --target {cost.target} --data {shlex.quote(str(request.battles.path))}"
    kept = " leaves it out; to take it nevertheless:" if _left_out(found) else ""
    following = f"{command} --include {request.entry}" if kept else command
    page: Page = [
        Table(columns, rows),
        *(f"warning: {warning}" for warning in found.warnings),
        *([f"`ensemble build`{kept} {following}"] if kept else [f"next: {following}"]),
        str(path),
    ]
    record = {"member": request.entry, "path": str(path), "fingerprint": manifest.fingerprint}
    return page, {**record, **dataclasses.asdict(found), "price": cost.model_dump(mode="json"), "next": following}


def _price(cost: Cost) -> str:
    if cost.like:
        return f"like {cost.like}, forecast for the target of a build"
    if not cost.priced:
        return "none: `ensemble build` asks for it with --seconds or --like"
    return f"{cost.load_seconds:g} s, then {_per(cost.seconds_per_row, cost.seconds_per_token)} on {cost.target}"


def _per(row: float, token: float) -> str:
    return f"{row:g} s a row" if row or not token else f"{1000 * token:g} s per 1,000 tokens"


def _left_out(found: Findings) -> bool:
    return any(warning.startswith("looks ") for warning in found.warnings)
