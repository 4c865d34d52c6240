"""What `zoo data prompts` shows: how alike, or where loss is worst, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.report.made import counts_table
from zoo.report.text import Column, Page, Table

MOST_SHOWN = 6  # categories of a feature


def prompts_page(report: Mapping[str, Any], out: Path, beside: Path) -> Page:
    """Rows, chances, distances and shares."""
    head = f"{out}: {report['rows']:,} of {report['pool']:,} prompts"
    if report["rows"] < report["settings"]["rows"]:
        head += f"; {report['settings']['rows']:,} were asked for, and there are no more"
    chances = (
        f"{report['floor']:.0%} by chance alone: no prompt's chance is below {report['least_chance']:.4f}; "
        f"{report['certain']:,} were certain"
    )
    page: list[str | Table] = [head, chances]
    page += ["", counts_table(report["counts"])] if report["counts"] else []
    page += _distances(report) if "distance" in report else _losses(report)
    return [*page, "", _shares(report), "", f"{beside}: inputs, settings, shares"]


def _distances(report: Mapping[str, Any]) -> Page:
    columns = [
        Column("feature"),
        Column("before", form=".3f"),
        Column("after", form=".3f"),
        Column("the pool lacks", prose=True),
    ]
    lacks = report["pool_lacks"]
    rows = [
        [name, each["before"], each["after"], ", ".join(lacks.get(name, []))[:80]] for name, each in report["distance"].items()
    ]
    return ["", "share of the rows that would have to be others for the target's shares", Table(columns, rows)]


def _losses(report: Mapping[str, Any]) -> Page:
    loss = report["loss"]
    head = f"held-out loss {loss['mean']:.4f} over {loss['prompts']:,} prompts in {loss['rows']:,} rows"
    if not report["wanted"]:
        why = (
            f"kinds of prompts differ no more than by chance (p {loss['chance']:.2f})"
            if loss["chance"] >= 0.05
            else ("no prompt of the pool is of a kind with more than the mean")
        )
        return ["", f"{head}; {why}: every prompt had the same chance"]
    columns = [Column("topic"), Column("length"), Column("prompts", form=",d"), Column("mean", form=".4f")]
    columns += [Column("shrunken", form=".4f"), Column("in the pool", "in_pool", form=",d")]
    rows = [[each[key] for key in ("topic", "length", "prompts", "mean", "shrunken", "in_pool")] for each in loss["worst"]]
    return ["", f"{head}; kinds differ by more than chance (p {loss['chance']:.1g})", Table(columns, rows)]


def _shares(report: Mapping[str, Any]) -> Table:
    """The commonest categories of each feature: of the pool, of the chosen, and of the target where there is one."""
    target = report.get("target", {})
    columns = [Column("feature"), Column("is"), *(Column(name, form=".3f") for name in ("pool", "chosen"))]
    rows = []
    for name, after in report["after"].items():
        wanted = target.get(name, after)
        for kind in sorted({*wanted, *after}, key=lambda kind: (-wanted.get(kind, 0.0), kind))[:MOST_SHOWN]:
            row = [name, kind, report["before"][name].get(kind, 0.0), after.get(kind, 0.0)]
            rows.append([*row, wanted.get(kind, 0.0)] if target else row)
    return Table([*columns, Column("target", form=".3f")] if target else columns, rows)
