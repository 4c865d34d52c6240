"""Figures of a plan's page as inline SVG.

Schedule, frontier, what the budget bought and reliability, readable in greyscale.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ensemble.budget.duration import format_seconds
from ensemble.plan import Job, Plan, candidate_words
from ensemble.report.frontier import band, round_times

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHADES = ("#1b1b1b", "#0072b2", "#d55e00", "#7a7a7a", "#009e73", "#b58900")  # one a member, told apart by hatching too
HATCHES = ("", "//", "..", "xx", "\\\\", "++")


def svg(figure: Figure) -> str:
    """A figure as an SVG element that needs nothing else; text stays text.

    The same figure gives the same element.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "plan", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text[text.index("<svg") :]


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def unique_ids(element: str, prefix: str) -> str:
    """An SVG element whose ids begin with `prefix`: several on one page must not share any."""
    element = re.sub(r'\bid="', f'id="{prefix}-', element)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", element)


def clock(axes: Axes, longest: float) -> None:
    """Ticks of the horizontal axis in the unit that reads well: seconds, minutes or hours."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    unit, name = (3600.0, "hours") if longest >= 2 * 3600 else (60.0, "minutes") if longest >= 120 else (1.0, "seconds")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / unit:g}"))
    steps = MaxNLocator(nbins=9, steps=[1, 2, 5, 10]).tick_values(0, longest / unit)
    axes.set_xticks([step * unit for step in steps if step * unit <= longest * 1.02])
    axes.set_xlabel(name)


def schedule_figure(plan: Plan) -> Figure:
    """Who runs where and when, with the predicted end, the margin and the budget.

    A row a device, bars as wide as their time.
    """
    devices = plan.target.devices
    figure, axes = _figure(9.5, 1.5 + 0.62 * devices)
    names = [member.name for member in plan.members]
    axes.barh(range(devices), plan.overhead_seconds, color="0.85", edgecolor="0.5", height=0.62, label="start and joining")
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
                facecolor="white",
                edgecolor=SHADES[place],
                hatch=HATCHES[place],
            )
            if width > 0.09 * plan.budget_seconds:
                middle = job.start_seconds + width / 2
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
                axes.text(middle, device, job_name(job), ha="center", va="center", fontsize=9, bbox=box)
    for label, color, hatch in {names.index(j.members[0]): _legend(plan, j) for j in plan.schedule}.values():
        axes.barh(0, 0, facecolor="white", edgecolor=color, hatch=hatch, label=label)
    marks = [(end, "-", "predicted end"), (end * plan.margin, "--", f"times margin {plan.margin:g}")]
    marks.append((plan.budget_seconds, ":", f"budget {format_seconds(plan.budget_seconds)}"))
    for at, style, label in marks:
        axes.axvline(at, color="#1b1b1b", linestyle=style, linewidth=1.6, label=label)
    name = "GPU" if plan.target.gpus else "processor"
    axes.set_yticks(range(devices), [f"{name} {device}" for device in range(devices)])
    axes.set(xlim=(0, plan.budget_seconds * 1.03), ylim=(devices - 0.4, -0.6))
    clock(axes, plan.budget_seconds)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def job_name(job: Job) -> str:
    return " + ".join(job.members) + (f" ({job.row_share:.0%})" if job.replicas > 1 else "")


def _legend(plan: Plan, job: Job) -> tuple[str, str, str]:
    place = [member.name for member in plan.members].index(job.members[0]) % len(SHADES)
    return " + ".join(job.members), SHADES[place], HATCHES[place]


def frontier_figure(plan: Plan) -> Figure:
    """The least log loss at each budget among the plans that this build considered.

    The plan itself is the star.
    """
    figure, axes = _figure(5.6, 4.2)
    points = plan.frontier
    budget = np.array([point.budget_seconds for point in points])
    loss = np.array([point.oof_log_loss for point in points])
    error = band(points)
    axes.errorbar(
        budget,
        loss,
        yerr=error,
        color=SHADES[0],
        marker="o",
        drawstyle="steps-post",
        capsize=3,
        label="others, not rehearsed",
    )
    own = plan.predicted_seconds * plan.margin
    axes.plot([own], [plan.oof_log_loss], marker="*", markersize=16, color=SHADES[2], linestyle="none", label="this plan")
    axes.axvline(plan.budget_seconds, color="#1b1b1b", linestyle=":", label=f"budget {format_seconds(plan.budget_seconds)}")
    axes.set(xscale="log", xlabel="budget, margin included", ylabel="log loss out of fold, nats")
    round_times(axes, budget.min() / 1.3, max(plan.budget_seconds, budget.max()) * 1.3)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    return figure


def bought_figure(plan: Plan) -> Figure:
    """Log loss of the plan and of the baselines, the best at the top."""
    rows = sorted([("this plan", plan.oof_log_loss), *plan.baselines.items()], key=lambda row: row[1])
    figure, axes = _figure(5.6, 0.9 + 0.42 * len(rows))
    places = range(len(rows))
    for place, (name, loss) in enumerate(rows):
        own = name == "this plan"
        axes.plot(loss, place, marker="*" if own else "o", markersize=15 if own else 8, color=SHADES[2] if own else SHADES[0])
        axes.annotate(f"{loss:.4f}", (loss, place), xytext=(12, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(places, [candidate_words(name) for name, _ in rows])
    axes.margins(x=0.22, y=0.1)
    axes.set_xlabel("log loss, nats")
    axes.grid(axis="y", color="0.88")
    axes.set_axisbelow(True)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw(plan: Plan, blended: tuple[np.ndarray, np.ndarray] | None) -> dict[str, str]:
    """The figures of a plan's page as SVG elements by name, those there is data for.

    `blended`: the blend's probabilities (rows, 3) and the labels (rows,), where the members' tables are at hand.
    """
    from zoo.report.figures import reliability

    makers: dict[str, Callable[[], Figure]] = {"schedule": lambda: schedule_figure(plan), "bought": lambda: bought_figure(plan)}
    if len(plan.frontier) > 1:
        makers["frontier"] = lambda: frontier_figure(plan)
    if blended is not None:
        makers["reliability"] = lambda: reliability(*blended)
    return {name: unique_ids(svg(make()), name) for name, make in makers.items()}


def widths(values: Sequence[float]) -> list[float]:
    """Values as percentages of the largest, for bars in a table."""
    top = max([abs(value) for value in values], default=0.0) or 1.0
    return [100 * max(value, 0.0) / top for value in values]
