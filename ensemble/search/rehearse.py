"""The rehearsal: the whole build repeated without each fold, judged on its rows.

It is what a plan reports of its log loss. Cross-validating the weights alone flatters a plan: which members it has, which rows
they see and which pool blends them were chosen by the same rows. Here each fold is judged by a build that never saw its labels,
from the search to the gates. What needs no search is judged by the very same folds. Where rows are few, one division into folds
says little: the rehearsal is repeated with others.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.members.table import balanced_folds
from ensemble.plan import Robust
from ensemble.pools.blend import BlendSpec, apply_blend, fit_blend
from ensemble.pools.crossfit import named, rows_beside
from ensemble.pools.trees import rows_of
from ensemble.search.contest import FEW_LABELS, Contest
from ensemble.search.decide import CHEAPER, COVERAGE, SEARCH, BuildRequest, Found, find_candidates
from ensemble.search.fitting import carry_out, fit_candidate
from ensemble.search.judging import judge_gated
from ensemble.search.problem import Candidate, Problem
from ensemble.search.robust import Groups, groups_of
from ensemble.search.simple import single_candidates
from ensemble.search.subsets import Subset
from zoo.contracts import say_step
from zoo.errors import ZooError
from zoo.report.duration import format_seconds
from zoo.scores.metrics import log_loss_rows
from zoo.tracking.spans import span

REPEATS = 3  # divisions into folds, where labelled rows are fewer than FEW_LABELS
SHOWN_SINGLES = 3
_IN_PLACE_OF = {CHEAPER: SEARCH, COVERAGE: SEARCH}  # what a fold takes where its own search found no such candidate


@dataclass(frozen=True)
class Rehearsal:
    """Out-of-fold losses (repeats, rows) of each candidate by name.

    `folds` (repeats, rows): what was left out; these are `groups` where such were asked for. Each candidate was found, fitted
    and carried out without the rows that it is judged on.
    """

    losses: dict[str, np.ndarray]
    folds: np.ndarray
    groups: Groups | None = None


@dataclass(frozen=True)
class Confirmed:
    """The candidate that is taken, its name, and what is reported of it.

    `by_repeat` (repeats, rows): losses as `estimate` says; `whole_file_loss`: the mean of the same where every member has to
    see every row. `beside`: losses (rows,) of every candidate in the same rehearsal, by name.
    """

    name: str
    candidate: Candidate
    why: str
    by_repeat: np.ndarray
    whole_file_loss: float
    estimate: str
    beside: dict[str, np.ndarray]
    robust: Robust | None = None

    @property
    def losses(self) -> np.ndarray:
        """Losses (rows,), the mean over repeats."""
        mean: np.ndarray = self.by_repeat.mean(axis=0)
        return mean


def rehearse(problem: Problem, request: BuildRequest, budgets: Sequence[float]) -> list[Rehearsal]:
    """Repeat the build without each fold, within each of the budgets (seconds without margin).

    Members, shares and pools are chosen on at most FEW_ROWS of the other folds' rows; weights and gates are then fitted to all
    of these, and every row is judged. Budgets share the folds, and with them most fits.
    """
    members = problem.members
    groups = groups_of(members, request.robust) if request.robust else None
    folds = rehearsed_folds(problem) if groups is None else groups.of[None]
    singles = [single_candidates(problem, available) for available in budgets]
    losses: list[dict[str, np.ndarray]] = [{} for _ in budgets]
    steps, started, done = sum(len(np.unique(assigned)) for assigned in folds), time.monotonic(), 0
    for repeat, assigned in enumerate(folds):
        for place, fold in enumerate(numbers := np.unique(assigned), start=1):
            again = f", division {repeat + 1} of {len(folds)}" if len(folds) > 1 else ""
            left = _time_left(time.monotonic() - started, done, steps)
            say_step(problem.say, done, steps, f"rehearsing without fold {place} of {len(numbers)}{again}{left}")
            done += 1
            held = assigned == fold
            others = problem.on_rows(rows_beside(held, members.groups))  # a prompt may lie in two groups
            few, made = others.thinned(), dict[tuple[Subset, BlendSpec], np.ndarray]()
            for kept, available, alone in zip(losses, budgets, singles, strict=True):
                with span(f"fold {place}{again}", rows=int(held.sum())):
                    candidates = find_candidates(few, request, available).candidates | alone
                    with span("judging", candidates=len(candidates)):
                        judged = _predict_all(problem, held, others, few, candidates, made)
                for name, p in judged.items():
                    rows = kept.setdefault(name, np.full(folds.shape, np.nan))
                    rows[repeat, held] = log_loss_rows(p, members.y[held])
    return [Rehearsal(kept, folds, groups) for kept in losses]


def _time_left(seconds: float, done: int, steps: int) -> str:
    """What is left at the pace so far, in words; nothing where no step is done."""
    return f", about {format_seconds(seconds / done * (steps - done))} left" if done else ""


def rehearsed_folds(problem: Problem) -> np.ndarray:
    """Folds (repeats, rows), by prompt: the members' own, and others where rows are few."""
    members = problem.members
    repeats = REPEATS if len(members.y) < FEW_LABELS else 1
    others = [balanced_folds(members.groups, repeat=repeat) for repeat in range(1, repeats)]
    return np.stack([members.folds, *others])


def confirm(problem: Problem, found: Found, rehearsal: Rehearsal, *, parsimony: bool) -> Confirmed:
    """The candidate that its rehearsal confirms, and what it reports."""
    candidates = found.everything
    rehearsed = [name for name in candidates if name in rehearsal.losses]
    names = tuple(name for name in rehearsed if problem.may_be(candidates[name].spec))
    if not names:
        raise ZooError(
            f"--pool {' --pool '.join(problem.pools)}: no plan of that kind at this budget; leave --pool out, or add another"
        )
    contest = Contest(
        names,
        np.stack([rehearsal.losses[name] for name in names]),
        rehearsal.folds,
        problem.members.groups,
        np.array([candidates[name].seconds for name in names]),
        parsimony,
        rehearsal.groups,
    )
    candidate, losses = candidates[contest.winner], contest.reported()
    whole_file_losses = contest.reported(whole_files=True) if candidate.seen else losses
    return Confirmed(
        contest.winner,
        candidate,
        contest.why(),
        losses,
        float(whole_file_losses.mean()),
        _estimate(rehearsal),
        {name: rehearsal.losses[name].mean(axis=0) for name in _shown(rehearsed, found, rehearsal, contest.winner)},
        None if rehearsal.groups is None else rehearsal.groups.report(losses.mean(axis=0), problem.members.groups),
    )


def _shown(names: Sequence[str], found: Found, rehearsal: Rehearsal, winner: str) -> list[str]:
    """What stands beside a plan: of the single members the best few and the winner.

    How the others do, its reasons say.
    """
    best = sorted(found.singles.keys() & set(names), key=lambda name: float(rehearsal.losses[name].mean()))
    return [name for name in names if name not in found.singles or name in best[:SHOWN_SINGLES] or name == winner]


def _estimate(rehearsal: Rehearsal) -> str:
    """How the reported log loss came about, for the plan."""
    folds = rehearsal.folds
    number = sum(len(np.unique(assigned)) for assigned in folds)
    times = f"{number} times" + f" ({len(folds)} divisions into folds)" * (len(folds) > 1)
    return (
        f"the whole build, from the choice of members to the gates, was repeated {times}, each time without the rows "
        "that it was then judged on, and so was what is beside it; which of these is taken was decided for each fold by the "
        "other folds" + (f"; a fold is a group of {rehearsal.groups.asked.column}" if rehearsal.groups else "")
    )


def _predict_all(
    problem: Problem,
    held: np.ndarray,
    others: Problem,
    few: Problem,
    candidates: Mapping[str, Candidate],
    made: dict[tuple[Subset, BlendSpec], np.ndarray],
) -> dict[str, np.ndarray]:
    """Triples of the held rows by each candidate, fitted to the others' rows.

    Equal ones are fitted once: `made` keeps them.
    """
    out: dict[str, np.ndarray] = {}
    for name, candidate in candidates.items():
        key = (candidate.whole, candidate.spec)
        if candidate.seen:
            out[name] = predict_held(problem, held, others, candidate, same_rows=few is others)
            continue
        if key not in made:
            made[key] = predict_held(problem, held, others, candidate, same_rows=few is others)
        out[name] = made[key]
    return out | {name: out[other] for name, other in _IN_PLACE_OF.items() if name not in out}


def predict_held(problem: Problem, held: np.ndarray, others: Problem, candidate: Candidate, *, same_rows: bool) -> np.ndarray:
    """Triples of the held rows by the candidate, fitted to the others' rows.

    `same_rows`: it was chosen on exactly these.
    """
    if not candidate.seen:  # one blend makes every row, and nothing else of a plan matters to it
        chosen, theirs = list(candidate.whole), others.members
        names = [theirs.names[j] for j in chosen]
        blend = fit_blend(candidate.spec, names, theirs.p[chosen], theirs.y, theirs.lengths)
        tables = named(names, problem.members.p[chosen][:, held])
        return apply_blend(blend, tables, rows_of(problem.members.lengths, held))
    if not same_rows:  # the same share of each gated member's work, on more rows
        candidate = judge_gated(others, candidate.whole, candidate.spec, candidate.work)
    fitted = fit_candidate(others, candidate, fallbacks=False)
    work = {j: float(others.prices.pricing.row_seconds[j] @ seen) for j, seen in candidate.seen.items()}
    return carry_out(fitted, candidate, problem.members.rows(held), problem.prices.pricing.on_rows(held).row_seconds, work)
