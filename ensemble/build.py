"""Members, a target and a budget -> the plan: the best log loss that the budget can buy, with everything predicting needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

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

JUDGED_AGAIN = 6  # candidates of a search that are judged with the pool chosen by other folds
SETTLED, AS_GOOD_NATS = 3, 0.002  # how many sets nested folds compare, and how near they must look


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
    say("judging whole-file sets by nested folds")
    choice = settle(chooser, choice)
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
    whole = chooser.whole_file(searched, available)
    covered: list[Candidate] = []
    in_sample = searched.subsets[0].loss
    method = searched.method
    if len(chooser.members.names) > EXACT_MEMBERS:
        study = search_with_optuna(chooser, available, searched, request.limits, coverage=request.coverage)
        sets = dict.fromkeys(c.whole for c in study.candidates if not c.seen)
        whole += [chooser.judge(subset) for subset in list(sets)[:JUDGED_AGAIN]]  # a trial's pool was chosen on all rows
        covered += [c for c in study.candidates if c.seen]
        method += f", then {study.trials} Optuna trials"
    bound = _bound(searched, in_sample, method)
    if request.coverage and len(chooser.members.names) > 1:
        covered += chooser.coverage(sorted(whole, key=lambda c: c.loss)[:6], available)
        covered = [chooser.judge_covered(c) for c in sorted(covered, key=lambda c: c.loss)[:JUDGED_AGAIN]]
        covered = [c for c in covered if c.seconds <= available and all(seen.any() for seen in c.seen.values())]
    return decide(whole, covered, chooser.members.groups, bound, parsimony=request.parsimony)


def decide(
    whole: Sequence[Candidate], covered: Sequence[Candidate], groups: np.ndarray, bound: Bound, *, parsimony: bool
) -> Choice:
    """The candidate to take of whole-file and coverage plans that were judged alike."""
    best_whole, why = take(whole, groups, parsimony=parsimony)
    chosen, chosen_why = take([*whole, *covered], groups, parsimony=parsimony)
    if chosen.loss > best_whole.loss:  # parsimony may trade loss for seconds, but not below what whole-file plans reach
        chosen, chosen_why = best_whole, why
    if not chosen.seen:
        best_whole, why = chosen, chosen_why
    return Choice(chosen, chosen_why, best_whole, why, (*whole, *covered), bound)


def settle(chooser: Chooser, choice: Choice) -> Choice:
    """Of the whole-file set and those that cost no more and looked as good, take the one that nested folds like best.

    The quick judgement chose among three pools; nested folds choose among all, and are what the plan reports. A coverage plan
    stays only if that is no better.
    """
    first = choice.whole_file
    near = [c for c in choice.considered if not c.seen and c.seconds <= first.seconds and c.loss <= first.loss + AS_GOOD_NATS]
    finalists = {c.whole: c for c in (first, *sorted(near, key=lambda c: c.loss))}
    judged = [(c, chooser.nested(c.whole)) for c in list(finalists.values())[:SETTLED]]
    best, found = min(judged, key=lambda pair: float(pair[1].losses.mean()))
    loss, why = float(found.losses.mean()), choice.whole_why
    if best.whole != first.whole:
        why += f"; of {len(judged)} sets that looked as good at no more seconds, the one that nested folds like best"
    if choice.candidate.seen and choice.candidate.loss <= loss:
        return choice
    if choice.candidate.seen:
        why += f"; the coverage plan of {choice.candidate.loss:.5f} is no better than its {loss:.5f} by nested folds"
    return replace(choice, candidate=best, why=why, whole_file=best, whole_why=why, nested=found)


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
