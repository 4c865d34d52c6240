"""The GPUs that are there, and a plan's schedule dealt over fewer than it is for."""

from __future__ import annotations

from ensemble.budget.schedule import Load, place
from ensemble.plan import Job, Plan, PlanTarget
from zoo.targets import visible_gpus


def gpus_at_hand(target: PlanTarget) -> tuple[str, ...]:
    """The visible GPUs that a plan for this target can use, by its device numbers.

    None for a target without.
    """
    return visible_gpus()[: target.gpus]


def dealt_over(plan: Plan, gpus: int) -> tuple[Plan, dict[str, str]]:
    """The plan with its schedule dealt anew over `gpus` devices.

    Beside it the members that cannot run there, with the reason. With no GPU the members run on the processors, one job at a
    time. The plan's own schedule where there are enough. Prices, phases and rows stay the plan's: what then does not fit the
    budget is skipped as in any late prediction, the last first.
    """
    if gpus >= plan.target.gpus:
        return plan, {}
    loads: list[Load] = []
    impossible: dict[str, str] = {}
    for names in dict.fromkeys(job.members for job in plan.schedule):
        members = [plan.member(name) for name in names]
        wants = max(member.cost.gpus for member in members)
        if 0 < gpus < wants:
            impossible |= dict.fromkeys(names, f"one copy takes {wants} GPUs, {gpus} visible here")
            continue
        load = max(member.cost.load_seconds for member in members)
        work = sum(max(0.0, member.predicted_seconds - member.cost.load_seconds) for member in members)
        phase = next(job.phase for job in plan.schedule if job.members == names)
        loads.append(Load(names, load, work, wide=gpus > 1 and wants > 1, phase=phase))
    schedule = place(loads, max(1, gpus), start_seconds=plan.overhead_seconds)
    return plan.model_copy(update={"schedule": (*schedule, *_never(plan, impossible))}), impossible


def _never(plan: Plan, impossible: dict[str, str]) -> list[Job]:
    """Jobs of members that cannot run, so that what became of them is told with the others."""
    groups = dict.fromkeys(job.members for job in plan.schedule if set(job.members) & impossible.keys())
    return [Job(members=names, devices=(0,), start_seconds=0, end_seconds=0) for names in groups]
