"""The parts of a plan, each of which checks itself.

What they say of one another is checked in `ensemble.plan.checks`. `plan.json` is readable by a person and self-contained:
predicting needs this file, the members' checkpoints and the battles. Members are listed in the order they run. Every array of
probabilities has the columns A, B, tie.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, model_validator

from ensemble.plan.blends import Blend, Triple
from ensemble.plan.reasons import ErrorCorrelation, Reasons
from ensemble.plan.shift import Calibration, FittingRows, Robust
from zoo.contracts import Contract, Cost, Fraction, ScoringRequest, Seconds, Variant, added_later, fold_rule, rule_name

PLAN_VERSION = 1
ROUNDING = 1e-9  # sums of the same seconds in another order differ by less than this share of them

# What a gate reads of a row: `ensemble.pools.gate.gate_features` computes them, in this order.
FEATURES = (
    "entropy",
    "lead",
    "tie",
    "log_characters",
    "entropy^2",
    "lead^2",
    "tie^2",
    "log_characters^2",
    "entropy*log_characters",
)


class Pool(Contract):
    """The blend for the rows that have exactly `members`.

    `planned`: fitted on the rows that the plan's gates leave with these members. Otherwise fitted on all rows: the fallback
    where a member failed, is late, or has not run yet.
    """

    members: tuple[str, ...]
    planned: bool = False
    blend: Blend
    rows_fraction: Fraction = 1.0
    log_loss: float = Field(description="mean log loss on the rows it was fitted on")


class Gate(Contract):
    """Which rows a member sees.

    Predicted gain in log loss (nats a row) from what the members before it say. A ridge regression on standardised features of
    the blend so far and the row's length (`ensemble.pools.gate.gate_features`).
    """

    features: tuple[str, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    coefficients: tuple[float, ...]
    intercept: float
    given: tuple[str, ...] = Field(description="the members whose blend it reads")


class TokenEstimate(Contract):
    """Tokens a row from its characters (prompt and both responses).

    min(cap, base + per_character * characters).
    """

    base: float = 0.0
    per_character: float = Field(0.25, ge=0)
    cap: int | None = None


class PlanMember(Contract):
    """One member of the plan, in the order they run."""

    name: str
    entry: str
    variant: Variant
    weight: float = Field(description="share in the blend of all members; the shares sum to 1, the blend has its own numbers")
    coverage: Fraction = Field(description="share of the rows it sees")
    work_share: Fraction | None = Field(
        None,
        description="share of its seconds on the file that these rows take, since gates like short ones; None: as coverage",
    )
    predicted_seconds: Seconds = Field(description="its own loading and work on the devices of one copy, without the margin")
    oof_log_loss: float = Field(description="alone, out of fold, as its table says")
    oof_accuracy: float | None = added_later(None, description="the same of the rows' winners; where no battle can be a tie")
    checkpoint: str
    cost: Cost
    tokens: TokenEstimate = TokenEstimate()
    mean_row_tokens: float = 0.0
    gate: Gate | None = Field(None, description="None: it sees every row")
    request: ScoringRequest | None = Field(
        None, discriminator="stage", description="to re-issue on new battles, without paths of its inputs; None: imported"
    )


class Job(Contract):
    """One process of the schedule.

    `members` share a checkpoint and one load, and see `row_share` of their rows. Replicas of one member on several devices are
    several jobs whose row shares sum to 1, numbered by `replica`. Jobs of a later `phase` start when every job of the phase
    before has ended, since gates read its results.
    """

    members: tuple[str, ...]
    devices: tuple[int, ...]
    phase: Annotated[int, Field(ge=0)] = 0
    replica: Annotated[int, Field(ge=0)] = 0
    replicas: Annotated[int, Field(ge=1)] = 1
    row_share: Fraction = 1.0
    start_seconds: Seconds
    end_seconds: Seconds


class PlanTarget(Contract):
    name: str
    gpus: Annotated[int, Field(ge=0)]

    @property
    def devices(self) -> int:
        """How many jobs can run side by side: the GPUs, or one processor."""
        return max(1, self.gpus)


class Paired(Contract):
    """Mean difference in log loss a row, clustered by prompt.

    This plan minus the other; below zero the plan is better.
    """

    other: str
    difference: float
    standard_error: float


class FrontierPoint(Contract):
    """The best plan that some budget buys.

    `rehearsed`: its loss is what `ensemble build` reports at this budget. Otherwise it is out of fold with its pool chosen by
    other folds, and flatters: the plan itself was chosen by it.
    """

    budget_seconds: Seconds
    predicted_seconds: Seconds
    oof_log_loss: float
    oof_log_loss_se: float
    oof_accuracy: float | None = added_later(None, description="where no battle can be a tie")
    members: tuple[str, ...]
    coverage: tuple[float, ...]
    rehearsed: bool = False
    beside_best: Paired | None = added_later(None, description="this point against the best one, row by row")


class Bound(Contract):
    """How far the search can be from the best.

    in-sample log loss of the linear pool over affordable whole-file subsets.
    """

    found: float
    lower_bound: float
    gap: float
    method: str
    subsets: int
    seconds: Seconds


class PlanStudy(Contract):
    """The study of Optuna's that stood beside the exact search."""

    name: str
    storage: str | None = Field(
        None, pattern=r"^[^/\\]+$", description="its SQLite file in the home, or beside the plan; None: it was not kept"
    )
    trials: Annotated[int, Field(gt=0)]
    feasible: Fraction = Field(description="share of the trials whose plan fits the budget")
    plans: Annotated[int, Field(ge=0)] = Field(description="different plans among these")


class Plan(Contract):
    """Everything that predicting needs. `predicted_seconds * margin <= budget_seconds`."""

    schema_version: int = PLAN_VERSION
    created_at: datetime
    target: PlanTarget
    budget_seconds: Seconds
    margin: float = Field(ge=1)
    margin_reason: str
    predicted_seconds: Seconds = Field(description="process start to submission written, by the schedule, without the margin")
    overhead_seconds: Seconds = Field(description="of these: starting, reading, blending and writing")
    rows: Annotated[int, Field(gt=0)] = Field(description="rows that the prediction is priced for")
    dataset_digest: str
    fitted_rows: Annotated[int, Field(gt=0)]
    lost_rows: int = Field(0, description="rows that some table has and the intersection does not")
    oof_log_loss: float
    oof_log_loss_se: float
    ties: bool = added_later(
        True, description="whether battles of this kind can be ties; where not, every p_tie is 0, members' too"
    )
    oof_accuracy: float | None = added_later(
        None, description="share of the rows whose winner is the likelier, an even row by half; where no battle can be a tie"
    )
    estimate: str = Field("", description="what was done without the rows that oof_log_loss is judged on, and what was not")
    prior: Triple = Field(description="label shares: what a row gets that nothing has scored")
    parsimony: str = ""
    paired: tuple[Paired, ...] = ()
    baselines: dict[str, float] = Field(
        {}, description="log loss in the same rehearsal of what else was a candidate, each within the budget, by name"
    )
    baseline_accuracies: dict[str, float] = added_later({}, description="the same baselines; where no battle can be a tie")
    chosen: str = Field("", description="which of these the plan is")
    baseline_members: dict[str, tuple[str, ...]] = Field({}, description="what each of these consists of")
    whole_file_oof_log_loss: float | None = Field(
        None, description="of the best plan in which every member sees every row, as `estimate` says"
    )
    bound: Bound | None = None
    study: PlanStudy | None = added_later(None, description="None: the exact search alone")
    members: tuple[PlanMember, ...]
    pools: tuple[Pool, ...]
    schedule: tuple[Job, ...]
    frontier: tuple[FrontierPoint, ...] = ()
    left_out: dict[str, str] = Field({}, description="members that were not considered, and why")
    reasons: Reasons | None = added_later(None, description="what each candidate is worth beside the others")
    error_correlation: ErrorCorrelation | None = added_later(None, description="how alike the candidates err")
    fitting: FittingRows | None = added_later(None, description="what the fitting rows were like")
    robust: Robust | None = added_later(None, description="groups that the rehearsal left out in turn")
    calibration: Calibration | None = added_later(None, description="of every blend, on battles of another kind")

    @model_validator(mode="after")
    def _check(self) -> Plan:
        names = [member.name for member in self.members]
        if not names or len(set(names)) != len(names):
            raise ValueError("members need at least one name, each once")
        self._check_fold_rules()
        return self

    @property
    def has_prices(self) -> bool:
        """Whether any member has a price.

        Of tables that nobody priced nothing runs, and no budget binds.
        """
        return any(member.cost.priced for member in self.members)

    def _check_fold_rules(self) -> None:
        """Blends are fitted on out-of-fold tables; one rule says what that means for all of them."""
        scored = [(m.name, m.request) for m in self.members if m.request and m.request.selection.rows == "held_out"]
        by_rule = {rule_name(fold_rule(request)): name for name, request in scored}
        if len(by_rule) > 1:
            named = ", ".join(f"{name} by {rule}" for rule, name in by_rule.items())
            raise ValueError(f"members have folds by different rules: {named}")

    def member(self, name: str) -> PlanMember:
        """The member called `name`; KeyError where there is none."""
        return {member.name: member for member in self.members}[name]
