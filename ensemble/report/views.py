"""Plans and frontiers as text for people."""

from __future__ import annotations

from collections.abc import Sequence

from ensemble.budget.foretold import MARK, forecast_lines
from ensemble.plan import Blend, FrontierPoint, Plan, PlanStudy
from ensemble.report.shift import shift_lines
from ensemble.report.why import why_blocks
from zoo.errors import amount
from zoo.report.duration import format_seconds
from zoo.report.text import Cell, Column, Page, Table, lowest


def plan_page(plan: Plan) -> Page:
    """A plan as text: predicted log loss and time, members, schedule, baselines."""
    page: list[str | Table] = [
        f"log loss {plan.oof_log_loss:.4f} +- {plan.oof_log_loss_se:.4f}{_accuracy(plan)} out of fold on "
        f"{plan.fitted_rows:,} rows",
        *([] if plan.ties else ["no battle of this kind is a tie: p_tie is 0 in every row"]),
        *_time_lines(plan),
        *forecast_lines([(m.name, m.cost, m.predicted_seconds) for m in plan.members]),
        f"chosen: {plan.parsimony}",
        f"blended by: {pool_text(plan)}",
        *([f"log loss: {plan.estimate}"] if plan.estimate else []),
        *([unseen] if (unseen := unseen_text(plan)) else []),
        *shift_lines(plan),
        *("", members_table(plan)),
        *(("", schedule_table(plan)) if plan.has_prices else ()),
        *("", baselines_table(plan)),
    ]
    if plan.whole_file_oof_log_loss is not None and any(m.gate for m in plan.members):
        page.append(f"best plan in which every member sees every row: {plan.whole_file_oof_log_loss:.4f}")
    if plan.bound is not None:
        page.append(
            f"search: {plan.bound.method}, {amount(plan.bound.subsets, 'affordable set')}, "
            f"in-sample gap to the bound {plan.bound.gap:.1e}"
        )
    if plan.study is not None:
        page.append(f"study: {study_text(plan, plan.study)}; `ensemble study PLAN` shows it, and how to open it")
    page += why_blocks(plan)
    return [*page, *(f"left out: {name}: {reason}" for name, reason in plan.left_out.items())]


def _time_lines(plan: Plan) -> list[str]:
    """What the prediction takes, and of which budget."""
    if not plan.has_prices:
        return ["of tables that nobody priced: nothing runs, and no budget binds; --seconds or --like with --budget price them"]
    allowed = plan.predicted_seconds * plan.margin
    return [
        f"{amount(plan.rows, 'row')} on {plan.target.name}: predicted {format_seconds(plan.predicted_seconds)}, times margin "
        f"{plan.margin:.4g} = {format_seconds(allowed)} of {format_seconds(plan.budget_seconds)}",
        f"margin {plan.margin:.4g}: {plan.margin_reason}",
    ]


def _accuracy(plan: Plan) -> str:
    return "" if plan.oof_accuracy is None else f", accuracy {plan.oof_accuracy:.4f}"


def members_table(plan: Plan) -> Table:
    """The members in the order they run; with their accuracy where the plan knows no ties."""
    columns = [
        Column("member"),
        Column("weight", form=".3f"),
        Column("coverage", form=".0%", drop=1),
        *([Column("takes", "predicted_seconds", format_seconds)] if plan.has_prices else []),
        Column("alone", "oof_log_loss", ".4f"),
        *_accuracies(plan),
        *([Column("cost", "cost_is")] if any(m.cost.forecast for m in plan.members) else []),
    ]
    rows: list[list[Cell]] = [
        [
            *(m.name, m.weight, m.coverage),
            *([m.predicted_seconds] if plan.has_prices else []),
            m.oof_log_loss,
            *([] if plan.ties else [m.oof_accuracy]),
            *([MARK if m.cost.forecast else ""] if any(other.cost.forecast for other in plan.members) else []),
        ]
        for m in plan.members
    ]
    return Table(columns, rows)


def _accuracies(plan: Plan) -> list[Column]:
    """The column of accuracies, where it says more than log loss: of plans that know no ties."""
    return [] if plan.ties else [Column("accuracy", "oof_accuracy", ".4f")]


def schedule_table(plan: Plan) -> Table:
    """What runs when, and where."""
    columns = [
        Column("job", prose=True),
        Column("devices"),
        Column("start", "start_seconds", format_seconds),
        Column("end", "end_seconds", format_seconds),
    ]
    rows: list[list[Cell]] = []
    for job in plan.schedule:
        share = f" ({job.row_share:.0%} of its rows)" if job.replicas > 1 else ""
        devices = ", ".join(map(str, job.devices))
        rows.append([" + ".join(job.members) + share, devices, job.start_seconds, job.end_seconds])
    return Table(columns, rows)


def baselines_table(plan: Plan) -> Table:
    """Log loss of what was rehearsed beside the plan, the best first, and the plan against it.

    What the plan is made of says so: its own line is the rehearsal of that, without the choice that led to it.
    """
    paired = {item.other: (item.difference, item.standard_error) for item in plan.paired}
    columns = [
        Column("beside it", "name", prose=True),
        Column("members", "members", drop=2),
        Column("log loss", "log_loss", ".4f"),
        *_accuracies(plan),
        Column("plan against it", "change", "+.4f"),
        Column("se", "change_se", ".4f", drop=1),
    ]
    rows: list[list[Cell]] = []
    for name, loss in sorted(plan.baselines.items(), key=lambda item: item[1]):
        members = plan.baseline_members.get(name)
        right = [] if plan.ties else [plan.baseline_accuracies.get(name)]
        count = len(members) if members else None
        rows.append([taken_text(plan, name), count, loss, *right, *paired.get(name, (None, None))])
    return Table(columns, rows)


def frontier_table(points: Sequence[FrontierPoint]) -> Table:
    """The frontier, the smallest budget first; the lowest log loss is marked."""
    has_accuracy = any(point.oof_accuracy is not None for point in points)
    paired = any(point.beside_best for point in points)
    columns = [
        Column("budget", "budget_seconds", format_seconds),
        Column("predicted", "predicted_seconds", format_seconds, drop=1),
        Column("log loss", "oof_log_loss", ".4f"),
        Column("se", "oof_log_loss_se", ".4f", drop=2),
        *([Column("accuracy", "oof_accuracy", ".4f")] if has_accuracy else []),
        *(
            [Column("above best", "above_best", "+.4f", drop=3), Column("its se", "above_best_se", ".4f", drop=4)]
            if paired
            else []
        ),
        Column("members", prose=True),
    ]
    rows: list[list[Cell]] = []
    for point in points:
        shares = zip(point.members, point.coverage, strict=True)
        members = " + ".join(name if share == 1 else f"{name} on {share:.0%}" for name, share in shares)
        right = [point.oof_accuracy] if has_accuracy else []
        best = point.beside_best
        above = ([best.difference, best.standard_error] if best else [None, None]) if paired else []
        seconds = [point.budget_seconds, point.predicted_seconds]
        rows.append([*seconds, point.oof_log_loss, point.oof_log_loss_se, *right, *above, members])
    return Table(columns, rows, lowest([point.oof_log_loss for point in points]))


def taken_text(plan: Plan, name: str) -> str:
    """A candidate's name, and whether it is what the plan is."""
    return f"{name}, taken" if name == plan.chosen else name


def study_text(plan: Plan, study: PlanStudy) -> str:
    """A plan's study, in a few words."""
    fit = f", {study.feasible:.0%} fit the budget" if plan.has_prices else ""
    return f"{study.name}, {amount(study.trials, 'trial')}{fit}"


def unseen_text(plan: Plan) -> str:
    """What the plan keeps for labels that no fitting row had; nothing where all occurred."""
    side, _, tie = plan.pools[0].blend.least
    kept = [f"{share:.4f} for {label}" for share, label in ((side, "A and for B"), (tie, "a tie")) if share]
    labels = f"labels that none of the {plan.fitted_rows:,} fitting rows has keep a share in every row: "
    return labels + " and ".join(kept) if kept else ""


def pool_text(plan: Plan) -> str:
    """What blends the members, and what takes its place where a row lacks some."""
    full = next(pool.blend for pool in plan.pools if len(pool.members) == len(plan.members) and not pool.planned)
    plain = full
    while plain.parts:
        plain = plain.parts[0]
    if not full.parts or len(plan.members) == 1:
        return _pool_name(full)
    return f"{_pool_name(full)}; rows that lack a member get a {_pool_name(plain)} of the others"


def _pool_name(blend: Blend) -> str:
    if blend.pool == "geometric":
        parts = (f"{w:.0%} of a {_pool_name(part)}" for w, part in zip(blend.part_weights, blend.parts, strict=True))
        return "geometric mean: " + " and ".join(parts)
    if blend.trees is not None:
        counts = f"{len(blend.trees.lead)} boosted trees for the side, {len(blend.trees.tie)} for a tie"
        counts += ", which read lengths" if blend.trees.read_lengths else ""
        return f"{_pool_name(blend.parts[0])} corrected by {counts}"
    return f"{blend.pool.replace('_', '-')} pool"


def paired_text(plan: Plan, name: str) -> str:
    """How much better a plan is than a baseline; nothing where they were not compared."""
    found = next((item for item in plan.paired if item.other == name), None)
    return f"{found.difference:+.4f} +- {found.standard_error:.4f}" if found else ""
