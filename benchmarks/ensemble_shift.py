"""Battles of another source: what a plan promises and gets, and what a few labelled rows of that source are worth.

    python benchmarks/ensemble_shift.py FITTING OTHER --work FOLDER [--robust dataset] [--draws 40] [--out benchmarks/results]

Four members (a lexical model and three of scikit-learn, see shift_tables.py) are fitted on FITTING by prompt folds, imported,
and built into a plan by `ensemble build`, again with `--robust`. The plan is judged on OTHER as it is; then recalibrated, as
by `ensemble recalibrate`, on 50, 100 and 243 of its rows and judged on the others, over several draws. Simulated shifts, whose
truth is known, say what a calibration costs where none is needed. Writes ensemble_shift.md and .json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from ensemble_search import machine
from shift_tables import make_tables

from ensemble.plan import Plan, load_plan
from ensemble.pools.blend import RIDGED_LOGISTIC, apply_blend, fit_blend
from ensemble.pools.calibration import apply_numbers, blend_by_plan, equal_weights, fit_calibration
from zoo.data.battles import read_battles, text_lengths
from zoo.data.splits import prompt_groups
from zoo.scores.metrics import log_loss_rows, mean_and_error
from zoo.scores.tables import PROBABILITIES

ROWS = (50, 100, 243)
SHIFTS = ((1.0, 0.0), (1.35, 0.2), (2.0, 0.0), (0.8, 0.0), (1.0, -0.4))  # true temperature of the logits and bias of a tie
SIMULATED_SEEDS, FIRST_SEED, FRESH = 60, 5_000, 20_000  # seeds that the strength of the shrinkage was not chosen on


def plans(fitting: Path, tables: dict[str, tuple[Path, Path]], work: Path, robust: str) -> dict[str, Plan]:
    """The plans that the commands build of the imported tables, in a home of their own."""
    environment = os.environ | {"ZOO_HOME": str(work / "home")}

    def command(*words: str) -> None:
        subprocess.run([sys.executable, "-m", *words], env=environment, check=True, stdout=subprocess.DEVNULL)

    for name, (path, _) in tables.items():
        command(
            "zoo",
            "import",
            name,
            "--scores",
            str(path),
            "--labels",
            str(fitting),
            *["--target", "cpu", "--seconds-per-row", "0.01"],
        )
    found = {}
    for name, options in {
        "plan": [],
        "robust, worst": ["--robust", robust],
        "robust, mean": ["--robust", robust, "--robust-by", "mean"],
    }.items():
        path = work / f"{name.replace(', ', '-')}.json"
        command("ensemble", "build", "--data", str(fitting), "--target", "cpu", "-o", str(path), *options)
        found[name] = load_plan(path)
    return found


class Other:
    """The other source: labels, prompts, and what the members say."""

    def __init__(self, path: Path, tables: dict[str, tuple[Path, Path]]) -> None:
        frame = read_battles(path).frame
        self.y, self.groups = frame["label"].to_numpy(dtype=np.int64), prompt_groups(frame, "near-prompts-1")
        self.tables = {name: read_table(pair[1], frame["id"]) for name, pair in tables.items()}
        self.everything, self.lengths = np.ones(len(self.y), dtype=bool), text_lengths(frame)
        self.equal = equal_weights(self.tables, dict.fromkeys(self.tables, self.everything))

    def of(self, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
        """The plan's triples, and the mean of its members' (rows, 3)."""
        tables = {member.name: self.tables[member.name] for member in plan.members}
        has = dict.fromkeys(tables, self.everything)
        p = blend_by_plan(plan, tables, has, as_planned=self.everything, lengths=self.lengths).p
        return p, equal_weights(tables, has)

    def of_pool(self, fitting: Path, tables: dict[str, tuple[Path, Path]]) -> tuple[np.ndarray, np.ndarray]:
        """The triples of the ridged logistic pool of everybody, fitted on the other file, and the members' mean."""
        frame = read_battles(fitting).frame
        p = np.stack([read_table(pair[0], frame["id"]) for pair in tables.values()])
        blend = fit_blend(RIDGED_LOGISTIC, list(tables), p, frame["label"].to_numpy(dtype=np.int64))
        return apply_blend(blend, self.tables), self.equal


def read_table(path: Path, ids: pd.Series) -> np.ndarray:
    table: np.ndarray = pd.read_csv(path, dtype={"id": "str"}).set_index("id").loc[ids, list(PROBABILITIES)].to_numpy()
    return table


def as_it_is(name: str, plan: Plan, other: Other) -> dict[str, Any]:
    p, equal = other.of(plan)
    loss, error = mean_and_error(log_loss_rows(p, other.y), other.groups)
    difference, apart = mean_and_error(log_loss_rows(p, other.y) - log_loss_rows(other.equal, other.y), other.groups)
    return {
        "plan": name,
        "chosen": plan.chosen,
        "members": [member.name for member in plan.members],
        "promised": plan.oof_log_loss,
        "promised_se": plan.oof_log_loss_se,
        "groups": {} if plan.robust is None else {group.name: group.log_loss for group in plan.robust.groups},
        "log_loss": loss,
        "log_loss_se": error,
        "equal_of_its_members": float(log_loss_rows(equal, other.y).mean()),
        "equal_of_all": float(log_loss_rows(other.equal, other.y).mean()),
        "against_equal_of_all": [difference, apart],
    }


def draws(p: np.ndarray, equal: np.ndarray, other: Other, rows: int, count: int) -> dict[str, Any]:
    """Log loss on the rows that a calibration did not see, over draws of the rows that it did; whole prompts are drawn."""
    found: list[list[float]] = []
    kept = 0
    for seed in range(count):
        seen = _drawn(other.groups, rows, seed)
        fitted = fit_calibration(p[seen], equal[seen], other.y[seen], other.groups[seen])
        kept += fitted.kept
        after = apply_numbers(fitted.numbers, p[~seen], equal[~seen])
        tables = (p[~seen], after, other.equal[~seen])
        losses = [float(log_loss_rows(table, other.y[~seen]).mean()) for table in tables]
        found.append([*losses, fitted.gain, fitted.numbers.temperature])
    before, after, even, gain, temperature = np.array(found).T
    return {
        "rows": rows,
        "before": float(before.mean()),
        "after": float(after.mean()),
        "equal": float(even.mean()),
        "gain": float((before - after).mean()),
        "gain_sd": float((before - after).std(ddof=1)),
        "worst": float((before - after).min()),
        "hurt": int((after > before).sum()),
        "promised_gain": float(gain.mean()),
        "temperature": float(np.median(temperature)),
        "kept": kept,
        "draws": count,
    }


def _drawn(groups: np.ndarray, rows: int, seed: int) -> np.ndarray:
    order = np.random.default_rng(seed).permutation(np.unique(groups))
    place = np.searchsorted(np.sort(order), groups)
    rank = np.argsort(order)[place]
    seen = np.zeros(len(groups), dtype=bool)
    seen[np.argsort(rank, kind="stable")[:rows]] = True
    return seen


def simulated(temperature: float, bias: float, rows: int) -> dict[str, Any]:
    """What calibrating on so many rows changes on fresh ones, where the blend's logits are off by a temperature and a bias."""
    changes = []
    for seed in range(FIRST_SEED, FIRST_SEED + SIMULATED_SEEDS):
        rng = np.random.default_rng(seed)
        lead, pull = rng.normal(size=rows + FRESH) * 0.9, rng.normal(size=rows + FRESH) * 0.4 - 0.3
        p = _softmax(np.stack([lead / 2, -lead / 2, pull], axis=1))
        truth = _softmax(np.stack([lead / 2, -lead / 2, pull + temperature * bias], axis=1) / temperature)
        y = (np.log(truth) + rng.gumbel(size=truth.shape)).argmax(axis=1)
        equal = _softmax(0.7 * np.log(p) + rng.normal(size=p.shape) * 0.1)
        seen = np.arange(len(y)) < rows
        numbers = fit_calibration(p[seen], equal[seen], y[seen], np.arange(rows)).numbers
        after = apply_numbers(numbers, p[~seen], equal[~seen])
        # On the truth's own expectation, so that the fresh rows' luck is in neither.
        changes.append(float((truth[~seen] * (np.log(after) - np.log(p[~seen]))).sum(axis=1).mean()))
    gains = np.array(changes)
    return {
        "temperature": temperature,
        "bias": bias,
        "rows": rows,
        "gain": float(gains.mean()),
        "gain_se": float(gains.std(ddof=1) / np.sqrt(len(gains))),
        "worst": float(gains.min()),
    }


def _softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def report(found: dict[str, Any]) -> str:
    lines = [
        "# Battles of another source",
        "",
        f"{found['machine']}, `python {found['command']}`. Written by `benchmarks/ensemble_shift.py`.",
        "",
        f"Plans of a lexical and three scikit-learn members, fitted on {found['fitted_rows']:,} rows of {found['fitting']}",
        f"by prompt folds, on the {found['other_rows']} rows of {found['other']}. Log loss in nats, errors by prompt.",
        "Uniform: 1.0986.",
        "",
        *table_of(PLANS, [_plan_cells(one) for one in found["plans"]]),
        "",
        *(_groups(one) for one in found["plans"] if one["groups"]),
        "",
        f"Recalibrated on some rows and judged on the others, {found['draws'][0]['draws']} draws of whole prompts. The",
        "draws share rows, so that ± is their standard deviation and no error of the mean; hurt: draws in which the log loss",
        "rose, and by how much at most. The last plan is no build's: the ridged logistic pool of everybody.",
        "",
        *table_of(DRAWS, [_draw_cells(one) for one in found["draws"]]),
        "",
        "Simulated: the blend's logits are off by a temperature and a bias of ties. Expected gain on fresh rows, mean of",
        f"{SIMULATED_SEEDS} seeds (from {FIRST_SEED} on: the strength of the shrinkage was chosen on others) ± its standard",
        "error, and the worst seed.",
        "",
        *table_of(SIMULATED, [_simulated_cells(one) for one in found["simulated"]]),
    ]
    return "\n".join(lines) + "\n"


PLANS = "plan | is | members | promised | gets | z | equal weights of all | plan against these"
DRAWS = (
    "plan | rows | before | after | gain | hurt | at most | equal weights of all | gain by folds | temperature, median | taken"
)
SIMULATED = "true temperature | true tie bias | rows | gain | worst"


def table_of(header: str, rows: list[list[str]]) -> list[str]:
    return [f"| {header} |", "|---" * (header.count("|") + 1) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def _plan_cells(one: dict[str, Any]) -> list[str]:
    z = (one["log_loss"] - one["promised"]) / np.hypot(one["log_loss_se"], one["promised_se"])
    difference, error = one["against_equal_of_all"]
    promised, gets = (f"{one[name]:.4f} ± {one[f'{name}_se']:.4f}" for name in ("promised", "log_loss"))
    beside = [f"{one['equal_of_all']:.4f}", f"{difference:+.4f} ± {error:.4f}"]
    return [one["plan"], one["chosen"].replace("_", " "), str(len(one["members"])), promised, gets, f"{z:+.1f}", *beside]


def _draw_cells(one: dict[str, Any]) -> list[str]:
    losses = [f"{one[name]:.4f}" for name in ("before", "after")]
    hurt = [f"{one['hurt']} of {one['draws']}", f"{max(0.0, -one['worst']):.4f}"]
    rest = [
        f"{one['equal']:.4f}",
        f"{one['promised_gain']:+.4f}",
        f"{one['temperature']:.2f}",
        f"{one['kept']} of {one['draws']}",
    ]
    return [one["plan"], str(one["rows"]), *losses, f"{one['gain']:+.4f} ± {one['gain_sd']:.4f}", *hurt, *rest]


def _simulated_cells(one: dict[str, Any]) -> list[str]:
    gain = f"{one['gain']:+.4f} ± {one['gain_se']:.4f}"
    return [f"{one['temperature']:g}", f"{one['bias']:+g}", str(one["rows"]), gain, f"{one['worst']:+.4f}"]


def _groups(one: dict[str, Any]) -> str:
    losses = ", ".join(f"{name} {loss:.4f}" for name, loss in one["groups"].items())
    return f"{one['plan']}: without each group, log loss on it: {losses}.  "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fitting", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--robust", default="dataset")
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    started = f"{date.today()}, {machine()}"
    tables = make_tables(arguments.fitting, arguments.other, arguments.work / "tables")
    built = plans(arguments.fitting, tables, arguments.work, arguments.robust)
    other = Other(arguments.other, tables)
    judged = {name: other.of(plan) for name, plan in built.items()}
    judged["logistic pool"] = other.of_pool(arguments.fitting, tables)
    found = {
        "machine": started,
        "command": f"benchmarks/ensemble_shift.py {arguments.fitting.name} {arguments.other.name}",
        "fitting": arguments.fitting.name,
        "other": arguments.other.name,
        "fitted_rows": built["plan"].fitted_rows,
        "other_rows": len(other.y),
        "plans": [as_it_is(name, plan, other) for name, plan in built.items()],
        "draws": [
            {"plan": name} | draws(*pair, other, rows, arguments.draws) for name, pair in judged.items() for rows in ROWS
        ],
        "simulated": [simulated(temperature, bias, rows) for temperature, bias in SHIFTS for rows in ROWS],
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "ensemble_shift.json").write_text(json.dumps(found, indent=1) + "\n")
    (arguments.out / "ensemble_shift.md").write_text(report(found))
    print(report(found))


if __name__ == "__main__":
    main()
