"""The tiny language chain, killed again and again until it is through: fetch, train, merge, quantize, score by vLLM.

Each kill is a case. When a chain is through, its tables are held against those of one that nobody killed.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.helpers.tiny_models import TEMPLATE, write_tiny_llama
from tests.soak.homes import check_end, check_store, check_tracking
from tests.soak.ledger import Counts, Ledger
from tests.soak.processes import Ended, environment, run
from zoo.data.battles import read_battles
from zoo.data.sample import write_sample
from zoo.data.splits import assign_folds, rule_that_serves

KILLS = 30
ROWS = 150
LONGEST_SECONDS = 60.0  # between two kills
ENTRY = f"""
name = "tiny"
[base]
hub_id = "test/tiny"
architecture = "LlamaForCausalLM"
parameters = 300000
licence = "none"
[prompt]
template = {TEMPLATE!r}
max_tokens = 160
[train]
rank = 4
alpha = 8
learning_rate = 5e-3
eval_rows = 30
max_rows = 64
[quantize]
group_size = 32
calibration_rows = 4
calibration_tokens = 64
apply_clip = false
[score]
variants = [{{order = "ab", max_tokens = 160}}, {{order = "ba", max_tokens = 160}}]
chunk_rows = 4
max_seqs = 4
max_batched_tokens = 512
""".replace("'", '"')
COMMAND = ["zoo", "run", "tiny", "--data", "battles.csv", "--target", "cpu", "--source", "model"]


def run_part(folder: Path, ledger: Ledger, seed: int, say: Callable[[str], None]) -> None:
    """All kills of this part; what the homes hold is kept between runs of the soak."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "reference" / "done").exists():
        _prepare(folder)
    for number in range(KILLS):
        draw = random.Random(f"{seed}/chain/{number}")
        ledger.run(f"kill/tiny chain/{number}", lambda c, d=draw: _case(folder, d, c), say)
    ledger.run("kill/tiny chain, at last/0", lambda c: _finish(folder, c), say)


def _prepare(folder: Path) -> None:
    (folder / "entries").mkdir(exist_ok=True)
    (folder / "entries" / "tiny.toml").write_text(ENTRY)
    write_sample(folder / "battles.csv", ROWS, 7)
    write_tiny_llama(folder / "model")
    reference = folder / "reference"
    shutil.rmtree(reference, ignore_errors=True)
    reference.mkdir()
    done = _run(folder, reference)
    if done.code != 0:
        raise RuntimeError(f"the chain failed undisturbed: {done.errors[-2000:]}")
    (reference / "done").touch()


def _run(folder: Path, place: Path, **options: Any) -> Ended:
    place.mkdir(exist_ok=True)
    for name in ("battles.csv", "model"):
        if not (place / name).exists():
            (place / name).symlink_to(folder / name)
    env = environment(place / "home", ZOO_ENTRIES=str(folder / "entries"))
    return run(COMMAND, place, env, **options)


def _case(folder: Path, draw: random.Random, counts: Counts) -> None:
    place = folder / "killed"
    moment = draw.uniform(1, LONGEST_SECONDS)
    ended = _run(folder, place, kill_after=moment, everything=draw.random() < 0.6)
    check_store(place / "home", counts, finished=False)
    if ended.killed:
        counts.notes.append(f"killed after {moment:.1f} s")
        return
    counts.notes.append("through; a new one begins")
    check_end(ended, counts)
    _check_through(folder, place, counts)
    shutil.rmtree(place)


def _finish(folder: Path, counts: Counts) -> None:
    place = folder / "killed"
    check_end(_run(folder, place), counts)
    _check_through(folder, place, counts)


def _check_through(folder: Path, place: Path, counts: Counts) -> None:
    check_tracking(place / "home", place, counts)
    check_store(place / "home", counts)
    frame = read_battles(folder / "battles.csv").frame
    held = set(frame["id"][assign_folds(frame, 5, rule_that_serves(frame, 5)) == 0])
    for slug in ("ab-160", "ba-160"):
        found = list((place / "home" / "store").glob(f"score-*/{slug}/scores.parquet"))
        whole = pd.read_parquet(next((folder / "reference" / "home" / "store").glob(f"score-*/{slug}/scores.parquet")))
        if len(found) != 1:
            counts.add("rows_lost", f"{slug}: {len(found)} tables", len(held))
            continue
        table = pd.read_parquet(found[0])
        lost, doubled = len(held - set(table["id"])), len(table) - table["id"].nunique()
        if lost or doubled or len(table) != len(held):
            counts.add(
                "rows_lost" if lost else "rows_doubled", f"{slug}: {lost} lost, {doubled} doubled", max(lost, doubled, 1)
            )
            continue
        both = table.merge(whole, on="id", suffixes=("", "_whole"))
        gap = max(float(np.abs(both[c] - both[f"{c}_whole"]).max()) for c in ("p_a", "p_b", "p_tie"))
        counts.notes.append(f"{slug}: largest difference to the chain that nobody killed {gap:.2g}")
