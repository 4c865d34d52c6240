"""Why a plan has its members and not others, as text and tables for `show` and the page."""

from __future__ import annotations

from ensemble.plan import Change, MemberReason, Plan
from zoo.errors import amount
from zoo.report.duration import format_seconds
from zoo.report.text import Cell, Column, Table

MOST_OTHERS = 12  # lines of members that are not in the plan; all of them are in JSON and on the page
MOST_ALIKE = 8  # members whose correlations a terminal has room for


def why_blocks(plan: Plan) -> list[str | Table]:
    """What `show` says of why; nothing of a plan that does not know."""
    if plan.reasons is None:
        return []
    table, hidden = others_table(plan), len(others(plan)) - MOST_OTHERS
    shown = Table(table.columns, table.rows[:MOST_OTHERS])
    more = [f"and {hidden} more, which would gain less: --json and --html have all"] if hidden > 0 else []
    blocks: list[str | Table] = ["", own_table(plan), *([""] if table.rows else []), shown, *more]
    if (dear := exchange_table(plan)).rows:
        blocks += ["", Table(dear.columns, dear.rows[:MOST_OTHERS])]
    blocks += [f"judged {judged_text(plan)}", *([next_text(plan)] if plan.has_prices else [])]
    return blocks + (["", alike, ALIKE_NOTE] if (alike := alike_table(plan)).rows else [])


ALIKE_NOTE = "correlation of log losses by row: members that err alike (towards 1) have little to give to one another"


def own_table(plan: Plan) -> Table:
    """The plan's members: recalibrated alone, and the plan without each."""
    columns = [
        Column("in the plan", "member", prose=True),
        Column("alone", "oof_log_loss", ".4f", drop=1),
        Column("recalibrated", "recalibrated_log_loss", ".4f"),
        Column("without it", "without_it", "+.4f"),
        Column("se", "without_it_se", ".4f"),
        *([Column("saves", "saved_seconds", format_seconds)] if plan.has_prices else []),
    ]
    rows: list[list[Cell]] = []
    for reason in own(plan):
        numbers = _numbers(reason.without_it, saved=True)[: 3 if plan.has_prices else 2]
        rows.append([reason.name, reason.oof_log_loss, reason.recalibrated_log_loss, *numbers])
    return Table(columns, rows)


def others_table(plan: Plan) -> Table:
    """What else there is, what would gain most first, and the plan with each."""
    columns = [
        Column("not in the plan", "member", prose=True),
        Column("alone", "oof_log_loss", ".4f", drop=2),
        Column("recalibrated", "recalibrated_log_loss", ".4f", drop=3),
        Column("with it", "with_it", "+.4f"),
        Column("se", "with_it_se", ".4f", drop=1),
        *([Column("takes", "more_seconds", format_seconds)] if plan.has_prices else []),
        Column("better", "is_better"),
        *([Column("fits")] if plan.has_prices else []),
    ]
    rows: list[list[Cell]] = []
    for reason in others(plan):
        alone, numbers, words = (
            (reason.oof_log_loss, reason.recalibrated_log_loss),
            _numbers(reason.with_it),
            verdict(reason.with_it),
        )
        judged = (*numbers, *words) if plan.has_prices else (*numbers[:2], words[0])
        rows.append([candidate_name(plan, reason), *alone, *judged])
    return Table(columns, rows)


def exchange_table(plan: Plan) -> Table:
    """What does not fit beside the plan, in the place of a member: the best first."""
    columns = [
        Column("too dear beside the plan", "member", prose=True),
        Column("in place of", "in_place_of", prose=True),
        Column("exchanged", "exchanged", "+.4f"),
        Column("se", "exchanged_se", ".4f", drop=1),
        Column("takes", "more_seconds", format_seconds),
        Column("better", "is_better"),
    ]
    rows: list[list[Cell]] = [
        [reason.name, reason.in_place_of, *_numbers(reason.exchanged), verdict(reason.exchanged)[0]]
        for reason in exchanges(plan)
    ]
    return Table(columns, rows)


def alike_table(plan: Plan, most: int = MOST_ALIKE) -> Table:
    """Correlation of the errors of so many members; no rows where the plan does not know it."""
    found = plan.error_correlation
    names = () if found is None else found.members[:most]
    columns = [
        Column("errors of", "member", prose=True),
        *(Column(str(place), form=".2f") for place in range(1, len(names) + 1)),
    ]
    matrix = () if found is None else found.correlation
    return Table(columns, [[f"{place} {name}", *matrix[place - 1][:most]] for place, name in enumerate(names, start=1)])


def verdict(change: Change | None) -> tuple[str, str]:
    """Whether a changed plan is better, and whether it fits the budget, in a word or two."""
    if change is None:
        return "not judged", "-"
    better = "surely" if change.is_better else "surely not" if change.sure else "not surely"
    return better, "yes" if change.fits else "no"


def judged_text(plan: Plan) -> str:
    """How the changes of a plan that knows its reasons were judged."""
    assert plan.reasons is not None
    rows = plan.reasons.rows
    of = f"all {rows:,} rows" if rows == plan.fitted_rows else f"{rows:,} of the {plan.fitted_rows:,} rows, taken evenly"
    missing = sum(reason.without_it is None and len(plan.members) > 1 for reason in own(plan))
    missing += sum(reason.with_it is None for reason in others(plan))
    unjudged = f"; {amount(missing, 'change')}, of the members that are worst alone, not judged" if missing else ""
    return f"out of fold on {of}, by {plan.reasons.pool}; below zero the changed plan is better{unjudged}"


def next_text(plan: Plan) -> str:
    """What a larger budget would buy: the nearest surely better plan, or none, and everybody."""
    changes = [(reason, change) for reason in others(plan) if (change := reason.with_it) is not None]
    dear = [(reason, change) for reason, change in changes if not change.fits]
    better = sorted(((r, c) for r, c in dear if c.is_better), key=lambda item: item[1].budget_seconds)
    if plan.reasons is None or not changes:
        return "more budget: would buy nothing, every candidate is in the plan and sees every row"
    if not dear:
        steps = ["is not needed: each other candidate would fit beside this plan"]
    elif not better:
        none = "what does not" if len(dear) == 1 else f"none of the {len(dear)} that do not"
        steps = [f"{none} fit beside this plan would surely add {'nothing' if len(dear) == 1 else 'anything'} by itself"]
    else:
        most = min(better, key=lambda item: item[1].log_loss)
        steps = [_step(candidate_name(plan, reason), change) for reason, change in dict.fromkeys((better[0], most))]
    if (everyone := plan.reasons.everyone) is not None and len(changes) > 1:
        steps.append(_step(f"all {len(plan.reasons.members)} candidates", everyone))
    return f"more budget: {'; '.join(steps)}"


def _step(what: str, change: Change) -> str:
    sure = "" if change.sure else ", not surely"
    return f"{what}: {change.log_loss:+.4f} (se {change.standard_error:.4f}{sure}) at {format_seconds(change.budget_seconds)}"


def candidate_name(plan: Plan, reason: MemberReason) -> str:
    """A candidate by its name; one of the plan stands for seeing every row."""
    return f"{reason.name} on every row" if _is_in(plan, reason) else reason.name


def _numbers(change: Change | None, *, saved: bool = False) -> tuple[Cell, Cell, Cell]:
    if change is None:
        return None, None, None
    return change.log_loss, change.standard_error, -change.seconds if saved else change.seconds


def _is_in(plan: Plan, reason: MemberReason) -> bool:
    return any(member.name == reason.name for member in plan.members)


def own(plan: Plan) -> list[MemberReason]:
    """The plan's members, in the order they run."""
    return [reason for reason in plan.reasons.members if _is_in(plan, reason)] if plan.reasons else []


def others(plan: Plan) -> list[MemberReason]:
    """Members that are not in the plan, and those in it that do not see every row."""
    gated = {member.name for member in plan.members if member.gate}
    reasons = plan.reasons.members if plan.reasons else ()
    found = [reason for reason in reasons if not _is_in(plan, reason) or reason.name in gated]
    return sorted(found, key=lambda reason: reason.with_it.log_loss if reason.with_it else float("inf"))


def exchanges(plan: Plan) -> list[MemberReason]:
    """Members that were judged in the place of one of the plan's."""
    found = [(reason, reason.exchanged) for reason in (plan.reasons.members if plan.reasons else ()) if reason.exchanged]
    return [reason for reason, _ in sorted(found, key=lambda item: item[1].log_loss)]
