"""Figures of a plan's page as inline SVG.

Schedule, frontier, what the budget bought and reliability, readable in greyscale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble.plan import Job, Plan, candidate_words
from ensemble.report.frontier import band
from zoo.errors import amount
from zoo.report.drawing import FAINT, GREY, HATCHES, INK, ORANGE, SHADES, clock, entitle, one_panel, round_times, styled, svg
from zoo.report.duration import format_seconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def schedule_figure(plan: Plan) -> Figure:
    """Who runs where and when, with the predicted end, the margin and the budget.

    A row a device, bars as wide as their time.
    """
    devices = plan.target.devices
    figure, axes = one_panel(9.5, 1.9 + 0.62 * devices)
    names = [member.name for member in plan.members]
    axes.barh(range(devices), plan.overhead_seconds, color=FAINT, edgecolor=GREY, height=0.62, label="start and joining")
    end = plan.predicted_seconds
    for job in plan.schedule:
        place = names.index(job.members[0]) % len(SHADES)
        for device in job.devices:
            width = job.end_seconds - job.start_seconds
            axes.barh(
                device,
                width,
                left=job.start_seconds,
                height=0.62,
                facecolor="#ffffff",
                edgecolor=SHADES[place],
                hatch=HATCHES[place],
            )
            if width > 0.09 * plan.budget_seconds:
                middle = job.start_seconds + width / 2
                box = {"facecolor": "#ffffff", "edgecolor": "none", "pad": 1.5}
                axes.text(middle, device, job_name(job), ha="center", va="center", fontsize=9, bbox=box)
    for label, color, hatch in {names.index(j.members[0]): _legend(plan, j) for j in plan.schedule}.values():
        axes.barh(0, 0, facecolor="#ffffff", edgecolor=color, hatch=hatch, label=label)
    marks = [(end, "-", "predicted end"), (end * plan.margin, "--", f"times margin {plan.margin:g}")]
    marks.append((plan.budget_seconds, ":", f"budget {format_seconds(plan.budget_seconds)}"))
    for at, style, label in marks:
        axes.axvline(at, color=INK, linestyle=style, linewidth=1.6, label=label)
    name = "GPU" if plan.target.gpus else "processor"
    axes.set_yticks(range(devices), [f"{name} {device}" for device in range(devices)])
    axes.set(xlim=(0, plan.budget_seconds * 1.03), ylim=(devices - 0.4, -0.6))
    clock(axes, plan.budget_seconds)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(left=False)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    entitle(figure, "Schedule", f"{amount(plan.rows, 'row')} on {plan.target.name}")
    return figure


def job_name(job: Job) -> str:
    return " + ".join(job.members) + (f" ({job.row_share:.0%})" if job.replicas > 1 else "")


def _legend(plan: Plan, job: Job) -> tuple[str, str, str]:
    place = [member.name for member in plan.members].index(job.members[0]) % len(SHADES)
    return " + ".join(job.members), SHADES[place], HATCHES[place]


@styled
def frontier_figure(plan: Plan) -> Figure:
    """The least log loss at each budget among the plans that this build considered.

    The plan itself is the star.
    """
    figure, axes = one_panel(5.6, 4.6)
    points = plan.frontier
    budget = np.array([point.budget_seconds for point in points])
    loss = np.array([point.oof_log_loss for point in points])
    error = band(points)
    axes.errorbar(
        budget,
        loss,
        yerr=error,
        color=INK,
        marker="o",
        drawstyle="steps-post",
        capsize=3,
        label="others, not rehearsed",
    )
    own = plan.predicted_seconds * plan.margin
    axes.plot([own], [plan.oof_log_loss], marker="*", markersize=16, color=ORANGE, linestyle="none", label="this plan")
    axes.axvline(plan.budget_seconds, color=INK, linestyle=":", label=f"budget {format_seconds(plan.budget_seconds)}")
    axes.set(xscale="log", xlabel="budget, margin included", ylabel="log loss out of fold, nats")
    round_times(axes, budget.min() / 1.3, max(plan.budget_seconds, budget.max()) * 1.3)
    axes.grid()
    axes.legend()
    entitle(
        figure, "Log loss against budget", f"{plan.target.name}, {plan.fitted_rows:,} rows of data {plan.dataset_digest[:8]}"
    )
    return figure


@styled
def bought_figure(plan: Plan) -> Figure:
    """Log loss of the plan and of the baselines, the best at the top.

    Bars are one standard error of the difference from the plan, row by row, where that is known.
    """
    errors = {item.other: item.standard_error for item in plan.paired}
    beside = [(name, loss) for name, loss in plan.baselines.items() if name != "uniform"]  # far from all others
    rows = sorted([("this plan", plan.oof_log_loss), *beside], key=lambda row: row[1])
    figure, axes = one_panel(5.6, 1.3 + 0.42 * len(rows))
    places = range(len(rows))
    for place, (name, loss) in enumerate(rows):
        own = name == "this plan"
        marks: dict[str, Any] = {"marker": "*" if own else "o", "markersize": 15 if own else 7, "color": ORANGE if own else INK}
        axes.errorbar(loss, place, xerr=errors.get(name), capsize=3, linestyle="none", ecolor=GREY, **marks)
        axes.annotate(f"{loss:.4f}", (loss, place), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=8.5)
    axes.set_yticks(places, [candidate_words(name) for name, _ in rows])
    axes.margins(x=0.14)
    axes.set_ylim(len(rows) - 0.5, -0.7)
    axes.set_xlabel("log loss, nats; bars: error of the difference" if errors else "log loss, nats")
    axes.grid(axis="y")
    axes.tick_params(left=False)
    entitle(
        figure,
        "The plan beside what needs no search",
        f"{plan.fitted_rows:,} rows of data {plan.dataset_digest[:8]}, rehearsed",
    )
    return figure


def draw(plan: Plan, blended: tuple[np.ndarray, np.ndarray] | None) -> dict[str, str]:
    """The figures of a plan's page as SVG elements by name, those there is data for.

    `blended`: the blend's probabilities (rows, 3) and the labels (rows,), where the members' tables are at hand.
    """
    from zoo.report.figures import reliability

    of = f"the blend, data {plan.dataset_digest[:8]}"
    makers: dict[str, tuple[Callable[[], Figure], str]] = {
        "schedule": (lambda: schedule_figure(plan), _schedule_said(plan)),
        "bought": (
            lambda: bought_figure(plan),
            "Log loss of the plan and of what needs no search; the table beside has the numbers",
        ),
    }
    if len(plan.frontier) > 1:
        low, high = (point.oof_log_loss for point in (plan.frontier[-1], plan.frontier[0]))
        said = f"Log loss against budget: from {high:.4f} for the cheapest plan to {low:.4f} for the dearest"
        makers["frontier"] = (lambda: frontier_figure(plan), said)
    if blended is not None:
        p, y = blended
        said = "Reliability of the blend: share that happened against predicted probability"
        makers["reliability"] = (lambda: reliability(p, y, ties=plan.ties, of=of), said)
    return {name: svg(make(), name, said) for name, (make, said) in makers.items()}


def _schedule_said(plan: Plan) -> str:
    """The schedule for those who do not see it."""
    jobs = (f"{job_name(job)} until {format_seconds(job.end_seconds)}" for job in plan.schedule)
    return f"Schedule: {'; '.join(jobs)}; budget {format_seconds(plan.budget_seconds)}"


def widths(values: Sequence[float]) -> list[float]:
    """Values as percentages of the largest, for bars in a table."""
    top = max([abs(value) for value in values], default=0.0) or 1.0
    return [100 * max(value, 0.0) / top for value in values]
