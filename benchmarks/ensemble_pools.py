"""Pools on real comparisons: nested log loss, paired with the logistic pool.

    python benchmarks/ensemble_pools.py DATA [--tables tables.npz] [--out benchmarks/results]

DATA is the folder that `ensemble_pools_data.py` reads. Its four text models are fitted by prompt folds, minutes of work that
`--tables` keeps. Every fold's rows are then judged by pools whose strengths, rounds and weights were chosen and fitted without
them, by the code of a build (`ensemble.search.by_folds`). Settings: all rows, the votes alone, and parts of their prompts, to
see where trees begin to pay. Writes ensemble_pools.md and .json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from ensemble_pools_data import comparisons, tables
from ensemble_search import _card, machine

from ensemble.members.table import Members, balanced_folds
from ensemble.pools.blend import AS_IS, RIDGED_LOG, RIDGED_LOGISTIC, apply_blend, fit_blend
from ensemble.pools.rounds import choose_rounds
from ensemble.pools.trees import rows_of
from ensemble.search.build import pose_problem
from ensemble.search.by_folds import TREES, candidates_by_folds
from ensemble.search.decide import BuildRequest
from ensemble.search.problem import Problem
from zoo.scores.metrics import log_loss_rows, mean_and_error
from zoo.targets import load_target

FOLD_REPEAT = 7  # the text models' folds are not those of the blends
PARTS = (1.0, 0.6, 0.4, 0.25)  # of the votes' prompts
BLIND = "boosted trees without lengths"
SIMPLE = {"equal weights": AS_IS, "log pool": RIDGED_LOG, "logistic pool": RIDGED_LOGISTIC}


def made(data: Path, kept: Path | None) -> dict[str, np.ndarray]:
    """p (models, rows, 3), y, groups, lengths (rows, 3) and source of every comparison."""
    if kept is not None and kept.exists():
        return dict(np.load(kept))
    frame = comparisons(data)
    groups = frame["group"].to_numpy()
    p = np.stack(list(tables(frame, balanced_folds(groups, repeat=FOLD_REPEAT)).values()))
    lengths = np.column_stack([frame[side].str.len().to_numpy(dtype=np.float64) for side in ("prompt", "a", "b")])
    found = {"p": p, "y": frame["y"].to_numpy(), "groups": groups, "lengths": lengths}
    found["source"] = frame["source"].to_numpy().astype(str)
    if kept is not None:
        np.savez(kept, **found)
    return found


def posed(found: dict[str, np.ndarray], keep: np.ndarray) -> Problem:
    """The problem of the rows of `keep`; prices do not matter here."""
    p = found["p"][:, keep]
    groups = np.unique(found["groups"][keep], return_inverse=True)[1]
    cards = tuple(_card(j, p.shape[1], 1e-5) for j in range(len(p)))
    members = Members(
        names=tuple(card.member for card in cards),
        cards=cards,
        fingerprints=("",) * len(cards),
        ids=tuple(map(str, range(p.shape[1]))),
        p=p,
        tokens=np.ones(p.shape[:2], dtype=np.int64),
        y=found["y"][keep],
        groups=groups,
        folds=balanced_folds(groups),
        lengths=found["lengths"][keep],
        digest="",
        lost_rows=0,
        left_out={},
    )
    problem = pose_problem(members, BuildRequest(load_target("t4x2"), 1.0, 1000))
    return Problem(problem.members, problem.prices, has_trees=True)


def nested(problem: Problem) -> dict[str, np.ndarray]:
    """Losses (rows,) of each pool of all members, out of fold."""
    members, losses = problem.members, {}
    for fold in np.unique(members.folds):
        held = members.folds == fold
        others = problem.on_rows(~held)
        everyone = tuple(range(len(members.names)))
        chosen = {name: candidate.spec for name, candidate in candidates_by_folds(others, [everyone]).items()}
        few = others.thinned().members
        rounds, _ = choose_rounds(RIDGED_LOGISTIC, few.names, few.p, few.y, few.folds)
        chosen[BLIND] = replace(chosen[TREES], tree_rounds=rounds)
        for name, spec in {**SIMPLE, **chosen}.items():
            theirs, own = (None if name == BLIND else rows_of(members.lengths, rows) for rows in (~held, held))
            blend = fit_blend(spec, members.names, others.members.p, others.members.y, theirs)
            p = apply_blend(blend, dict(zip(members.names, members.p[:, held], strict=True)), own)
            losses.setdefault(name, np.empty(len(members.y)))[held] = log_loss_rows(p, members.y[held])
    return losses


def measured(name: str, problem: Problem) -> dict[str, Any]:
    started = time.process_time()
    losses = nested(problem)
    beside = losses["logistic pool"]
    paired = {pool: mean_and_error(own - beside, problem.members.groups) for pool, own in losses.items()}
    return {
        "setting": name,
        "rows": len(problem.members.y),
        "prompts": int(problem.members.groups.max()) + 1,
        "loss": {pool: float(own.mean()) for pool, own in losses.items()},
        "paired": paired,
        "lengths": mean_and_error(losses[TREES] - losses[BLIND], problem.members.groups),
        "cpu_seconds": time.process_time() - started,
    }


def report(runs: list[dict[str, Any]], when: str) -> str:
    pools = [pool for pool in runs[0]["loss"] if pool != "logistic pool"]
    lines = [
        "# Pools on real comparisons",
        "",
        f"{when}, `python benchmarks/ensemble_pools.py`. Nested log loss of the logistic pool of four text models, and what",
        "each other pool adds to it (below zero it is better), with the standard error of the paired difference, by prompt.",
        "The last column: boosted trees that read the lengths of prompt and answers, less those that do not.",
        "",
        "| rows | prompts | of | logistic pool | " + " | ".join(pool.replace("_", " ") for pool in pools) + " | by lengths |",
        "|--:|--:|---|--:|" + "--:|" * len(pools) + "--:|",
    ]
    for run in runs:
        cells = [f"{mean:+.4f} ± {error:.4f}" for mean, error in (*(run["paired"][pool] for pool in pools), run["lengths"])]
        head = [f"{run['rows']:,}", f"{run['prompts']:,}", run["setting"], f"{run['loss']['logistic pool']:.4f}"]
        lines.append("| " + " | ".join([*head, *cells]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--tables", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    found = made(options.data, options.tables)
    votes, groups = found["source"] != "log", found["groups"]
    draw = np.random.default_rng(0).random(int(groups.max()) + 1)
    settings = {"votes and preferences in a log": np.ones(len(votes), dtype=bool)}
    settings |= {f"votes, {part:.0%} of their prompts": votes & (draw[groups] <= part) for part in PARTS}
    when, runs = f"{date.today().isoformat()}, {machine()}", []
    for name, keep in settings.items():
        runs.append(measured(name, posed(found, keep)))
        print(report(runs, when), flush=True)
    (options.out / "ensemble_pools.json").write_text(json.dumps(runs, indent=1) + "\n")
    (options.out / "ensemble_pools.md").write_text(report(runs, when))


if __name__ == "__main__":
    main()
