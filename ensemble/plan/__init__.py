"""The plan: what `ensemble build` decides and `ensemble predict` carries out."""

from ensemble.plan.blends import TREE_FEATURES, Blend, PoolKind, Products, Tree, Trees, Triple
from ensemble.plan.contracts import (
    FEATURES,
    PLAN_VERSION,
    ROUNDING,
    STUDIES,
    Bound,
    FrontierPoint,
    Gate,
    Job,
    Paired,
    Plan,
    PlanMember,
    PlanStudy,
    PlanTarget,
    Pool,
    TokenEstimate,
)
from ensemble.plan.files import load_plan, save_plan
from ensemble.plan.reasons import Change, ErrorCorrelation, MemberReason, Reasons

__all__ = [
    "FEATURES",
    "PLAN_VERSION",
    "ROUNDING",
    "STUDIES",
    "TREE_FEATURES",
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
    "PlanStudy",
    "PlanTarget",
    "Pool",
    "PoolKind",
    "Products",
    "Reasons",
    "TokenEstimate",
    "Tree",
    "Trees",
    "Triple",
    "load_plan",
    "save_plan",
]
