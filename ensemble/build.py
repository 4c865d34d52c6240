"""Members, a target and a budget -> the plan: the best log loss that the budget can buy, with everything predicting needs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from ensemble.assemble import Choice, write_down
from ensemble.budget import choose_margin, warn_of_kinds
from ensemble.choose import Candidate, Chooser, take
from ensemble.members import Members
from ensemble.nested import Progress
from ensemble.plan import Bound, Plan, PlanTarget
from ensemble.pricing import price
from ensemble.search import SearchLimits, search_with_optuna
from ensemble.subsets import EXACT_MEMBERS, Searched
from zoo.errors import ZooError
from zoo.targets import Target


@dataclass(frozen=True)
class BuildRequest:
    """What `ensemble build` was asked."""

    target: Target
    budget_seconds: float
    rows: int
    margin: float | None = None
    lengths: Path | None = None
    parsimony: bool = True
    coverage: bool = True
    position_bias: bool = False
    limits: SearchLimits = field(default_factory=SearchLimits)


def build_plan(members: Members, request: BuildRequest, *, say: Progress = lambda _: None) -> Plan:
    """The plan for `members` on the target within the budget. ZooError where no plan fits, with the budget that one needs."""
    margin, reason = choose_margin(request.target, members.costs, request.margin)
    for warning in warn_of_kinds(request.target, members.names, members.costs):
        say(f"warning: {warning}")
    chooser = make_chooser(members, request, say=say)
    choice = choose(chooser, request, request.budget_seconds / margin, margin)
    say(f"taking {len(choice.candidate.members)} members: {choice.why}")
    target = PlanTarget(name=request.target.name, gpus=request.target.gpus)
    return write_down(
        chooser, choice, target=target, budget_seconds=request.budget_seconds, margin=margin, margin_reason=reason
    )


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


def choose(chooser: Chooser, request: BuildRequest, available: float, margin: float) -> Choice:
    """The best candidate within `available` seconds (the budget without its margin)."""
    chooser.require_feasible(available, margin)
    chooser.say(f"searching subsets of {len(chooser.members.names)} members")
    searched = chooser.search(available)
    groups = chooser.members.groups
    whole = chooser.whole_file(searched, available)
    covered: list[Candidate] = []
    in_sample = searched.subsets[0].loss
    method = searched.method
    if len(chooser.members.names) > EXACT_MEMBERS:
        study = search_with_optuna(chooser, available, searched, request.limits, coverage=request.coverage)
        whole += [c for c in study.candidates if not c.seen]
        covered += [c for c in study.candidates if c.seen]
        method += f", then {study.trials} Optuna trials"
    best_whole, why = take(whole, groups, parsimony=request.parsimony)
    bound = _bound(searched, in_sample, method)
    if not request.coverage or len(chooser.members.names) == 1:
        return Choice(best_whole, why, best_whole, tuple(whole), bound)
    covered += chooser.coverage(sorted(whole, key=lambda c: c.loss)[:6], available)
    chosen, chosen_why = take([*whole, *covered], groups, parsimony=request.parsimony)
    if chosen.loss > best_whole.loss:  # parsimony may trade loss for seconds, but not below what whole-file plans reach
        chosen, chosen_why = best_whole, why
    return Choice(chosen, chosen_why, best_whole, (*whole, *covered), bound)


def _bound(searched: Searched, found: float, method: str) -> Bound:
    lower = min(searched.lower_bound, found)
    return Bound(
        found=found,
        lower_bound=lower,
        gap=found - lower,
        method=method,
        subsets=len(searched.subsets),
        seconds=searched.seconds,
    )


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
