"""Replanning while a prediction runs: row order, measured pace, and when a job yields.

Pure arithmetic on the plan and on what was measured; nothing here touches processes or files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.budget.pricing import tokens_of
from ensemble.plan import Job, Plan, PlanMember
from ensemble.pools.gate import LEAST_SECONDS
from zoo.cost.fit import row_seconds


def predicted_row_seconds(member: PlanMember, characters: np.ndarray) -> np.ndarray:
    """Seconds of each row by the plan's cost model, from its characters, without loading."""
    seconds: np.ndarray = np.maximum(row_seconds(member.cost, tokens_of(member.tokens, characters)), LEAST_SECONDS)
    return seconds


def share_out(rows: np.ndarray, seconds: np.ndarray, shares: Sequence[float]) -> list[np.ndarray]:
    """Deal rows, kept in their order, to replicas so that each gets its share of the seconds.

    Each row goes to the replica that is furthest behind its share, so that at any moment all are about equally far down the
    order. `seconds` (as long as `rows`) are the rows' prices.
    """
    loads = np.zeros(len(shares))
    weights = np.maximum(np.asarray(shares, dtype=np.float64), 1e-12)
    owner = np.empty(len(rows), dtype=np.int64)
    for i, price in enumerate(seconds):
        owner[i] = int(np.argmin((loads + price) / weights))
        loads[owner[i]] += price
    return [rows[owner == replica] for replica in range(len(shares))]


def pool_gain(plan: Plan, before: Iterable[str], added: Iterable[str]) -> float:
    """Nats a row that `added` members bring on top of `before`; not below 0.

    It is judged by the pools fitted on all rows.
    """
    from_before, to_after = frozenset(before), frozenset(before) | frozenset(added)
    return max(0.0, _pool_log_loss(plan, from_before) - _pool_log_loss(plan, to_after))


def _pool_log_loss(plan: Plan, available: frozenset[str]) -> float:
    losses = [pool.log_loss for pool in plan.pools if not pool.planned and set(pool.members) <= available]
    prior = np.asarray(plan.prior)
    entropy = float(-(prior[prior > 0] * np.log(prior[prior > 0])).sum())
    return min([entropy, *losses])


@dataclass
class Pace:
    """Measured against predicted seconds of one job.

    `load_seconds`, then pieces of work in predicted seconds. `assumed` is the ratio while nothing is measured: the plan's
    margin.
    """

    load_seconds: float
    work_seconds: float
    assumed: float
    piece_seconds: float  # predicted seconds of one piece: what a chunk is expected to hold, then the largest one seen
    started: float = 0.0
    done_work: float = 0.0
    _last: float = 0.0
    _first: float | None = None
    _first_work: float = 0.0

    def start(self, now: float) -> None:
        self.started = self._last = now

    def progress(self, now: float, work: float) -> None:
        """A piece of `work` predicted seconds is finished."""
        self.done_work += work
        self.piece_seconds = max(self.piece_seconds, work) if self._first is not None else work
        self._last = now
        if self._first is None:
            self._first, self._first_work = now, self.done_work

    def ratio(self, now: float) -> float:
        """Actual seconds for each predicted second of work; a stall counts as slow.

        It is measured from the first finished piece on.
        """
        if self._first is None:
            overdue = (now - self.started) / max(self.load_seconds + self.piece_seconds, LEAST_SECONDS)
            return max(self.assumed, overdue)
        work = self.done_work - self._first_work
        if work <= 0:  # one piece: loading and work cannot be told apart yet
            together = (self._first - self.started) / max(self.load_seconds + self.done_work, LEAST_SECONDS)
            stalled = (now - self._first) / max(self.piece_seconds, LEAST_SECONDS)
            return max(together, stalled)
        return max((self._last - self._first) / work, (now - self._first) / (work + self.piece_seconds))

    def remaining(self, now: float) -> float:
        """Seconds until the job ends at this pace."""
        ratio = self.ratio(now)
        left = ratio * max(0.0, self.work_seconds - self.done_work)
        if self._first is None:
            return left + max(0.0, ratio * self.load_seconds - (now - self.started))
        return max(0.0, left - (now - self._last))

    def silence(self, now: float) -> float:
        """Seconds since the last sign of life."""
        return now - self._last

    def expected_silence(self) -> float:
        """Seconds until the next piece is expected.

        Loading and one piece as predicted, then one piece at the speed of those before.
        """
        if self._first is None:
            return self.load_seconds + self.piece_seconds
        work = self.done_work - self._first_work
        return self.piece_seconds * max(1.0, (self._last - self._first) / work if work > 0 else 1.0)


@dataclass(frozen=True)
class Claim:
    """What a job that has not ended wants in seconds, and would bring in nats.

    Nats are summed over its rows.
    """

    job: Job
    seconds: float
    nats: float

    @property
    def density(self) -> float:
        """Nats a second."""
        return self.nats / max(self.seconds, LEAST_SECONDS)


def phases_seconds(claims: Sequence[Claim]) -> dict[int, dict[int, float]]:
    """Seconds that claims keep each device busy, phase by phase: phase -> device -> seconds."""
    busy: dict[int, dict[int, float]] = {}
    for claim in claims:
        devices = busy.setdefault(claim.job.phase, {})
        for device in claim.job.devices or (0,):
            devices[device] = devices.get(device, 0.0) + claim.seconds
    return busy


def makespan(claims: Sequence[Claim]) -> float:
    """Seconds from the first start to the last end.

    Each phase is as long as its busiest device, and one follows the other.
    """
    return sum(max(devices.values()) for devices in phases_seconds(claims).values())


def makespan_after(job: Job, later: Sequence[Claim]) -> float:
    """Seconds that `later` jobs need once `job` has ended.

    Its devices' queue in its own phase, then phase after phase.
    """
    busy = phases_seconds(later)
    own = max((busy.get(job.phase, {}).get(device, 0.0) for device in job.devices or (0,)), default=0.0)
    return own + sum(max(devices.values()) for phase, devices in busy.items() if phase > job.phase)


def must_end_by(claim: Claim, planned_end: float, waiting: Sequence[Claim], work_ends: float) -> float:
    """When a job has to make way for more valuable ones that wait for it.

    That is at the end of work, less what these still need. It may always use the time up to `planned_end`, its plan with the
    margin: members run in the order of their value, so when a budget is short the later ones lose. A job slower than that is
    cut if others bring more nats a second at the speeds as measured; if none does, it goes on.
    """
    better = [other for other in waiting if other.density > claim.density]
    return min(work_ends, max(planned_end, work_ends - makespan_after(claim.job, better)))
