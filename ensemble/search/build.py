"""Build the plan: the best log loss that the budget can buy on the target."""

from __future__ import annotations

from dataclasses import replace

from ensemble.budget.margin import choose_margin, forecast_factors, warn_of_kinds
from ensemble.budget.pricing import price
from ensemble.budget.schedule import fixed_seconds
from ensemble.members.table import Members
from ensemble.plan import Plan
from ensemble.search.assemble import assemble
from ensemble.search.by_folds import TREE_ROWS
from ensemble.search.challenge import settle
from ensemble.search.decide import BuildRequest, find_candidates
from ensemble.search.prices import Budget, Prices, require_feasible
from ensemble.search.problem import Problem
from ensemble.search.rehearse import rehearse
from ensemble.search.robust import groups_of
from ensemble.search.space import SLOW
from zoo.contracts import Say
from zoo.cost.price import COMPETITION_ROWS
from zoo.errors import ZooError, amount
from zoo.scores.metric_names import ACCURACY, HOURS_25K, LOG_LOSS, LOG_LOSS_SE, ROWS, SECONDS_PER_ROW
from zoo.tracking.spans import span


def build_plan(members: Members, request: BuildRequest, *, say: Say = lambda _: None) -> Plan:
    """The plan for `members` on the target within the budget.

    ZooError where no plan fits, with the budget that one needs.
    """
    for warning in warn_of_kinds(request.target, members.names, members.costs):
        say(f"warning: {warning}")
    budget = Budget(request.budget_seconds, *choose_margin(request.target, members.costs, request.margin))
    with span("prices"):
        problem = pose_problem(members, request, say=say)
    if request.robust:
        groups_of(problem.members, request.robust)  # what cannot be grouped is refused before anything is searched
    require_feasible(problem.prices, budget)
    with span("search") as searching:
        found = find_candidates(problem, request, budget.available)
        searching.attributes |= {"judged": len(found.considered), "candidates": len(found.everything)}
    with span("rehearsal"):
        [rehearsal] = rehearse(problem, request, [budget.available])
    settled = settle(problem, request, budget, found, rehearsal)
    with span("assemble"):
        plan = assemble(problem, settled.found, settled.confirmed, budget, request.target, study=settled.study)
    say(f"taking {amount(len(plan.members), 'member')}: {plan.parsimony}")
    return plan


def pose_problem(members: Members, request: BuildRequest, *, say: Say = lambda _: None) -> Problem:
    """Price the members for the request; those too wide for the target are left out.

    ZooError where none is left, or where the rows are too few for every pool that was asked for.
    """
    devices = max(1, request.target.gpus)
    needs = {name: card.cost.gpus for name, card in zip(members.names, members.cards, strict=True)}
    wide = {name: f"one copy needs {gpus} GPUs" for name, gpus in needs.items() if gpus > devices}
    if len(wide) == len(members.names):
        raise ZooError(f"no member fits {request.target.name}: each needs more than {devices} GPUs; choose another --target")
    if wide:
        members = members.subset([j for j, name in enumerate(members.names) if name not in wide])
        members = replace(members, left_out=members.left_out | wide)
    pricing = price(members, request.target, request.rows, lengths=request.lengths)
    pricing = pricing.with_factors(forecast_factors(request.target, members.costs, request.margin))
    has_trees = len(members.y) >= TREE_ROWS
    if request.pools and not has_trees and set(request.pools) <= set(SLOW):
        raise ZooError(
            f"--pool {' --pool '.join(request.pools)}: boosted trees need {TREE_ROWS:,} labelled rows, and there are "
            f"{len(members.y):,}; leave --pool out, or add another"
        )
    return Problem(members, Prices(pricing), request.position_bias, say, has_trees=has_trees, pools=request.pools)


def plan_numbers(plan: Plan) -> dict[str, float]:
    """The plan as metrics, under the names that a build is tracked by."""
    numbers = {
        LOG_LOSS: plan.oof_log_loss,
        LOG_LOSS_SE: plan.oof_log_loss_se,
        ROWS: float(plan.fitted_rows),
        "budget_seconds": plan.budget_seconds,
        "predicted_seconds": plan.predicted_seconds,
        "margin": plan.margin,
        "members": float(len(plan.members)),
    }
    numbers |= row_price(plan)
    numbers |= {f"baseline/log_loss_{name.replace('@', '/')}": value for name, value in plan.baselines.items()}
    numbers |= {f"paired/{item.other.replace('@', '/')}": item.difference for item in plan.paired}
    if plan.whole_file_oof_log_loss is not None:
        numbers["val/log_loss_whole_file"] = plan.whole_file_oof_log_loss
    if plan.oof_accuracy is not None:
        numbers[ACCURACY] = plan.oof_accuracy
    if plan.study is not None:
        numbers |= {"study/trials": float(plan.study.trials), "study/feasible": plan.study.feasible}
    if plan.bound is not None:
        numbers["search/gap"] = plan.bound.gap
    for member in plan.members:
        numbers[f"weight/{member.name.replace('@', '/')}"] = member.weight
        numbers[f"coverage/{member.name.replace('@', '/')}"] = member.coverage
    return numbers


def row_price(plan: Plan) -> dict[str, float]:
    """Seconds of one more row, and hours of 25,000, under the names of a member's price.

    Starting and loading take as long for any file, so they are no part of a row's seconds.
    """
    loads = {member.name: member.cost.load_seconds for member in plan.members}
    fixed = min(fixed_seconds(plan.schedule, loads, plan.overhead_seconds, plan.rows), plan.predicted_seconds)
    seconds = (plan.predicted_seconds - fixed) / plan.rows
    return {SECONDS_PER_ROW: seconds, HOURS_25K: (fixed + COMPETITION_ROWS * seconds) / 3600}
