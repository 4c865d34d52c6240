"""Build the plan: the best log loss that the budget can buy on the target."""

from __future__ import annotations

from dataclasses import replace

from ensemble.budget.margin import choose_margin, warn_of_kinds
from ensemble.budget.pricing import price
from ensemble.members.table import Members
from ensemble.plan import Plan, PlanTarget
from ensemble.pools.crossfit import Progress
from ensemble.search.assemble import write_down
from ensemble.search.chooser import Chooser
from ensemble.search.decide import BuildRequest, choose, settle
from ensemble.search.rehearse import conclude, describe, rehearse, single_limit, whole_file_loss
from zoo.errors import ZooError


def build_plan(members: Members, request: BuildRequest, *, say: Progress = lambda _: None) -> Plan:
    """The plan for `members` on the target within the budget.

    ZooError where no plan fits, with the budget that one needs.
    """
    margin, reason = choose_margin(request.target, members.costs, request.margin)
    for warning in warn_of_kinds(request.target, members.names, members.costs):
        say(f"warning: {warning}")
    chooser = make_chooser(members, request, say=say)
    available = request.budget_seconds / margin
    chooser.require_feasible(available, margin)
    choice = settle(chooser, choose(chooser, request, available))
    limit = single_limit(choice, available, parsimony=request.parsimony)
    rehearsal = rehearse(chooser, request, available, single_seconds=limit)
    choice, losses = conclude(chooser, choice, rehearsal, limit)
    plan = write_down(
        chooser,
        choice,
        losses,
        whole_file_loss=whole_file_loss(choice, losses, rehearsal),
        estimate=describe(chooser),
        target=PlanTarget(name=request.target.name, gpus=request.target.gpus),
        budget_seconds=request.budget_seconds,
        margin=margin,
        margin_reason=reason,
    )
    say(f"taking {len(plan.members)} members: {plan.parsimony}")
    return plan


def make_chooser(members: Members, request: BuildRequest, *, say: Progress = lambda _: None) -> Chooser:
    """Price the members for the request; those too wide for the target are left out."""
    devices = max(1, request.target.gpus)
    needs = {name: card.cost.gpus for name, card in zip(members.names, members.cards, strict=True)}
    wide = {name: f"one copy needs {gpus} GPUs" for name, gpus in needs.items() if gpus > devices}
    if len(wide) == len(members.names):
        raise ZooError(f"no member fits {request.target.name}: each needs more than {devices} GPUs; choose another --target")
    if wide:
        members = members.subset([j for j, name in enumerate(members.names) if name not in wide])
        members = replace(members, left_out=members.left_out | wide)
    pricing = price(members, request.target, request.rows, lengths=request.lengths)
    return Chooser(members, pricing, say=say, position_bias=request.position_bias)


def plan_numbers(plan: Plan) -> dict[str, float]:
    """The plan as metrics, under the names that a build is tracked by."""
    numbers = {
        "val/log_loss": plan.oof_log_loss,
        "val/log_loss_se": plan.oof_log_loss_se,
        "val/rows": float(plan.fitted_rows),
        "budget_seconds": plan.budget_seconds,
        "predicted_seconds": plan.predicted_seconds,
        "margin": plan.margin,
        "members": float(len(plan.members)),
    }
    numbers |= {f"baseline/log_loss_{name}": value for name, value in plan.baselines.items()}
    numbers |= {f"paired/{item.other}": item.difference for item in plan.paired}
    if plan.whole_file_oof_log_loss is not None:
        numbers["val/log_loss_whole_file"] = plan.whole_file_oof_log_loss
    if plan.bound is not None:
        numbers["search/gap"] = plan.bound.gap
    for member in plan.members:
        numbers[f"weight/{member.name.replace('@', '/')}"] = member.weight
        numbers[f"coverage/{member.name.replace('@', '/')}"] = member.coverage
    return numbers
