"""Predictions with members that misbehave by their names, and what must hold whatever they do."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from ensemble.plan import Job, PlanMember, PlanTarget
from ensemble.predict.outcome import Prediction
from ensemble.predict.run import predict
from tests.helpers.paths import HELPERS
from tests.helpers.plans import one_after_the_other, plan_member, plan_of, plan_pool, written
from zoo.contracts import Cost, Held, Input, PromptSpec, ScoreRequest, ScoreSpec, Variant
from zoo.scores.tables import read_submission
from zoo.store import write_atomic

ROWS = 40
BAD_ROW = "39"
BUDGET = 1000.0  # on the clock of the test


def prepare(place: Path, rows: int = ROWS) -> None:
    """Put there settings whose `score` stage is the stand-in, and a labelled file of battles, of which one cannot be read."""
    script = place / "stand_in"
    script.write_text(f"#!{sys.executable}\n{(HELPERS / 'stand_in_scoring.py').read_text()}")
    script.chmod(0o755)
    (place / "settings.toml").write_text(f'[environments]\nscore = "{script}"\n')
    lines = ["id,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie"]
    for i in range(rows):
        winner = ",".join("1" if i % 3 == label else "0" for label in range(3))
        prompt = "not json" if str(i) == BAD_ROW else '"[""' + "why " * (1 + i % 7) + '""]"'
        lines.append(f'{i},{prompt},"[""yes""]","[""no""]",{winner}')
    (place / "battles.csv").write_text("\n".join(lines) + "\n")


def member(place: Path, name: str, *, row_seconds: float = 0.001, **fields: object) -> PlanMember:
    """A member whose checkpoint lies in the store of this home; its entry's name says how it will behave."""
    entry, _, slug = name.partition("@")
    checkpoint = entry.replace(".", "-")
    folder = place / "home" / "store" / f"fake-{checkpoint}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text("{}")
    variant = Variant(order=slug[:2], max_tokens=int(slug[3:]))
    request = ScoreRequest(
        entry=entry,
        model=Input(path=Path("/elsewhere"), fingerprint=checkpoint),
        battles=Input(path=Path("/gone/train.csv"), fingerprint="0"),
        held=Held(),
        prompt=PromptSpec(template="{prompt}{response_a}{response_b}"),
        spec=ScoreSpec(variants=(variant,), chunk_rows=10),
        target="cpu",
    )
    cost = Cost(target="cpu", load_seconds=0.2, seconds_per_row=row_seconds, gpus=0)
    usual = {"variant": variant, "predicted_seconds": 0.2 + ROWS * row_seconds, "checkpoint": checkpoint, "cost": cost}
    return plan_member(name, **usual, request=request, **fields)


def make_plan(place: Path, members: list[PlanMember], jobs: list[Job] | None = None, *, gpus: int = 0) -> Path:
    """A plan file with a pool for every subset of the members; unless jobs are given, one after the other."""
    names = [m.name for m in members]
    jobs = jobs or [one_after_the_other(place, name) for place, name in enumerate(names)]
    subsets = [subset for k in range(1, len(names) + 1) for subset in itertools.combinations(names, k)]
    pools = [plan_pool(subset, 1.0 - 0.1 * len(subset)) for subset in subsets]
    target = PlanTarget(name="cpu", gpus=gpus)
    return written(plan_of(members, pools, target=target, rows=ROWS, schedule=tuple(jobs)), place / "plan.json")


def run(place: Path, plan: Path, **options: object) -> Prediction:
    """Predict in this process, by the test's clock, and check what must hold whatever the members do."""
    done = predict(plan, place / "battles.csv", place / "out.csv", started_at=0.0, budget_seconds=BUDGET, **options)
    assert done.used_seconds < BUDGET
    check_file(place / "out.csv")
    assert sum(done.patterns.values()) == ROWS
    assert json.loads(done.report.read_text())["patterns"] == done.patterns
    return done


def check_file(path: Path) -> np.ndarray:
    frame = read_submission(path)  # checks the columns, that rows sum to 1, and that nothing is NaN or negative
    assert frame["id"].tolist() == [str(i) for i in range(ROWS)]
    assert not [p.name for p in path.parent.iterdir() if p.name.endswith(".tmp")]
    return frame[["p_a", "p_b", "p_tie"]].to_numpy()


def chunks(place: Path) -> list[Path]:
    """Chunk files that are there, of all members."""
    return list((place / "home" / "predict").rglob("*.parquet"))


def allow(place: Path, count: int) -> None:
    """Let members of the kind "held" write so many chunks each."""
    write_atomic(place / "allowed", str(count))


def outcome(done: Prediction, name: str) -> str:
    return next(m.note for m in done.members if m.name == name)


PREDICT = """
import sys, time
from pathlib import Path
from ensemble.predict.run import predict
from zoo.targets import process_age_seconds
{before}
plan, battles, output = map(Path, sys.argv[1:])
started = time.monotonic() - process_age_seconds()
print(predict(plan, battles, output, started_at=started, budget_seconds=3600).stopped_by)
"""


def start_predict(place: Path, plan: Path, before: str = "") -> subprocess.Popen[bytes]:
    """Predict in a process of its own, by the real clock and with an hour to spare; `before`: code that it runs first."""
    command = [sys.executable, "-c", PREDICT.format(before=before), plan, place / "battles.csv", place / "out.csv"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
