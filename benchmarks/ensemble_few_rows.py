"""Few labelled rows: what plans and simpler pools lose on fresh rows of members whose truth is known.

    python benchmarks/ensemble_few_rows.py [--rows 300 600 2000 6000] [--seeds 6] [--as now] [--out benchmarks/results]

Eight simulated members (`synthetic` of ensemble_search.py); plans and pools are fitted to so many labelled rows, without a
limit and with a budget that holds about half of the members, and judged on 100,000 fresh ones. Regret is against the best pool
of what is affordable, fitted to the fresh rows themselves. z is how far the promised log loss is from the fresh one, in
standard errors of the promise. `--as NAME` keeps the plans of this run under that name beside those of earlier runs, of other
versions of the code for instance; the report has all of them. Writes ensemble_few_rows.md and .json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from ensemble_search import machine, synthetic

from ensemble.members.table import Members
from ensemble.pools.blend import BlendSpec, apply_blend, fit_blend
from ensemble.search.build import build_plan, pose_problem
from ensemble.search.decide import BuildRequest
from ensemble.search.problem import Problem
from ensemble.search.subsets import Subset, search_exactly
from zoo.cost.price import COMPETITION_ROWS
from zoo.scores.metrics import log_loss_rows
from zoo.targets import load_target

MEMBERS, FRESH, MARGIN, ROUNDS = 8, 100_000, 1.0, 25
BINDING = 0.4  # of the seconds of all members
RIDGED = BlendSpec("log", 0.01, floor=1e-2)
BEST = (BlendSpec("logistic", 1e-6, floor=1e-2), BlendSpec("logistic", 1e-6, floor=1e-4))


def one(rows: int, seed: int, *, binding: bool) -> dict[str, Any]:
    """Log loss on fresh rows by method, and the plan's promise, of one simulated problem."""
    everything, _ = synthetic(MEMBERS, rows + FRESH, seed=seed)
    labelled = np.arange(rows + FRESH) < rows
    members, fresh = everything.rows(labelled), everything.rows(~labelled)
    prices = posed(members).prices
    everyone = tuple(range(MEMBERS))
    budget = prices.seconds(everyone) * (BINDING if binding else 1.01)
    fits = prices.affordable(budget)
    oracle = oracle_of(fresh, fits)
    plan = build_plan(members, BuildRequest(load_target("t4x2"), budget, COMPETITION_ROWS, MARGIN, coverage=False))
    blend = next(pool.blend for pool in plan.pools if len(pool.members) == len(plan.members) and not pool.planned)
    tables = dict(zip(fresh.names, fresh.p, strict=True))
    truth = float(log_loss_rows(apply_blend(blend, tables), fresh.y).mean())
    losses = {"plan": truth, "oracle": oracle}
    losses |= simple(members, fresh, filled(members, fits))
    return {
        "rows": rows,
        "seed": seed,
        "binding": binding,
        "losses": losses,
        "z": (plan.oof_log_loss - truth) / plan.oof_log_loss_se,
        "rehearsed": dict(plan.baselines),
        "se": plan.oof_log_loss_se,
        "chosen": getattr(plan, "chosen", ""),  # earlier versions of the code do not say it
        "why": plan.parsimony,
    }


def filled(members: Members, fits: Callable[[Subset], bool]) -> Subset:
    """Members that fit together: the best alone first, each if it still fits. Everybody where there is no limit."""
    alone = log_losses(members)
    chosen: Subset = ()
    for j in sorted(range(len(members.names)), key=lambda j: alone[j]):
        if fits(tuple(sorted((*chosen, j)))):
            chosen = tuple(sorted((*chosen, j)))
    return chosen


def log_losses(members: Members) -> list[float]:
    return [float(log_loss_rows(table, members.y).mean()) for table in members.p]


def simple(members: Members, fresh: Members, chosen: Subset) -> dict[str, float]:
    """Fresh log loss of what needs no search, of the chosen members."""
    p, held, names = members.p[list(chosen)], fresh.p[list(chosen)], [members.names[j] for j in chosen]
    tables = dict(zip(names, held, strict=True))
    best = int(np.argmin([log_loss_rows(table, members.y).mean() for table in p]))
    predicted = {
        "best single": held[best],
        "equal weights": held.mean(axis=0),
        "greedy": np.tensordot(greedy(p, members.y), held, axes=1),
        "log pool": apply_blend(fit_blend(RIDGED, names, p, members.y), tables),
    }
    return {name: float(log_loss_rows(found, fresh.y).mean()) for name, found in predicted.items()}


def greedy(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Caruana's ensemble selection with replacement; written again here, so that old and new code are beside the same one."""
    true = np.maximum(p[:, np.arange(len(y)), y], 1e-15)
    counts, total = np.zeros(len(p)), np.zeros(len(y))
    for _ in range(ROUNDS):
        best = int(np.log(total + true).mean(axis=1).argmax())
        counts[best] += 1
        total += true[best]
    return counts / counts.sum()


def oracle_of(fresh: Members, fits: Callable[[Subset], bool]) -> float:
    """The least log loss of a logistic pool of affordable members, fitted to the fresh rows themselves."""
    sets = [tuple(range(len(fresh.names)))]
    if not fits(sets[0]):
        fitter = posed(fresh.rows(np.arange(len(fresh.y)) < 30_000)).fitter
        sets = [scored.members for scored in search_exactly(fitter.true, fits, fitter=fitter).subsets[:6]]
    losses = []
    for chosen in sets:
        names, p = [fresh.names[j] for j in chosen], fresh.p[list(chosen)]
        for spec in BEST:
            blended = apply_blend(fit_blend(spec, names, p, fresh.y), dict(zip(names, p, strict=True)))
            losses.append(float(log_loss_rows(blended, fresh.y).mean()))
    return min(losses)


def posed(members: Members) -> Problem:
    return pose_problem(members, BuildRequest(load_target("t4x2"), 1.0, COMPETITION_ROWS))


def report(found: dict[str, Any]) -> str:
    """The table of all kept runs: mean regret by method with its standard error, z of the promise."""
    runs = found["runs"]
    names = list(runs)
    last = runs[names[-1]]
    others = [name for name in last[0]["losses"] if name not in ("plan", "oracle")]
    head = [*(f"plan, {name}" for name in names), *others]
    lines = [
        "# Few labelled rows",
        "",
        *(f"{name}: {info['date']}, {info['machine']}, `{info['command']}`." for name, info in found["info"].items()),
        "",
        f"Mean regret over seeds, in nats a row on {FRESH:,} fresh rows, against the best affordable logistic pool fitted to "
        f"these ({MEMBERS} members, t4x2); ± its standard error. The simple pools are of the best members alone that fit "
        "together. z: (promised - fresh log loss) / standard error of the promise, mean and the largest in size. Written by "
        "`benchmarks/ensemble_few_rows.py`.",
        "",
        "| " + " | ".join(["rows", "budget", "oracle", *head, *(f"z, {n}" for n in names)]) + " |",
        "|---" * (3 + len(head) + len(names)) + "|",
    ]
    for rows, binding in sorted({(item["rows"], item["binding"]) for item in last}):
        cells = [f"{rows:,}", f"{BINDING:.0%} of all" if binding else "no limit"]
        here = {name: [x for x in runs[name] if (x["rows"], x["binding"]) == (rows, binding)] for name in names}
        cells.append(f"{np.mean([x['losses']['oracle'] for x in here[names[-1]]]):.4f}")
        cells += [regret(here[name], "plan") for name in names]
        cells += [regret(here[names[-1]], other) for other in others]
        for name in names:
            z = np.array([x["z"] for x in here[name]])
            cells.append(f"{z.mean():+.1f}, {z[np.abs(z).argmax()]:+.1f}" if len(z) else "")
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *found.get("notes", [])]  # what a reader of the table must know of its runs, kept in the JSON by hand
    return "\n".join(lines).rstrip() + "\n"


def regret(items: list[dict[str, Any]], name: str) -> str:
    values = np.array([item["losses"][name] - item["losses"]["oracle"] for item in items])
    return f"{values.mean():.4f} ± {values.std(ddof=1) / np.sqrt(len(values)):.4f}" if len(values) > 1 else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[300, 600, 2000, 6000])
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--as", dest="name", default="now")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    kept = options.out / "ensemble_few_rows.json"
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {"info": {}, "runs": {}}
    found["runs"].pop(options.name, None)
    command = " ".join(["python benchmarks/ensemble_few_rows.py", *sys.argv[1:]])
    info = {"date": date.today().isoformat(), "machine": machine(), "command": command}
    found["info"].pop(options.name, None)
    found["info"][options.name] = info
    runs = found["runs"].setdefault(options.name, [])
    for rows in options.rows:
        for binding in (False, True):
            for seed in range(options.first_seed, options.first_seed + options.seeds):
                runs.append(one(rows, seed, binding=binding))
                print(json.dumps(runs[-1]), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(found, indent=1) + "\n")
    (options.out / "ensemble_few_rows.md").write_text(report(found))
    print(report(found))


if __name__ == "__main__":
    main()
