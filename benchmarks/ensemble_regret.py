"""Regret and honesty of built plans beside what else blends score tables, over settings with known truth.

    python benchmarks/ensemble_regret.py [--settings "300 rows" shift ...] [--seeds 10] [--processes 2] [--trials N]
        [--peer-python PYTHON] [--out benchmarks/results]

Simulated members (`synthetic` of ensemble_search.py) as score tables of labelled rows; each method fits its blend to these and
is judged on fresh rows. Ours goes the users' way: the tables are vetted and joined (`align`), then `build_plan`. The others get
the same tables; where rows are missing, a missing member's row is the mean of those that are there. Regret is against the best
logistic pool of affordable members, fitted to the fresh rows themselves: of first order, so that a method can be below 0.
z: (promised - fresh log loss) / the standard error of both. `--peer-python` has AutoGluon and hillclimbers, see
ensemble_peers.py. Every problem is kept in OUT/ensemble_regret.json as it ends, and not done again; the table is
OUT/ensemble_regret.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from ensemble_few_rows import BINDING, MARGIN, filled, greedy, oracle_of, posed
from ensemble_search import machine, synthetic

from ensemble.members.gather import align
from ensemble.members.table import Members
from ensemble.pools.blend import apply_blend
from ensemble.search.build import build_plan
from ensemble.search.decide import BuildRequest
from ensemble.search.subsets import Subset
from zoo.cost.price import COMPETITION_ROWS
from zoo.errors import ZooError
from zoo.pipeline.members import Table
from zoo.scores.metrics import log_loss_rows, standard_error
from zoo.scores.tables import score_table
from zoo.targets import load_target

FRESH = 50_000
LEAST = 1e-6  # peers' zeros; ours may not have any


@dataclass(frozen=True)
class Setting:
    """Labelled tables p (members, rows, 3) with NaN where a row is missing, and fresh ones of the same members."""

    labelled: Members
    fresh: Members
    binding: bool = False


def split(everything: Members, rows: int) -> Setting:
    labelled = np.arange(len(everything.y)) < rows
    return Setting(everything.rows(labelled), everything.rows(~labelled))


def simulated(seed: int, rows: int, *, members: int = 8) -> Setting:
    return split(synthetic(members, rows + FRESH, seed=seed)[0], rows)


def near_duplicates(seed: int) -> Setting:
    """Half of twelve members are others again, with a little noise."""
    everything = synthetic(12, 2_000 + FRESH, seed=seed)[0]
    rng = np.random.default_rng(seed + 1)
    p = everything.p.copy()
    for j in range(6):
        p[6 + j] = softmax(np.log(p[j]) + 0.05 * rng.normal(size=p[j].shape))
    return split(replace(everything, p=p), 2_000)


def miscalibrated(seed: int) -> Setting:
    """Temperatures from a quarter to four, and too many or too few ties."""
    everything = synthetic(8, 2_000 + FRESH, seed=seed)[0]
    rng = np.random.default_rng(seed + 1)
    scale, tie = np.exp(rng.uniform(-1.4, 1.4, 8)), rng.normal(0, 0.7, 8)
    logits = np.log(everything.p) * scale[:, None, None]
    logits[:, :, 2] += tie[:, None]
    return split(replace(everything, p=softmax(logits)), 2_000)


def leaked(seed: int) -> Setting:
    """One member has the labels of a tenth of the labelled rows in it."""
    setting = simulated(seed, 2_000)
    rng = np.random.default_rng(seed + 1)
    p, y = setting.labelled.p.copy(), setting.labelled.y
    rows = rng.random(len(y)) < 0.1
    p[0, rows] = 0.02 + 0.94 * np.eye(3)[y[rows]]
    return replace(setting, labelled=replace(setting.labelled, p=p))


def missing_rows(seed: int) -> Setting:
    """Of half of the members up to two fifths of the labelled rows are missing."""
    setting = simulated(seed, 2_000)
    rng = np.random.default_rng(seed + 1)
    p = setting.labelled.p.copy()
    for j in range(0, 8, 2):
        p[j, rng.random(p.shape[1]) < rng.uniform(0.05, 0.4)] = np.nan
    return replace(setting, labelled=replace(setting.labelled, p=p))


def few_ties(seed: int) -> Setting:
    """600 labelled rows, three in a hundred of them ties; the members expect a third, or nearly none."""
    everything = synthetic(8, 4 * (600 + FRESH), seed=seed)[0]
    rng = np.random.default_rng(seed + 1)
    tie = everything.y == 2
    share = 0.03 / 0.97 * (~tie).sum() / tie.sum()
    kept = ~tie | (rng.random(len(tie)) < share)
    kept &= np.cumsum(kept) <= 600 + FRESH
    return split(everything.rows(kept), 600)


def zeros(seed: int) -> Setting:
    """Sharpened tables rounded to two decimals, as text files hold them: many are 0."""
    everything = synthetic(8, 2_000 + FRESH, seed=seed)[0]
    sharp = softmax(1.5 * np.log(everything.p)).round(2)
    return split(replace(everything, p=sharp / sharp.sum(axis=2, keepdims=True)), 2_000)


def shifted(seed: int) -> Setting:
    """Fresh rows of another source: other temperatures, fewer ties, and two of the members see less."""
    setting = simulated(seed, 2_000)
    rng = np.random.default_rng(seed + 1)
    logits = np.log(setting.fresh.p) * np.exp(rng.normal(0, 0.3, 8))[:, None, None]
    logits[:2] += rng.normal(0, 1.0, logits[:2].shape)
    kept = (setting.fresh.y != 2) | (rng.random(len(setting.fresh.y)) < 0.5)
    return replace(setting, fresh=replace(setting.fresh, p=softmax(logits)).rows(kept))


def binding(seed: int) -> Setting:
    return replace(simulated(seed, 2_000), binding=True)


SETTINGS: dict[str, Callable[[int], Setting]] = {
    "300 rows": lambda seed: simulated(seed, 300),
    "600 rows": lambda seed: simulated(seed, 600),
    "2,000 rows": lambda seed: simulated(seed, 2_000),
    "10,000 rows": lambda seed: simulated(seed, 10_000),
    "57,477 rows": lambda seed: simulated(seed, 57_477),
    "near-duplicates": near_duplicates,
    "miscalibrated": miscalibrated,
    "leaked": leaked,
    "missing rows": missing_rows,
    "3 % ties": few_ties,
    "zeros": zeros,
    "binding budget": binding,
    "shift": shifted,
}


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    found: np.ndarray = shifted / shifted.sum(axis=-1, keepdims=True)
    return found


def one(name: str, seed: int, trials: int | None, peer_python: str | None) -> dict[str, Any]:
    """Fresh log loss and seconds by method, of one simulated problem; ours with its promise."""
    setting = SETTINGS[name](seed)
    complete = filled_in(setting.labelled)
    prices = posed(complete).prices
    everyone = tuple(range(len(complete.names)))
    budget = prices.seconds(everyone) * (BINDING if setting.binding else 1.01)
    fits = prices.affordable(budget)
    fresh = setting.fresh
    plan_blend, promise, ours_seconds, plan = ours(setting.labelled, budget, trials)
    predicted = apply_blend(plan_blend, dict(zip(fresh.names, fresh.p, strict=True)), fresh.lengths)
    losses = log_loss_rows(predicted, fresh.y)
    truth = float(losses.mean())
    found = {"ours": truth, "oracle": oracle_of(fresh, fits)}
    seconds = {"ours": ours_seconds}
    for method, (p, took) in others(complete, fresh, filled(complete, fits), peer_python).items():
        found[method] = float(log_loss_rows(np.maximum(p, LEAST), fresh.y).mean())
        seconds[method] = took
    error = float(np.hypot(plan.oof_log_loss_se, standard_error(losses)))
    return {
        "setting": name,
        "seed": seed,
        "losses": found,
        "seconds": seconds,
        "promise": promise,
        "z": (promise - truth) / error,
        "chosen": plan.chosen,
        "left_out": plan.left_out,
    }


def ours(labelled: Members, budget: float, trials: int | None) -> tuple[Any, float, float, Any]:
    """The plan's blend, its promise and its seconds, from tables as a user brings them."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        battles = Path(folder) / "labels.csv"
        wins = np.eye(3, dtype=int)[labelled.y]
        columns = dict(zip(("winner_model_a", "winner_model_b", "winner_tie"), wins.T, strict=True))
        pd.DataFrame({"id": labelled.ids, **columns}).to_csv(battles, index=False)
        tables = [table_of(labelled, j, Path(folder)) for j in range(len(labelled.names))]
        members = align(tables, battles=battles)
    limits = {} if trials is None else {"limits": replace(BuildRequest(load_target("t4x2"), 1.0, 1).limits, trials=trials)}
    request = BuildRequest(load_target("t4x2"), budget, COMPETITION_ROWS, MARGIN, coverage=False, **limits)
    plan = build_plan(members, request)
    blend = next(pool.blend for pool in plan.pools if len(pool.members) == len(plan.members) and not pool.planned)
    return blend, plan.oof_log_loss, time.monotonic() - started, plan


def table_of(labelled: Members, j: int, folder: Path) -> Table:
    """A member's score table as a user has it: the rows that are there."""
    there = np.isfinite(labelled.p[j]).all(axis=1)
    ids = [i for i, has in zip(labelled.ids, there, strict=True) if has]
    frame = score_table(ids, labelled.p[j][there], n_tokens=labelled.tokens[j][there])
    digest = digest_of(labelled)
    card = labelled.cards[j].model_copy(update={"dataset_digest": digest, "rows": len(ids)})
    return Table(folder / labelled.names[j], card, frame, None, labelled.names[j])


def digest_of(labelled: Members) -> str:
    from zoo.data.battles import labels_digest, read_battles

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        wins = np.eye(3, dtype=int)[labelled.y]
        columns = dict(zip(("winner_model_a", "winner_model_b", "winner_tie"), wins.T, strict=True))
        pd.DataFrame({"id": labelled.ids, **columns}).to_csv(path, index=False)
        return labels_digest(read_battles(path, need_texts=False))


def filled_in(labelled: Members) -> Members:
    """A missing member's row is the mean of those that are there."""
    mean = np.nanmean(labelled.p, axis=0)
    return replace(labelled, p=np.where(np.isnan(labelled.p), mean, labelled.p))


def others(labelled: Members, fresh: Members, chosen: Subset, peer_python: str | None) -> dict[str, tuple[np.ndarray, float]]:
    """Fresh triples and seconds of each other method, of the affordable members."""
    p, y, held = labelled.p[list(chosen)], labelled.y, fresh.p[list(chosen)]
    best = int(np.argmin([log_loss_rows(table, y).mean() for table in p]))
    methods: dict[str, Callable[[], np.ndarray]] = {
        "best single": lambda: held[best],
        "equal weights": lambda: held.mean(axis=0),
        "greedy": lambda: np.tensordot(greedy(p, y), held, axes=1),
        "stacking, default": lambda: stacking(p, y, held),
        "stacking, C by folds": lambda: stacking_by_folds(p, y, held),
        "LightGBM": lambda: lightgbm(p, y, held),
    }
    found = {}
    for name, method in methods.items():
        started = time.monotonic()
        found[name] = (method(), time.monotonic() - started)
    return found | (peers(peer_python, p, y, held) if peer_python else {})


def stacking(p: np.ndarray, y: np.ndarray, held: np.ndarray) -> np.ndarray:
    """What scikit-learn's StackingClassifier fits by default: logistic regression on the members' probabilities."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=2_000).fit(np.hstack(list(p)), y)
    return proba(model, np.hstack(list(held)))


def stacking_by_folds(p: np.ndarray, y: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Logistic regression on log-probabilities, its C chosen by five folds: what careful users do."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = LogisticRegressionCV(
        Cs=8, cv=5, scoring="neg_log_loss", max_iter=2_000, use_legacy_attributes=False, l1_ratios=(0.0,)
    )
    fitted = make_pipeline(StandardScaler(), model).fit(logs(p), y)
    return proba(fitted, logs(held))


def lightgbm(p: np.ndarray, y: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Boosted trees on log-probabilities, stopped early by a fifth of the rows."""
    from lightgbm import LGBMClassifier, early_stopping

    valid = np.arange(len(y)) % 5 == 0
    model = LGBMClassifier(n_estimators=1_000, learning_rate=0.03, num_leaves=15, min_child_samples=50, n_jobs=1, verbose=-1)
    x = logs(p)
    model.fit(x[~valid], y[~valid], eval_X=x[valid], eval_y=y[valid], callbacks=[early_stopping(50, verbose=False)])
    return proba(model, logs(held))


def logs(p: np.ndarray) -> np.ndarray:
    return np.hstack(list(np.log(np.maximum(p, LEAST))))


def proba(model: Any, x: np.ndarray) -> np.ndarray:
    """Its probabilities with a column for every label."""
    out = np.full((len(x), 3), LEAST)
    out[:, model.classes_] = model.predict_proba(x)
    return out


def peers(python: str, p: np.ndarray, y: np.ndarray, held: np.ndarray) -> dict[str, tuple[np.ndarray, float]]:
    """AutoGluon and hillclimbers, in an interpreter that has them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tables.npz"
        np.savez(path, p=p, y=y, held_p=held)
        script = Path(__file__).with_name("ensemble_peers.py")
        ended = subprocess.run([python, str(script), str(path)], capture_output=True, text=True, check=False)
        if ended.returncode:
            raise RuntimeError(f"{python}: {ended.stderr[-300:]}")
        results = json.loads(ended.stdout.strip().splitlines()[-1])
        for item in results:
            if "note" in item:
                print(f"{item['method']}: {item['note']}", file=sys.stderr)
        return {item["method"]: (np.load(item["file"]), item["seconds"]) for item in results if "file" in item}


def report(found: dict[str, Any]) -> str:
    """Mean regret by setting and method, who is lowest, and how honest the promise was."""
    runs = found["runs"]
    methods = ["ours", *dict.fromkeys(m for x in runs for m in x["losses"] if m not in ("ours", "oracle"))]
    info = found["info"]
    lines = [
        "# Regret and honesty, setting by setting",
        "",
        f"{info['date']}, {info['machine']}, `{info['command']}`.",
        "",
        f"Mean regret over seeds ± its standard error, in nats a row on {FRESH:,} fresh rows, against the best affordable "
        "logistic pool fitted to these. 'apart': ours less the lowest other, paired over seeds. z: (promised - fresh log "
        "loss) / the standard error of both: share of |z| under 2, mean and the largest. Written by "
        "`benchmarks/ensemble_regret.py`.",
        "",
        "| " + " | ".join(["setting", "seeds", "oracle", *methods, "apart", "z"]) + " |",
        "|---" * (len(methods) + 5) + "|",
    ]
    for name in SETTINGS:
        here = [x for x in runs if x["setting"] == name]
        if len(here) < 2:
            continue
        regrets = {m: np.array([x["losses"][m] - x["losses"]["oracle"] for x in here if m in x["losses"]]) for m in methods}
        lowest = min((m for m in methods if m != "ours" and len(regrets[m])), key=lambda m: regrets[m].mean())
        apart = regrets["ours"] - regrets[lowest]
        z = np.array([x["z"] for x in here])
        cells = [name, str(len(here)), f"{np.mean([x['losses']['oracle'] for x in here]):.4f}"]
        least = min(r.mean() for r in regrets.values() if len(r))
        for m in methods:
            mark = "**" if len(regrets[m]) and regrets[m].mean() == least else ""
            cells.append(f"{mark}{with_error(regrets[m])}{mark}")
        cells.append(f"{with_error(apart, sign='+')} ({lowest})")
        cells.append(f"{(np.abs(z) < 2).mean():.0%}, {z.mean():+.1f}, {z[np.abs(z).argmax()]:+.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    every = np.array([x["z"] for x in runs if x["setting"] != "shift"])
    lines += ["", f"|z| under 2 in {(np.abs(every) < 2).mean():.0%} of {len(every)} problems without shift."]
    median = {m: np.median([x["seconds"][m] for x in runs if m in x["seconds"]]) for m in methods}
    lines += ["", "Median seconds a problem: " + ", ".join(f"{m} {s:.2g}" for m, s in median.items()) + "."]
    lines += ["", *found.get("notes", [])]  # what a reader must know of its runs, kept in the JSON by hand
    return "\n".join(lines).rstrip() + "\n"


def with_error(values: np.ndarray, *, sign: str = "") -> str:
    if len(values) < 2:
        return ""
    return f"{values.mean():{sign}.4f} ± {values.std(ddof=1) / np.sqrt(len(values)):.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--trials", type=int, help="of the study; default: as a build has them")
    parser.add_argument("--peer-python", help="interpreter with AutoGluon and hillclimbers")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "ensemble_regret.json"
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {"runs": []}
    command = " ".join(["python benchmarks/ensemble_regret.py", *sys.argv[1:]])
    found["info"] = {"date": date.today().isoformat(), "machine": machine(), "command": command}
    done = {(x["setting"], x["seed"]) for x in found["runs"]}
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    asked = [(name, seed) for name in options.settings for seed in seeds if (name, seed) not in done]
    asked.sort(key=lambda item: item[0] != "57,477 rows")  # the longest first
    with ProcessPoolExecutor(options.processes) as pool:
        waiting = {pool.submit(one, *item, options.trials, options.peer_python): item for item in asked}
        for place, future in enumerate(as_completed(waiting), start=1):
            try:
                found["runs"].append(future.result())
            except ZooError as error:
                print(f"{waiting[future]}: {error}", file=sys.stderr)
                continue
            kept.write_text(json.dumps(found, indent=1) + "\n")
            last = found["runs"][-1]
            print(f"{place}/{len(asked)} {last['setting']} {last['seed']}: ours {last['losses']['ours']:.4f}", flush=True)
    (options.out / "ensemble_regret.md").write_text(report(found))
    print(report(found))


if __name__ == "__main__":
    main()
