"""What parts of a plan say of one another: names, shares that sum to 1, usable sizes.

`load_plan` refuses a plan for the first fault. A plan is a file that people may edit: what passes here gives a valid
submission.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from ensemble.plan.blends import LENGTH_FEATURES, TREE_FEATURES, Blend, Products, Tree, Trees
from ensemble.plan.contracts import FEATURES, Gate, Job, Plan, PlanMember
from zoo.contracts import ScoreRequest

TOLERANCE = 1e-6  # of sums that should be 1
LARGEST = 1e15  # no number of a plan is larger in size: sums and products of a few stay finite
_CHECKPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # it becomes part of a folder's name


def first_fault_of(plan: Plan) -> str | None:
    """The first fault, led by the key that has it; None where the plan can be carried out."""
    return next(_faults(plan), None)


def _faults(plan: Plan) -> Iterator[str]:
    for key, number in _numbers(plan.model_dump(mode="json"), ""):
        if not -LARGEST <= number <= LARGEST:
            yield f"{key}: no number of a plan is beyond {LARGEST:g}"
    if min(plan.prior) < 0 or abs(sum(plan.prior) - 1) > TOLERANCE:
        yield f"prior: three shares that sum to 1 are wanted, not {', '.join(f'{share:g}' for share in plan.prior)}"
    if not plan.ties and plan.prior[2] != 0:
        yield f"prior: {plan.prior[2]:g} for a tie, where the plan's battles have none"
    if plan.budget_seconds <= 0:
        yield "budget_seconds: must be more than zero"
    for place, member in enumerate(plan.members):
        yield from (f"members.{place}.{fault}" for fault in _member_faults(plan, member))
    yield from _pool_faults(plan)
    yield from _schedule_faults(plan)


def _numbers(value: Any, key: str) -> Iterator[tuple[str, float]]:
    """Every number in JSON with its key."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _numbers(item, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _numbers(item, f"{key}.{place}")
    elif isinstance(value, int | float):
        yield key, value


# --- members ----------------------------------------------------------------------------------------------------------------


def _member_faults(plan: Plan, member: PlanMember) -> Iterator[str]:
    if not member.name.strip() or not member.name.isprintable() or " + " in member.name:
        yield f"name: {member.name!r} cannot be a member's name"
    if not _CHECKPOINT.fullmatch(member.checkpoint):
        yield f"checkpoint: {member.checkpoint!r} is no fingerprint"
    if member.tokens.base < 0:
        yield "tokens.base: no row has fewer than no tokens"
    if member.tokens.cap is not None and member.tokens.cap < 1:
        yield "tokens.cap: must be at least 1"
    if member.gate is not None:
        yield from (f"gate.{fault}" for fault in _gate_faults(plan, member, member.gate))
    elif member.coverage < 1:
        yield f"coverage: {member.coverage:g} of the rows without a gate that chooses them"


def _gate_faults(plan: Plan, member: PlanMember, gate: Gate) -> Iterator[str]:
    if gate.features != FEATURES:
        yield f"features: this version knows {', '.join(FEATURES)}"
    for name, numbers in (("center", gate.center), ("scale", gate.scale), ("coefficients", gate.coefficients)):
        if len(numbers) != len(FEATURES):
            yield f"{name}: {len(numbers)} numbers for {len(FEATURES)} features"
    if min(gate.scale, default=1.0) < 1e-9:
        yield "scale: must be more than zero"
    yield from _unknown("given", gate.given, plan)
    if not gate.given:
        yield "given: a gate reads at least one member"
    own = min((job.phase for job in plan.schedule if member.name in job.members), default=0)
    late = [job for job in plan.schedule if set(job.members) & set(gate.given) and job.phase >= own]
    if late:
        yield f"given: {', '.join(late[0].members)} runs in phase {late[0].phase}, not before phase {own} of this member"


# --- pools ------------------------------------------------------------------------------------------------------------------


def _pool_faults(plan: Plan) -> Iterator[str]:
    seen = set()
    for place, pool in enumerate(plan.pools):
        key = f"pools.{place}"
        yield from _unknown(f"{key}.members", pool.members, plan)
        if not pool.members or sorted(pool.blend.members) != sorted(pool.members):
            yield f"{key}.blend.members: not the pool's own, {', '.join(pool.members) or 'which are none'}"
        if (pool.planned, frozenset(pool.members)) in seen:
            yield f"{key}: a second pool of {', '.join(pool.members)}"
        seen.add((pool.planned, frozenset(pool.members)))
        yield from (f"{key}.blend.{fault}" for fault in _blend_faults(pool.blend))
        if pool.blend.ties != plan.ties:
            yield f"{key}.blend.ties: {str(pool.blend.ties).lower()}, where the plan's is {str(plan.ties).lower()}"
    if (False, frozenset(member.name for member in plan.members)) not in seen:
        yield "pools: none of all members that was fitted on all rows"


def _blend_faults(blend: Blend) -> Iterator[str]:
    if blend.pool == "linear" and (min(blend.weights) < 0 or abs(sum(blend.weights) - 1) > TOLERANCE):
        yield f"weights: those of a linear pool are shares that sum to 1, not to {sum(blend.weights):g}"
    if sum(blend.least) >= 1:
        yield f"least: shares that leave something to the blend are wanted, not {sum(blend.least):g} in all"
    if blend.products is not None:
        yield from (f"products.{fault}" for fault in _products_faults(blend, blend.products))
    if blend.trees is not None:
        yield from (f"trees.{fault}" for fault in _trees_faults(blend, blend.trees))
    for place, part in enumerate(blend.parts):
        if part.members != blend.members or part.ties != blend.ties:
            yield f"parts.{place}: its members and ties are not those of the whole"
        yield from (f"parts.{place}.{fault}" for fault in _blend_faults(part))


def _products_faults(blend: Blend, products: Products) -> Iterator[str]:
    count = len(products.members)
    if not products.members or len(set(products.members)) < count or not set(products.members) <= set(blend.members):
        yield "members: some of the blend's are wanted, each once"
    for name in ("lead_scale", "pull_center", "pull_scale"):
        if len(getattr(products, name)) != count:
            yield f"{name}: one number for each of the {count} members is wanted"
    if min((*products.lead_scale, *products.pull_scale), default=1.0) < 1e-9:
        yield "scales must be more than zero"
    for name in ("odd", "leads", "pulls"):
        if [len(row) for row in getattr(products, name)] != [count] * count:
            yield f"{name}: {count} rows of {count} numbers are wanted"


def _trees_faults(blend: Blend, trees: Trees) -> Iterator[str]:
    if trees.reads not in (TREE_FEATURES, (*TREE_FEATURES, *LENGTH_FEATURES)):
        yield f"reads: this version knows {', '.join(TREE_FEATURES)}, and with lengths {', '.join(LENGTH_FEATURES)} after these"
    features = len(trees.reads) + 2 * len(blend.members)
    if trees.n_features != features:
        yield f"n_features: of {len(blend.members)} members this version reads {features}"
    for name in ("lead", "tie"):
        for place, tree in enumerate(getattr(trees, name)):
            if fault := _tree_fault(tree, trees.n_features):
                yield f"{name}.{place}: {fault}"


def _tree_fault(tree: Tree, features: int) -> str | None:
    """What keeps a tree from giving every row one value: each node but the first and each leaf has one parent, before it."""
    nodes = len(tree.features)
    if {len(tree.thresholds), len(tree.left), len(tree.right)} != {nodes} or len(tree.values) != nodes + 1:
        return "as many thresholds and children as features are wanted, and one leaf more"
    if not all(0 <= feature < features for feature in tree.features):
        return f"features are numbered from 0 to {features - 1}"
    children = sorted((*tree.left, *tree.right))
    if children != sorted((*range(1, nodes), *(~leaf for leaf in range(nodes + 1)))) and nodes:
        return "every node but the first and every leaf is the child of one node"
    if any(0 <= child <= node for node, pair in enumerate(zip(tree.left, tree.right, strict=True)) for child in pair):
        return "a node is numbered before its children"
    return None


# --- the schedule -----------------------------------------------------------------------------------------------------------


def _schedule_faults(plan: Plan) -> Iterator[str]:
    for place, job in enumerate(plan.schedule):
        yield from (f"schedule.{place}.{fault}" for fault in _job_faults(plan, job))
    for members, jobs in groupby(sorted(plan.schedule, key=lambda job: job.members), key=lambda job: job.members):
        yield from (f"schedule: {', '.join(members)}: {fault}" for fault in _replica_faults(list(jobs)))
    together = {job.members for job in plan.schedule}
    scheduled = [name for members in together for name in members]
    for member in plan.members:
        if scheduled.count(member.name) != 1:
            found = "in no job" if member.name not in scheduled else "in jobs with other members too"
            yield f"schedule: {member.name} is {found}"


def _job_faults(plan: Plan, job: Job) -> Iterator[str]:
    if not job.members:
        yield "members: none"
    yield from _unknown("members", job.members, plan)
    if len({plan.member(name).checkpoint for name in job.members if name in _names(plan)}) > 1:
        yield "members: of different checkpoints, which cannot share a process"
    if len({_process(plan.member(name)) for name in job.members if name in _names(plan)}) > 1:
        yield "members: their requests differ in more than the variant, so that they cannot share a process"
    if not job.devices or len(set(job.devices)) < len(job.devices):
        yield "devices: at least one, each once"
    if beyond := [device for device in job.devices if not 0 <= device < plan.target.devices]:
        yield f"devices: {beyond[0]} is none of the {plan.target.devices} of {plan.target.name}, which count from 0"
    if job.end_seconds < job.start_seconds:
        yield "end_seconds: before its start"


def _replica_faults(jobs: list[Job]) -> Iterator[str]:
    """Faults of the jobs that share out the rows of the same members."""
    if sorted(job.replica for job in jobs) != list(range(len(jobs))) or {job.replicas for job in jobs} != {len(jobs)}:
        yield f"replicas are numbered from 0, and there are {len(jobs)}"
    if not math.isclose(sum(job.row_share for job in jobs), 1, abs_tol=TOLERANCE):
        yield f"row shares of its replicas sum to {sum(job.row_share for job in jobs):g}, not to 1"
    if len({job.phase for job in jobs}) > 1:
        yield "its replicas are of different phases"


def _process(member: PlanMember) -> str:
    """What members of one process have in common, as JSON: `ensemble.budget.pricing.process_key` puts them together."""
    if not isinstance(member.request, ScoreRequest):
        return ""
    return member.request.model_dump_json(include={"prompt": True, "spec": True, "serve": True}, exclude={"spec": {"variants"}})


def _names(plan: Plan) -> set[str]:
    return {member.name for member in plan.members}


def _unknown(key: str, names: Iterable[str], plan: Plan) -> Iterator[str]:
    """A fault where names are not members of the plan, or are there twice."""
    listed = list(names)
    if strangers := [name for name in listed if name not in _names(plan)]:
        yield f"{key}: {strangers[0]!r} is not a member"
    if len(set(listed)) < len(listed):
        yield f"{key}: a name is there twice"
