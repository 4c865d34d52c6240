"""How fast and how good the search is, on members whose truth is known.

    python benchmarks/ensemble_search.py [--rows 57477] [--out benchmarks/results]

1. 13 members: every subset, exactly. 2. 30 members: branch and bound, a study, and the gap to the bound. 3. Time against
rows and members, plotted. 4. Side by side on the same tables: scikit-learn stacking, greedy selection, hillclimbers and
AutoGluon's weighted ensemble where they are installed (`--peer-python` names an interpreter that has them).
Writes ensemble_search.md, .json and .png.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the search brings its own two threads

import numpy as np

from ensemble.members.table import Members, balanced_folds
from ensemble.pools.crossfit import DEFAULT_SPECS, Evaluator
from ensemble.pools.greedy import greedy_weights
from ensemble.search.build import pose_problem
from ensemble.search.decide import BuildRequest, SearchLimits
from ensemble.search.prices import Budget
from ensemble.search.problem import Problem
from ensemble.search.proposals import search_subsets
from ensemble.search.simple import simple_candidates
from ensemble.search.study import run_study
from ensemble.search.subsets import Fitter, search_branch_and_bound, search_exactly
from zoo.contracts import Cost, ScoreCard, Variant
from zoo.cost.price import COMPETITION_ROWS
from zoo.scores.metrics import log_loss_rows
from zoo.targets import load_target

LMSYS_ROWS = 57_477
FAMILIES = 4


def synthetic(count: int, rows: int, *, seed: int = 0) -> tuple[Members, float]:
    """Members that see known odds through errors of their own and of their family, and the entropy of these odds.

    Members are over- or underconfident by a temperature of their own, and the better they see, the more they cost.
    """
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=(rows, 3)) * 0.9
    y = (odds + rng.gumbel(size=odds.shape)).argmax(axis=1)
    truth = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    families = rng.normal(size=(FAMILIES, rows, 3))
    characters = rng.lognormal(7.6, 0.9, rows)
    p = np.empty((count, rows, 3))
    quality = rng.uniform(0.25, 1.0, count)
    for j in range(count):
        errors = 0.6 * families[rng.integers(FAMILIES)] + 0.8 * rng.normal(size=odds.shape)
        logits = (quality[j] * odds + (1.1 - quality[j]) * errors) * rng.uniform(0.7, 1.6)
        p[j] = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    seconds = 0.02 + 0.6 * quality**3 * rng.uniform(0.5, 1.5, count)
    cards = tuple(_card(j, rows, float(seconds[j] / 600)) for j in range(count))
    members = Members(
        names=tuple(card.member for card in cards),
        cards=cards,
        fingerprints=("",) * count,
        ids=tuple(map(str, range(rows))),
        p=p,
        tokens=np.tile(np.minimum(characters / 4, 2048).astype(np.int64), (count, 1)),
        y=y,
        groups=np.arange(rows),
        folds=balanced_folds(np.arange(rows)),
        lengths=characters[:, None] / np.array([5.0, 2.5, 2.5]),
        digest=f"synthetic-{seed}",
        lost_rows=0,
        left_out={},
    )
    return members, float(-(truth * np.log(truth)).sum(axis=1).mean())


def _card(j: int, rows: int, seconds_per_token: float) -> ScoreCard:
    name = f"m{j:02d}"
    cost = Cost(target="t4x2", load_seconds=90, seconds_per_token=seconds_per_token)
    names = {"member": name, "entry": name, "checkpoint": name, "engine": "synthetic", "dataset_digest": "synthetic"}
    return ScoreCard(variant=Variant(max_tokens=2048), target="t4x2", rows=rows, failed_rows=0, cost=cost, **names)


def complementary(count: int, rows: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The hard case: each member alone understands some rows, so that nearly all have weight; true, costs."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=(rows, 3)) * 0.9
    y = (odds + rng.gumbel(size=odds.shape)).argmax(axis=1)
    quality = rng.uniform(0.5, 1.0, count)
    true = np.empty((count, rows))
    for j in range(count):
        own = rng.random(rows) < 0.25 * quality[j]
        logits = np.where(own[:, None], 1.0, 0.15) * odds + 0.3 * rng.normal(size=odds.shape)
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        true[j] = p[np.arange(rows), y]
    return true, 0.05 + quality**2 * rng.uniform(0.5, 1.5, count)


def problem_of(members: Members) -> tuple[Problem, float]:
    """The 9-hour problem on two T4s, and its seconds without the margin."""
    request = BuildRequest(load_target("t4x2"), 9 * 3600.0, COMPETITION_ROWS)
    return pose_problem(members, request), 9 * 3600.0 / 1.5


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def all_subsets(rows: int) -> dict[str, float]:
    """13 members, every subset, whether affordable or not."""
    problem, _ = problem_of(synthetic(13, rows)[0])
    cpu = time.process_time()
    searched = search_exactly(problem.fitter.true, lambda _: True, fitter=problem.fitter)
    return {
        "subsets": len(searched.subsets),
        "fits": searched.fits,
        "seconds": searched.seconds,
        "cpu_seconds": time.process_time() - cpu,
        "peak_gib": peak_gib(),
    }


def hard(rows: int) -> dict[str, float]:
    """Complementary members: all subsets of 13, and branch and bound of 30 where about a tenth of them is affordable."""
    true, _ = complementary(13, rows)
    cpu = time.process_time()
    exact = search_exactly(true, lambda _: True)
    cpu = time.process_time() - cpu
    true, costs = complementary(30, rows)
    bounded = search_branch_and_bound(true, lambda subset: float(costs[list(subset)].sum()) <= 2.0)
    gap = bounded.subsets[0].loss - bounded.lower_bound
    return {
        "seconds": exact.seconds,
        "cpu_seconds": cpu,
        "fits": exact.fits,
        "bound_seconds": bounded.seconds,
        "bound_fits": bounded.fits,
        "gap": gap,
        "peak_gib": peak_gib(),
    }


def thirty(rows: int) -> dict[str, float | int | str]:
    """30 members, 9 hours: branch and bound, and a study beside it; the gap is in-sample, of the linear pool."""
    started = time.monotonic()
    problem, available = problem_of(synthetic(30, rows)[0])
    prepared = time.monotonic() - started
    searched = search_subsets(problem, available)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        limits = SearchLimits(trials=50, timeout_seconds=None, storage=Path(folder) / "studies.db")
        budget, known = Budget(9 * 3600.0, 9 * 3600.0 / available, ""), simple_candidates(problem, available)
        tried = run_study(problem, budget, limits, known, target="t4x2", coverage=True)
    assert tried is not None
    studied = time.monotonic() - begun
    cold = optuna_alone(problem, available)
    return {
        "prepare_seconds": prepared,
        "bound_seconds": searched.seconds,
        "bound_fits": searched.fits,
        "found": searched.subsets[0].loss,
        "lower_bound": searched.lower_bound,
        "gap": max(0.0, searched.subsets[0].loss - searched.lower_bound),
        "study_seconds": studied,
        "study_trials": tried.kept.trials,
        "study_best_oof": float(tried.losses.mean(axis=1).min()),
        "total_seconds": time.monotonic() - started - cold["seconds"],
        "cold_optuna_seconds": cold["seconds"],
        "cold_optuna_trials": cold["trials"],
        "cold_optuna_gap": cold["loss"] - searched.lower_bound,
        "peak_gib": peak_gib(),
    }


def optuna_alone(problem: Problem, available: float, seconds: float = 60.0) -> dict[str, float]:
    """TPE over the subset alone, from nothing, with the exact fit inside: what branch and bound saves."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    fitter, affordable = Fitter(problem.fitter.true), problem.prices.affordable(available)
    started = time.monotonic()

    def objective(trial: optuna.Trial) -> float:
        subset = tuple(j for j in range(fitter.members) if trial.suggest_categorical(f"use {j}", [False, True]))
        trial.set_constraint("seconds", problem.prices.seconds(subset) - available if subset else 1.0)
        return fitter.score(subset).loss if subset and affordable(subset) else 2.0

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, timeout=seconds)
    return {"seconds": time.monotonic() - started, "trials": len(study.trials), "loss": study.best_value}


def scaling() -> list[dict[str, float]]:
    """Seconds of all subsets against rows and members; branch and bound beyond 13 members."""
    points: list[dict[str, float]] = []
    for count, rows in (
        (13, 5_000),
        (13, 15_000),
        (13, 30_000),
        (6, LMSYS_ROWS),
        (8, LMSYS_ROWS),
        (10, LMSYS_ROWS),
        (13, LMSYS_ROWS),
    ):
        problem, available = problem_of(synthetic(count, rows)[0])
        exact = search_exactly(problem.fitter.true, lambda _: True)
        bounded = search_branch_and_bound(problem.fitter.true, problem.prices.affordable(available))
        points.append({"members": count, "rows": rows, "all_subsets_seconds": exact.seconds, "bound_seconds": bounded.seconds})
    for count in (20, 30, 40):
        problem, available = problem_of(synthetic(count, LMSYS_ROWS)[0])
        bounded = search_branch_and_bound(problem.fitter.true, problem.prices.affordable(available))
        points.append({"members": count, "rows": LMSYS_ROWS, "bound_seconds": bounded.seconds})
    return points


def side_by_side(rows: int, peer_python: str | None) -> tuple[list[dict[str, object]], float]:
    """Held-out log loss and fitting seconds of ours and of the peers: fitted on half of the rows, judged on the others."""
    members, entropy = synthetic(8, rows, seed=7)
    half = members.folds < 2
    p, y = members.p[:, half], members.y[half]
    held_p, held_y = members.p[:, ~half], members.y[~half]
    results: list[dict[str, object]] = []

    def record(name: str, seconds: float, predicted: np.ndarray) -> None:
        results.append({"method": name, "log_loss": float(log_loss_rows(predicted, held_y).mean()), "seconds": seconds})

    def timed(name: str, fit) -> None:
        started = time.monotonic()
        predict = fit()
        record(name, time.monotonic() - started, predict(held_p))

    timed("ours: linear pool, exact", lambda: _ours(members.names, p, y, "linear"))
    timed("ours: log pool", lambda: _ours(members.names, p, y, "log"))
    timed("ours: logistic pool", lambda: _ours(members.names, p, y, "logistic"))
    timed("ours: pool by cross-validation", lambda: _chosen(members.names, p, y, members.groups[half]))
    timed("scikit-learn stacking", lambda: _stacking(p, y))
    timed("greedy selection, 25 rounds", lambda: _weights(greedy_weights(p, y)))
    timed("equal weights", lambda: _weights(np.full(len(p), 1 / len(p))))
    timed("best single", lambda: _weights(np.eye(len(p))[min(range(len(p)), key=lambda j: log_loss_rows(p[j], y).mean())]))
    if peer_python:
        results += _peers(peer_python, p, y, held_p, held_y)
    return sorted(results, key=lambda row: row["log_loss"] if row["log_loss"] is not None else 9.0), entropy


def _ours(names, p, y, pool):
    from ensemble.pools.blend import apply_blend, fit_blend

    blend = fit_blend(DEFAULT_SPECS[pool], names, p, y)
    return lambda tables: apply_blend(blend, dict(zip(names, tables, strict=True)))


def _chosen(names, p, y, groups):
    from ensemble.pools.blend import SPECS, apply_blend, fit_blend

    _, spec = Evaluator(names, p, y, balanced_folds(groups)).losses(range(len(p)), SPECS)
    blend = fit_blend(spec, names, p, y)
    return lambda tables: apply_blend(blend, dict(zip(names, tables, strict=True)))


def _weights(weights):
    return lambda tables: np.tensordot(weights, tables, axes=1)


def _stacking(p, y):
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=500).fit(np.hstack(list(np.log(np.maximum(p, 1e-6)))), y)
    return lambda tables: model.predict_proba(np.hstack(list(np.log(np.maximum(tables, 1e-6)))))


PEERS = Path(__file__).with_name("ensemble_peers.py")


def _peers(python: str, p, y, held_p, held_y) -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "tables.npz"
        np.savez(data, p=p, y=y, held_p=held_p)
        answer = subprocess.run([python, str(PEERS), str(data)], capture_output=True, text=True, check=False)
        if answer.returncode:
            sys.stderr.write(answer.stderr)
            return []
        found = json.loads(answer.stdout.strip().splitlines()[-1])
        rows: list[dict[str, object]] = []
        for item in found:
            loss = float(log_loss_rows(np.load(item["file"]), held_y).mean()) if item.get("file") else None
            rows.append(
                {"method": item["method"], "log_loss": loss, "seconds": item.get("seconds"), "note": item.get("note", "")}
            )
        return rows


def machine() -> str:
    model = next(
        (x.partition(":")[2].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")), ""
    )
    return f"{model or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start"


def write_report(results: dict, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ensemble_search.json").write_text(json.dumps(results, indent=1) + "\n")
    exact, hardest, large = results["all_subsets"], results["hard"], results["thirty"]
    parts = f"the bound {large['bound_seconds']:.1f} s, the study {large['study_seconds']:.1f} s"
    whole = f"{large['total_seconds']:.1f} s, of it {parts}"
    lines = [
        "# Ensemble search",
        "",
        f"{results['date']}, {results['machine']}; {results['rows']:,} rows. Written by `benchmarks/ensemble_search.py`.",
        "",
        "| what | measured | wanted |",
        "|---|---|---|",
        f"| 13 members, all {exact['subsets']:,} subsets, exactly | {timing(exact)} | 60 s |",
        f"| the same, members that complement each other | {timing(hardest)} | 60 s |",
        f"| 30 members, bound and a study of {large['study_trials']} trials | {whole} | 180 s |",
        f"| 30 members, gap to the bound | {large['gap']:.1e} | 1e-4 |",
        f"| 30 members, Optuna from nothing, subset only: gap after {large['cold_optuna_seconds']:.0f} s "
        f"({large['cold_optuna_trials']} trials) | {large['cold_optuna_gap']:.1e} | |",
        f"| 30 members that complement each other: gap of branch and bound after {hardest['bound_seconds']:.0f} s "
        f"({hardest['bound_fits']} fits) | {hardest['gap']:.1e} | 1e-4 |",
        f"| peak memory | {large['peak_gib']:.2f} GiB | 2 GiB |",
        "",
        "## Time against rows and members",
        "",
        "![time](ensemble_search.png)",
        "",
        "| members | rows | all subsets, s | branch and bound at 9 h, s |",
        "|---|---|---|---|",
        *(f"| {x['members']} | {x['rows']:,} | {seconds_of(x)} | {x['bound_seconds']:.2f} |" for x in results["scaling"]),
        "",
        "## Side by side",
        "",
        f"8 members, fitted on two fifths of {results['rows']:,} rows, judged on the others. The odds' own entropy, which "
        f"nothing can beat, is {results['entropy']:.4f}.",
        "",
        "| method | held-out log loss | seconds to fit |",
        "|---|---|---|",
        *(
            f"| {x['method']} | {x['log_loss']:.5f} | {x['seconds']:.2f} |"
            if x["log_loss"] is not None
            else f"| {x['method']} | {x.get('note', 'failed')} | |"
            for x in results["side_by_side"]
        ),
    ]
    (folder / "ensemble_search.md").write_text("\n".join(lines) + "\n")
    draw(results["scaling"], folder / "ensemble_search.png")


def seconds_of(point: dict[str, float]) -> str:
    """Seconds of all subsets, where they were tried."""
    return f"{point['all_subsets_seconds']:.2f}" if "all_subsets_seconds" in point else ""


def timing(found: dict[str, float]) -> str:
    """Wall-clock and processor seconds: on a machine with other work the second, over two threads, is what it takes alone."""
    return f"{found['seconds']:.1f} s, {found['cpu_seconds']:.1f} s of processors ({found['fits']:,} fits)"


def draw(points: list[dict[str, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    by_rows = sorted((x for x in points if x["members"] == 13), key=lambda x: x["rows"])
    left.plot([x["rows"] for x in by_rows], [x["all_subsets_seconds"] for x in by_rows], "o-", label="all 8,191 subsets")
    left.set(xlabel="rows, 13 members", ylabel="seconds", ylim=0)
    full = sorted((x for x in points if x["rows"] == LMSYS_ROWS), key=lambda x: x["members"])
    exact = [x for x in full if "all_subsets_seconds" in x]
    right.plot([x["members"] for x in exact], [x["all_subsets_seconds"] for x in exact], "o-", label="all subsets")
    right.plot([x["members"] for x in full], [x["bound_seconds"] for x in full], "^-", label="branch and bound, 9 h")
    right.set(xlabel=f"members, {LMSYS_ROWS:,} rows", ylabel="seconds", yscale="log")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=LMSYS_ROWS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--peer-python", help="interpreter with hillclimbers and autogluon.tabular")
    options = parser.parse_args()
    results: dict = {"date": date.today().isoformat(), "machine": machine(), "rows": options.rows}
    for name, measure in (("all_subsets", all_subsets), ("hard", hard), ("thirty", thirty)):
        results[name] = measure(options.rows)
        print(name, json.dumps(results[name]), flush=True)
    results["side_by_side"], results["entropy"] = side_by_side(options.rows, options.peer_python)
    print(json.dumps(results["side_by_side"], indent=1), flush=True)
    results["scaling"] = scaling()
    write_report(results, options.out)


if __name__ == "__main__":
    main()
