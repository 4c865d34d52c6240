"""Plans written by hand, for tests of what reads them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ensemble.plan import Blend, Job, Plan, PlanMember, PlanTarget, Pool, save_plan
from zoo.contracts import Cost, Variant

PRIOR = (0.4, 0.35, 0.25)


def plan_member(name: str, **fields: Any) -> PlanMember:
    """A member of full coverage, named by its entry alone or with its variant."""
    entry = name.partition("@")[0]
    usual: dict[str, Any] = {
        "entry": entry,
        "variant": Variant(),
        "weight": 1.0,
        "coverage": 1.0,
        "predicted_seconds": 1.0,
        "oof_log_loss": 1.0,
        "checkpoint": entry,
        "cost": Cost(target="cpu", load_seconds=1.0),
    }
    return PlanMember(name=name, **{**usual, **fields})


def plan_pool(
    names: tuple[str, ...], loss: float, kind: str = "linear", *, planned: bool = False, temperature: float = 1.0
) -> Pool:
    """The pool of these members that weighs all of them alike."""
    count = len(names)
    eye = tuple(tuple(float(i == j) / count for j in range(3)) for i in range(3))
    blend = Blend(
        pool=kind,
        members=names,
        weights=(1 / count,) * count,
        temperatures=(1.0,) * count,
        coefficients=(eye,) * count if kind == "logistic" else (),
        temperature=temperature,
    )
    return Pool(members=names, planned=planned, blend=blend, log_loss=loss)


def plan_of(members: Sequence[PlanMember], pools: Sequence[Pool], **fields: Any) -> Plan:
    """A plan for a machine without GPUs."""
    usual: dict[str, Any] = {
        "created_at": datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC),
        "target": PlanTarget(name="cpu", gpus=0),
        "budget_seconds": 60,
        "margin": 1.5,
        "margin_reason": "test",
        "predicted_seconds": sum(member.predicted_seconds for member in members),
        "overhead_seconds": 0.1,
        "rows": 10,
        "dataset_digest": "0",
        "fitted_rows": 100,
        "oof_log_loss": 0.9,
        "oof_log_loss_se": 0.01,
        "prior": PRIOR,
        "schedule": [one_after_the_other(place, member.name) for place, member in enumerate(members)],
    }
    return Plan(members=tuple(members), pools=tuple(pools), **{**usual, **fields})


def of_two_outcomes(plan: Plan) -> Plan:
    """The same plan, built on battles that have no ties."""
    pools = tuple(pool.model_copy(update={"blend": pool.blend.model_copy(update={"ties": False})}) for pool in plan.pools)
    return plan.model_copy(update={"ties": False, "prior": (0.5, 0.5, 0.0), "pools": pools, "oof_accuracy": 0.75})


def one_after_the_other(place: int, name: str) -> Job:
    """A job of one member, a second long, that starts when those before have ended."""
    return Job(members=(name,), devices=(0,), start_seconds=float(place), end_seconds=place + 1.0)


def written(plan: Plan, path: Path) -> Path:
    """Where the plan now lies."""
    save_plan(plan, path)
    return path
