"""What `zoo data mine` and `label` show: counts by reason, certificates, what to mind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.data.pairing import EXHAUSTED
from zoo.report.text import Column, Page, Table
from zoo.scores.certificate import PRIOR, WITH_LENGTH

SHOWN_CHARACTERS = 60


def mine_page(report: Mapping[str, Any], out: Path, beside: Path) -> Page:
    """What was mined, what was not used and why, and the nearest prompts that were kept."""
    ended = (
        report["ended_by"] if report["ended_by"] == EXHAUSTED else f"{report['ended_by']} ended it, and a larger one goes on"
    )
    head = (
        f"{out}: {report['rows']:,} pairs of {len(report['models']):,} models, {report['prompts']:,} prompts in "
        f"{report['prompt_groups']:,} groups of near-copies, at most {report['most_pairs_of_a_prompt']:,} of a prompt; {ended}"
    )
    sides = f"each model is A as often as B but for {report['largest_side_difference']}"
    page: list[str | Table] = [head, sides, "", counts_table(report["counts"])]
    if report["nearest_kept"]:
        columns = [Column("similarity", form=".2f"), Column("kept", prose=True), Column("of --never", "never", prose=True)]
        rows = [[each["similarity"], _short(each["kept"]), _short(each["never"])] for each in report["nearest_kept"]]
        page += ["", "the nearest prompts that were kept (0.70 is a near-copy, and left out)", Table(columns, rows)]
    return [*page, "", f"{beside}: inputs, settings, counts, models, seconds"]


def label_page(report: Mapping[str, Any], out: Path, beside: Path) -> Page:
    """What was labelled, each judge's certificate, what filters cost, and warnings."""
    page: list[str | Table] = [
        f"{out}: {report['rows']:,} pairs with shares of human votes",
        "",
        counts_table(report["counts"]),
    ]
    if report["verdicts_left_out"]:
        page += ["", counts_table(report["verdicts_left_out"])]
    for name, judge in report["judges"].items():
        page += ["", *_certificate(name, judge)]
    filters = _filters(report)
    page += ["", filters] if filters.rows else []
    page += [f"mind: {warning}" for warning in report["warnings"]]
    return [*page, "", f"{beside}: certificates, maps, counts, inputs"]


def counts_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """Counts by what and reason, with an example of each."""
    columns = [
        Column("count", form=",d"),
        Column("what"),
        Column("reason"),
        Column("for example", "example", drop=1, prose=True),
    ]
    return Table(columns, [[each["count"], each["what"], each["reason"], _short(each["example"])] for each in records])


def _certificate(name: str, judge: Mapping[str, Any]) -> Page:
    facts, certificate = judge["all_rows"], judge["certificate"]
    own = f"{name}: {facts['rows']:,} rows, {facts['prompt_groups']:,} prompts; ties {facts['judge_ties']:.1%}"
    own += f", longer wins {facts['judge_longer']:.1%}" if facts["judge_longer"] is not None else ""
    if facts["both_orders"]:
        own += f"; {facts['both_orders']:,} battles in both orders, the same verdict in {facts['same_in_both_orders']:.1%}"
    if facts["tables_agree"] is not None:
        own += f"; its tables agree on {facts['tables_agree']:.1%} of probability"
    if facts["commonest"]:
        own += f"; commonest model {facts['commonest'][0]} in {facts['commonest_share']:.0%} of the pairs"
    if certificate is None:
        return [own, f"no certificate: {judge['fault']}"]
    if judge["borrowed"]:
        mapped, prior = (next(s for s in certificate["steps"] if s["name"] == name) for name in (WITH_LENGTH, PRIOR))
        there = f"there at {mapped['log_loss']:.3f} (prior {prior['log_loss']:.3f})"
        return [own, f"the map of {judge['borrowed']}, {there}; not measured here"]
    measured = (
        f"{certificate['rows']:,} rows, {certificate['prompts']:,} prompts, judged by humans too: "
        f"agreement {certificate['agreement']:.1%}, "
        f"ties {certificate['judge_ties']:.1%} (humans {certificate['human_ties']:.1%})"
    )
    if certificate["judge_longer"] is not None and certificate["human_longer"] is not None:
        measured += f", longer wins {certificate['judge_longer']:.1%} (humans {certificate['human_longer']:.1%})"
    numbers = [Column(title, form=".3f") for title in ("log loss", "se", "below the prior", "se of it")]
    rows = [[s["name"], s["log_loss"], s["error"], s["gain"], s["gain_error"]] for s in certificate["steps"]]
    return [
        own,
        measured,
        f"its verdicts on these: {judge['human_verdicts']}",
        Table([Column("verdicts"), *numbers], rows),
        *([f"REFUSED: {judge['fault']}"] if judge["fault"] else []),
    ]


def _filters(report: Mapping[str, Any]) -> Table:
    """What each filter loses of all rows, and what it does by itself to how far each judge is below the prior."""
    columns = [
        Column("filter"),
        Column("rows lost", "rows_lost", form=",d"),
        Column("of", "rows", form=",d"),
        Column("judge", drop=1),
        Column("below the prior", "gain", form=".4f"),
        Column("without them", "gain_after", form=".4f"),
    ]
    rows = [
        [each["filter"], each["rows_lost"], each["rows"], name, effect["gain"], effect["gain_after"]]
        for each in report["filters"]
        for name, judge in report["judges"].items()
        for effect in judge["filters"]
        if effect["filter"] == each["filter"]
    ]
    return Table(columns, rows)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 3] + "..."
