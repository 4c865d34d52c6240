"""A tiny real model's folds as a judge: cross-fitted, killed and gone on with, and its verdicts labelled with a certificate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.helpers.tiny_models import TINY_ENTRY
from tests.helpers.waiting import wait_until
from zoo.contracts import Entry, Held, Selection
from zoo.data.battles import read_battles
from zoo.data.columns import WINNER_COLUMNS
from zoo.data.sample import write_sample
from zoo.data.splits import assign_folds
from zoo.experiments.run import run_folds
from zoo.pipeline.chain import battles_input
from zoo.pipeline.folds import fold_chains
from zoo.scores.tables import probabilities, read_scores
from zoo.stages.data.fold_verdicts import SEEN, SEEN_ELSEWHERE
from zoo.store import PARTIAL, list_artifacts

pytestmark = [pytest.mark.chain, pytest.mark.timeout(1200)]

FOLDS = 2


@pytest.fixture(scope="module")
def home(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose store has both folds of the tiny entry; the human battles and pairs lie beside it.

    Pairs: some of human prompts with other answers, others with prompts of their own.
    """
    root = tmp_path_factory.mktemp("judge")
    human = write_sample(root / "human.csv", 120, 0).path
    own = pd.read_csv(write_sample(root / "new.csv", 24, 7).path, dtype=str).drop(columns=list(WINNER_COLUMNS))
    frame = pd.read_csv(human, dtype=str).drop(columns=list(WINNER_COLUMNS))
    answers = frame[["response_a", "response_b"]].iloc[::-1].to_numpy()
    shared = frame.assign(id="shared" + frame["id"], response_a=answers[:, 0], response_b=answers[:, 1]).iloc[:40]
    strange = own.assign(id="own" + own["id"], prompt=[json.dumps([f"Zq{n} {n * n} vu?"]) for n in range(len(own))])
    pd.concat([shared, strange]).to_csv(root / "pairs.csv", index=False)
    entry, store = Entry.model_validate(TINY_ENTRY), root / "store"
    held = Held(n_folds=FOLDS, rule="near-prompts-1")
    chains = fold_chains(entry, battles_input(human), "cpu", store, held=held, selection=Selection(), source=str(tiny_llama))
    run_folds(chains, entry, store, say=lambda _: None, track=False)
    return root


def command(home: Path, *words: object) -> list[str]:
    return [sys.executable, "-m", "zoo", "data", *map(str, words)]


def judge_words(home: Path) -> tuple[object, ...]:
    out = home / "verdicts.parquet"
    return ("judge", home / "pairs.csv", "--judge", "tiny", "--data", home / "human.csv", "-o", out, "--json")


@pytest.fixture(scope="module")
def report(home: Path) -> dict[str, Any]:
    """The report of a command that was killed while the second fold's model scored pairs, and given again."""
    environment = {**os.environ, "ZOO_HOME": str(home)}
    store = home / "store"
    before = len(list_artifacts(store, "score"))
    process = subprocess.Popen(command(home, *judge_words(home)), env=environment, start_new_session=True)
    partial = store / PARTIAL
    wait_until(lambda: list(partial.glob("score-*")), "the first fold's scoring", process)
    wait_until(lambda: len(list_artifacts(store, "score")) > before, "the first fold's table", process)
    wait_until(lambda: list(partial.glob("score-*/*/chunks/*.parquet")), "a chunk of the second fold", process)
    os.killpg(process.pid, 9)
    process.wait()
    assert not (home / "verdicts.parquet").exists()
    chunks = {path.relative_to(partial): path.stat().st_mtime_ns for path in partial.glob("score-*/*/chunks/*.parquet")}
    first = {artifact.path: artifact.manifest.created_at for artifact in list_artifacts(store, "score")}
    done = subprocess.run(command(home, *judge_words(home)), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert chunks and {path: (store / path).stat().st_mtime_ns for path in chunks} == chunks, "no chunk is scored twice"
    assert {a.path: a.manifest.created_at for a in list_artifacts(store, "score") if a.path in first} == first
    return json.loads(done.stdout)


def test_a_pair_of_a_human_prompt_is_judged_by_the_model_that_held_it_out(home: Path, report: dict[str, Any]) -> None:
    table = pd.read_parquet(home / "verdicts.parquet").set_index("id")
    human = read_battles(home / "human.csv").frame
    fold = dict(zip(human["id"], assign_folds(human, FOLDS, "near-prompts-1").tolist(), strict=True))
    of_human = [row_id for row_id in table.index if row_id.startswith("shared")]
    judged = [row_id for row_id in of_human if table["status"][row_id] == "ok"]
    assert len(of_human) == 40 and len(judged) > 30 and {table["judged_by"][i] for i in judged} == {"fold 0", "fold 1"}
    assert all(table["judged_by"][i] == f"fold {fold[i.removeprefix('shared')]}" for i in judged)
    assert {table["status"][i] for i in of_human if i not in judged} <= {SEEN}, "of which both folds have near-copies"
    strange = [row_id for row_id in table.index if row_id.startswith("own")]
    assert {table["judged_by"][i] for i in strange} == {"2 folds"}
    judge = report["judges"]["tiny"]
    voted = table.loc[human["id"], "status"]
    assert set(voted) <= {"ok", SEEN_ELSEWHERE} and (voted == "ok").sum() > 100
    assert (judge["by_one_fold"], judge["by_all_folds"], judge["human_battles"]) == (len(judged), 24, (voted == "ok").sum())


def test_verdicts_are_the_score_stage_s_own(home: Path, report: dict[str, Any]) -> None:
    """Oracle: the fold's score tables, pooled here by another way of writing it."""
    table = pd.read_parquet(home / "verdicts.parquet").set_index("id")
    logs: dict[str, list[np.ndarray]] = {}
    for fold in report["judges"]["tiny"]["folds"]:
        for kind in ("pairs", "human"):
            for slug in ("ab-160", "ba-160"):
                scored = read_scores(home / "store" / fold[kind]["artifact"] / slug / "scores.parquet")
                for row_id, p in zip(scored["id"], probabilities(scored), strict=True):
                    logs.setdefault(row_id, []).append(np.log(p))
    ok = set(table.index[table["status"] == "ok"])
    assert ok <= set(logs) and set(table["status"][[row_id for row_id in logs if row_id not in ok]]) <= {SEEN_ELSEWHERE}
    for row_id, own in ((row_id, own) for row_id, own in logs.items() if row_id in ok):
        expected = np.exp(np.mean(own, axis=0))
        np.testing.assert_allclose(
            table.loc[row_id, ["p_a", "p_b", "p_tie"]].astype(float), expected / expected.sum(), atol=1e-9
        )
    assert (
        table["consistency"][table["status"] == "ok"].between(0, 1).all()
        and report["judges"]["tiny"]["consistency"] is not None
    )
    assert report["cost"]["tokens"] > 0 and report["cost"]["gpu_seconds"] == 0


def test_its_certificate_is_of_battles_out_of_fold_and_a_model_that_knows_nothing_is_refused(
    home: Path, report: dict[str, Any]
) -> None:
    words = ("label", home / "pairs.csv", "--judge", home / "verdicts.parquet", "--human", home / "human.csv")
    environment = {**os.environ, "ZOO_HOME": str(home)}
    done = subprocess.run(command(home, *words, "-o", home / "l.csv"), env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "refused: tiny: mapped log loss" in done.stderr
    assert "is not below the prior's" in done.stderr and not (home / "l.csv").exists()
