"""Studies: whether more trials make plans better or worse on fresh rows, and how many of them fit a binding budget.

    python benchmarks/ensemble_study.py [--seeds 10] [--out benchmarks/results]

Eight simulated members (`synthetic` of ensemble_search.py), two of them variants of one entry. Each problem is searched and
rehearsed once and then settled without a study, with one of 50 trials and with one of 200; the plans are judged on 20,000 fresh
rows, members that see some rows by their gates. Reported and fresh differences are those against the plan without a study. z is
(reported - fresh log loss) / standard error of the reported one. Writes ensemble_study.md
and .json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from ensemble_search import machine, synthetic

from ensemble.members.table import Members
from ensemble.search.build import pose_problem
from ensemble.search.challenge import settle
from ensemble.search.decide import BuildRequest, SearchLimits, find_candidates
from ensemble.search.fitting import carry_out, fit_candidate
from ensemble.search.prices import Budget
from ensemble.search.problem import Candidate, Problem
from ensemble.search.rehearse import rehearse
from zoo.cost.price import COMPETITION_ROWS
from zoo.scores.metrics import log_loss_rows, standard_error
from zoo.targets import load_target

MEMBERS, FRESH, TRIALS = 8, 20_000, (0, 50, 200)
SETTINGS = ((300, 0.4), (3000, 0.4))  # labelled rows, and the budget as a share of the seconds of all members


def one(rows: int, seed: int, share: float) -> list[dict[str, Any]]:
    """Reported and fresh log loss of the plans with each number of trials, of one simulated problem."""
    everything = with_variants(synthetic(MEMBERS, rows + FRESH, seed=seed)[0])
    labelled = np.arange(rows + FRESH) < rows
    members, fresh = everything.rows(labelled), everything.rows(~labelled)
    request = BuildRequest(load_target("t4x2"), 1.0, COMPETITION_ROWS, 1.0)
    problem = pose_problem(members, request)
    seconds = problem.prices.seconds(tuple(range(MEMBERS))) * share
    budget = Budget(seconds, 1.0, "")
    found = find_candidates(problem, request, seconds)
    [rehearsal] = rehearse(problem, request, [seconds])
    lines = []
    for trials in TRIALS:
        began = time.process_time()
        asked = replace(request, limits=SearchLimits(trials, timeout_seconds=None))
        settled = settle(problem, asked, budget, found, rehearsal)
        losses, confirmed = settled.confirmed.losses, settled.confirmed
        truth = fresh_loss(problem, confirmed.candidate, fresh, request)
        lines.append(
            {
                "trials": trials,
                "taken": confirmed.name,
                "reported": float(losses.mean()),
                "se": standard_error(losses, members.groups),
                "fresh": truth,
                "feasible": settled.study.feasible if settled.study else None,
                "seconds": time.process_time() - began,
            }
        )
    return lines


def with_variants(members: Members) -> Members:
    """The same members, the last two as variants of one entry."""
    cards = list(members.cards)
    for j, order in ((MEMBERS - 2, "ab"), (MEMBERS - 1, "ba")):
        cards[j] = cards[j].model_copy(update={"entry": "pair", "member": f"pair@{order}"})
    return replace(members, cards=tuple(cards), names=tuple(card.member for card in cards))


def fresh_loss(problem: Problem, candidate: Candidate, fresh: Members, request: BuildRequest) -> float:
    """Mean log loss of the candidate, fitted to all labelled rows, on fresh ones."""
    fitted = fit_candidate(problem, candidate, fallbacks=False)
    work = {j: float(problem.prices.pricing.row_seconds[j] @ seen) for j, seen in candidate.seen.items()}
    row_seconds = pose_problem(fresh, request).prices.pricing.row_seconds
    return float(log_loss_rows(carry_out(fitted, candidate, fresh, row_seconds, work), fresh.y).mean())


def report(found: dict[str, Any]) -> str:
    """The table: one line a setting and number of trials."""
    lines = [
        "# Studies: more trials, fresh rows",
        "",
        f"{found['date']}, {found['machine']}, `{found['command']}`.",
        "",
        f"{MEMBERS} members on t4x2, {FRESH:,} fresh rows; differences in nats against the plan of the same problem without a "
        "study, mean ± standard error over seeds, below zero: better. z: (reported - fresh) / standard error of the reported, "
        "mean and the largest in size. Written by `benchmarks/ensemble_study.py`.",
        "",
        "| rows | budget | trials | seeds | plan is the study's | reported | fresh | z | feasible | settling, processor s |",
        "|---" * 10 + "|",
    ]
    runs = found["runs"]
    for rows, budget in dict.fromkeys((run["rows"], run["budget"]) for run in runs):
        here = [run["lines"] for run in runs if (run["rows"], run["budget"]) == (rows, budget)]
        for place, trials in enumerate(TRIALS):
            lines.append(f"| {rows:,} | {budget} | {trials} | {len(here)} | {' | '.join(cells(here, place))} |")
    pooled = [run["lines"] for run in runs]
    lines += [
        f"| all | all | {trials} | {len(pooled)} | {' | '.join(cells(pooled, place))} |" for place, trials in enumerate(TRIALS)
    ]
    return "\n".join(lines) + "\n"


def cells(here: list[list[dict[str, Any]]], place: int) -> list[str]:
    own, exact = [lines[place] for lines in here], [lines[0] for lines in here]
    z = np.array([(line["reported"] - line["fresh"]) / line["se"] for line in own])
    score = f"{z.mean():+.2f}, {z[np.abs(z).argmax()]:+.1f}"
    if place == 0:
        return [
            "",
            f"{np.mean([line['reported'] for line in own]):.4f}",
            f"{np.mean([line['fresh'] for line in own]):.4f}",
            score,
            "",
            "",
        ]
    taken = sum(line["taken"] == "study" for line in own)
    differences = [
        difference([line[key] - other[key] for line, other in zip(own, exact, strict=True)]) for key in ("reported", "fresh")
    ]
    feasible = min(line["feasible"] for line in own)
    return [f"{taken}", *differences, score, f"{feasible:.0%}", f"{np.mean([line['seconds'] for line in own]):.1f}"]


def difference(values: list[float]) -> str:
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{np.mean(values):+.5f} ± {error:.5f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    found: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "command": " ".join(["python benchmarks/ensemble_study.py", *sys.argv[1:]]),
        "runs": [],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for rows, share in SETTINGS:
            run = {"rows": rows, "seed": seed, "budget": f"{share:.0%} of all", "lines": one(rows, seed, share)}
            found["runs"].append(run)
            print(json.dumps(found["runs"][-1]), flush=True)
            (options.out / "ensemble_study.json").write_text(json.dumps(found, indent=1) + "\n")
            (options.out / "ensemble_study.md").write_text(report(found))
    print(report(found))


if __name__ == "__main__":
    main()
