"""What `zoo data judge` shows: counts by reason, each judge's folds, and the cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.report.made import counts_table
from zoo.report.text import Column, Page, Table


def judged_page(report: Mapping[str, Any], out: Path, beside: Path) -> Page:
    """What was judged, by whom, and for how much."""
    page: list[str | Table] = [f"{out}: {report['rows']:,} pairs judged", "", counts_table(report["counts"])]
    for name, judge in report["judges"].items():
        page += ["", *_judge(name, judge)]
    page += ["", _cost(report["cost"])]
    page += [f"mind: {warning}" for warning in report["warnings"]]
    return [*page, "", f"{beside}: judges, checkpoints, counts, seconds, inputs"]


def _judge(name: str, judge: Mapping[str, Any]) -> Page:
    heads = f"{judge['by_one_fold']:,} pairs by one fold alone, {judge['by_all_folds']:,} by the mean of {len(judge['folds'])}"
    heads += f", {judge['by_some_folds']:,} by some" if judge["by_some_folds"] else ""
    own = f"{name} ({', '.join(judge['variants'])}; {judge['engine']} on {judge['target']}): {heads}"
    own += f"; {judge['human_battles']:,} human battles out of fold"
    if judge["consistency"] is not None:
        own += f"; its orders agree on {judge['consistency']:.1%} of probability"
    own += f"; {judge['cut']:,} pairs cut to its tokens" if judge["cut"] else ""
    columns = [
        Column("fold", form="d"),
        Column("checkpoint", prose=True),
        Column("pairs", form=",d"),
        Column("tokens", form=",d", drop=1),
        Column("seconds", form=",.1f"),
        Column("GPU s", form=",.1f", drop=2),
    ]
    rows = []
    for fold in judge["folds"]:
        spent = fold["pairs"] or {"rows": 0, "tokens": 0, "seconds": 0.0, "gpu_seconds": 0.0}
        asked = spent["rows"] // len(judge["variants"])
        rows.append([fold["fold"], fold["checkpoint"], asked, spent["tokens"], spent["seconds"], spent["gpu_seconds"]])
    return [own, Table(columns, rows)]


def _cost(cost: Mapping[str, Any]) -> str:
    if cost["gpu_hours_per_thousand_pairs"] is None:
        return f"the pairs took {cost['seconds']:,.0f} s on processors, {cost['tokens']:,} tokens"
    hours = cost["gpu_hours_per_thousand_pairs"]
    return (
        f"the pairs took {cost['gpu_seconds']:,.0f} GPU seconds, {cost['tokens']:,} tokens: {hours:.4f} GPU hours per thousand"
    )
