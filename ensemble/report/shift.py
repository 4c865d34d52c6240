"""What a plan knows of other battles, as text: its calibration, and groups left out."""

from __future__ import annotations

from ensemble.plan import Calibration, Plan
from zoo.errors import amount
from zoo.report.text import Cell, Column, Table

_TAKEN = "; it is shrunk, and folds of so few rows do not speak surely against it, so it is taken"


def shift_lines(plan: Plan) -> list[str | Table]:
    """Lines and a table for a plan's page; nothing where it knows nothing of other battles."""
    lines: list[str | Table] = [] if plan.calibration is None else [told_of(plan.calibration)]
    if plan.robust is None:
        return lines
    columns = [
        Column(f"without {plan.robust.column}", "group"),
        Column("log loss on it", "log_loss", ".4f"),
        Column("se", "log_loss_se", ".4f"),
        Column("rows", form=",", drop=1),
    ]
    groups = sorted(plan.robust.groups, key=lambda group: -group.log_loss)
    return [*lines, "", Table(columns, [[group.name, group.log_loss, group.log_loss_se, group.rows] for group in groups])]


def shift_details(plan: Plan) -> list[tuple[str, str]]:
    """The same as terms and texts, for the page in HTML."""
    found = [] if plan.calibration is None else [("Calibration", told_of(plan.calibration))]
    if plan.robust is not None:
        losses = ", ".join(f"{group.name} {group.log_loss:.4f} ({amount(group.rows, 'row')})" for group in plan.robust.groups)
        found.append((f"Built without each {plan.robust.column} in turn", f"log loss on it: {losses}"))
    return found


def calibration_table(calibration: Calibration) -> Table:
    """Log loss with and without a calibration, taken or not, by prompt folds."""
    columns = [
        Column("plan", "name"),
        Column("log loss", "log_loss", ".4f"),
        Column("se", "log_loss_se", ".4f"),
        Column("gain", form="+.4f"),
        Column("gain se", "gain_se", ".4f"),
        Column("rows", form=",", drop=1),
    ]
    before: list[Cell] = [
        "as it was",
        calibration.log_loss_before,
        calibration.log_loss_before_se,
        None,
        None,
        calibration.rows,
    ]
    after: list[Cell] = ["recalibrated", calibration.log_loss, calibration.log_loss_se]
    if not calibration.kept:
        after = ["recalibrated, not taken", calibration.log_loss_before - calibration.gain, None]
    return Table(columns, [before, [*after, calibration.gain, calibration.gain_se, calibration.rows]])


def told_of(calibration: Calibration) -> str:
    """What a calibration does and gained, in one line."""
    against = f"{calibration.log_loss_before:.4f} without"
    rows = f"{amount(calibration.rows, 'row')} of {amount(calibration.prompts, 'prompt')}"
    gain = f"gain {calibration.gain:+.4f} ± {calibration.gain_se:.4f}"
    if not calibration.kept:
        return f"calibration on {calibration.battles}: none, since by prompt folds it would lose ({gain}; {against}, {rows})"
    share = f", {calibration.equal_share:.0%} of equal weights" if calibration.equal_share else ""
    return (
        f"calibration on {calibration.battles}: temperature {calibration.temperature:.3f}, tie bias "
        f"{calibration.tie_bias:+.3f}{share}; by prompt folds log loss {calibration.log_loss:.4f} ± "
        f"{calibration.log_loss_se:.4f}, {against}: {gain} ({rows})" + _TAKEN * (calibration.gain <= 0)
    )
