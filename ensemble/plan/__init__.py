"""The plan: what `ensemble build` decides and `ensemble predict` carries out."""

from ensemble.plan.contracts import (
    FEATURES,
    PLAN_VERSION,
    ROUNDING,
    Blend,
    Bound,
    FrontierPoint,
    Gate,
    Job,
    Paired,
    Plan,
    PlanMember,
    PlanTarget,
    Pool,
    PoolKind,
    TokenEstimate,
    Triple,
)
from ensemble.plan.files import load_plan, save_plan
from ensemble.plan.reasons import Change, ErrorCorrelation, MemberReason, Reasons

__all__ = [
    "FEATURES",
    "PLAN_VERSION",
    "ROUNDING",
    "Blend",
    "Bound",
    "Change",
    "ErrorCorrelation",
    "FrontierPoint",
    "Gate",
    "Job",
    "MemberReason",
    "Paired",
    "Plan",
    "PlanMember",
    "PlanTarget",
    "Pool",
    "PoolKind",
    "Reasons",
    "TokenEstimate",
    "Triple",
    "load_plan",
    "save_plan",
]
