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

__all__ = [
    "FEATURES",
    "PLAN_VERSION",
    "ROUNDING",
    "STUDIES",
    "TREE_FEATURES",
    "Blend",
    "Bound",
    "FrontierPoint",
    "Gate",
    "Job",
    "Paired",
    "Plan",
    "PlanMember",
    "PlanStudy",
    "PlanTarget",
    "Pool",
    "PoolKind",
    "Products",
    "TokenEstimate",
    "Tree",
    "Trees",
    "Triple",
    "load_plan",
    "save_plan",
]
