"""Plans and frontiers as text for people."""

from __future__ import annotations

from collections.abc import Sequence

from ensemble.budget.duration import format_seconds
from ensemble.plan import FrontierPoint, Plan
from zoo.report.text import text_table


def plan_text(plan: Plan) -> str:
    """A plan as text: predicted log loss and time, members, schedule, baselines."""
    allowed = plan.predicted_seconds * plan.margin
    lines = [
        f"log loss {plan.oof_log_loss:.4f} +- {plan.oof_log_loss_se:.4f} out of fold on {plan.fitted_rows:,} rows",
        f"{plan.rows:,} rows on {plan.target.name}: predicted {format_seconds(plan.predicted_seconds)}, times margin "
        f"{plan.margin:g} = {format_seconds(allowed)} of {format_seconds(plan.budget_seconds)}",
        f"margin {plan.margin:g}: {plan.margin_reason}",
        f"chosen: {plan.parsimony}",
        *([f"log loss: {plan.estimate}"] if plan.estimate else []),
        "",
        *_lines(
            ("member", "weight", "coverage", "seconds", "alone"),
            [
                (m.name, f"{m.weight:.3f}", f"{m.coverage:.0%}", f"{m.predicted_seconds:.1f}", f"{m.oof_log_loss:.4f}")
                for m in plan.members
            ],
        ),
        "",
        *_lines(
            ("job", "devices", "start", "end"),
            [
                (
                    " + ".join(job.members) + (f" ({job.row_share:.0%} of its rows)" if job.replicas > 1 else ""),
                    ", ".join(map(str, job.devices)),
                    format_seconds(job.start_seconds),
                    format_seconds(job.end_seconds),
                )
                for job in plan.schedule
            ],
        ),
        "",
        *_lines(
            ("beside it", "log loss", "plan against it"),
            [
                (name, f"{value:.4f}", paired_text(plan, name))
                for name, value in sorted(plan.baselines.items(), key=lambda x: x[1])
            ],
        ),
    ]
    if plan.whole_file_oof_log_loss is not None and any(m.gate for m in plan.members):
        lines.append(f"best plan in which every member sees every row: {plan.whole_file_oof_log_loss:.4f}")
    if plan.bound is not None:
        lines.append(
            f"search: {plan.bound.method}, {plan.bound.subsets} affordable sets, "
            f"in-sample gap to the bound {plan.bound.gap:.1e}"
        )
    lines += [f"left out: {name}: {reason}" for name, reason in plan.left_out.items()]
    return "\n".join(lines)


def frontier_text(points: Sequence[FrontierPoint]) -> str:
    """The frontier as a table, the smallest budget first."""
    rows = [
        (
            format_seconds(point.budget_seconds),
            format_seconds(point.predicted_seconds),
            f"{point.oof_log_loss:.4f} +- {point.oof_log_loss_se:.4f}",
            " + ".join(
                name if share == 1 else f"{name} on {share:.0%}"
                for name, share in zip(point.members, point.coverage, strict=True)
            ),
        )
        for point in points
    ]
    return text_table(("budget", "predicted", "log loss", "members"), rows)


def paired_text(plan: Plan, name: str) -> str:
    """How much better a plan is than a baseline, with its standard error.

    Nothing where they were not compared.
    """
    found = next((item for item in plan.paired if item.other == name), None)
    return f"{found.difference:+.4f} +- {found.standard_error:.4f}" if found else ""


def _lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return text_table(header, rows).splitlines()
