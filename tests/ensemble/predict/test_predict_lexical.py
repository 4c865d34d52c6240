"""The real lexical stage, end to end: train, score out of fold, a plan of one member, predict new battles within a budget."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensemble.members.files import named_files
from ensemble.plan import Job, Pool
from ensemble.pools.blend import BlendSpec, fit_blend
from ensemble.predict.from_scores import predict_from_scores
from ensemble.predict.run import predict
from ensemble.predict.scores_only import write_scores_only
from ensemble.report.evaluate import evaluate
from tests.helpers.plans import plan_member, plan_of, written
from zoo.contracts import LexicalScoreRequest, LexicalSpec, LexicalTrainRequest
from zoo.data.battles import count_characters, read_battles
from zoo.data.columns import WINNER_COLUMNS
from zoo.data.sample import write_sample
from zoo.pipeline.chain import battles_input, output_of
from zoo.pipeline.runner import run_stage
from zoo.scores.metrics import log_loss_rows
from zoo.scores.tables import probabilities, read_card, read_scores, read_submission


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store with a lexical checkpoint, and the plan that `ensemble build` would make of it alone."""
    folder = tmp_path_factory.mktemp("trained")
    write_sample(folder / "train.csv", 300, 3)
    battles, store = battles_input(folder / "train.csv"), folder / "store"
    train = LexicalTrainRequest(entry="lexical", battles=battles, spec=LexicalSpec(folds=3, max_features=4096))
    run_stage(train, store)
    request = LexicalScoreRequest(entry="lexical", model=output_of(train, store), battles=battles, target="cpu")
    scored = run_stage(request, store).path / "ab"
    card, table = read_card(scored / "scores.json"), read_scores(scored / "scores.parquet")
    frame = read_battles(folder / "train.csv").frame.set_index("id").loc[table["id"]]
    p, y = probabilities(table), frame["label"].to_numpy(dtype=np.int64)
    blend = fit_blend(BlendSpec("log", 0.01, floor=1e-4), [card.member], p[None], y)
    work = card.cost.seconds_per_row * len(count_characters(frame))
    loss = float(log_loss_rows(p, y).mean())
    member = plan_member(
        card.member,
        variant=card.variant,
        predicted_seconds=card.cost.load_seconds + work,
        oof_log_loss=loss,
        checkpoint=card.checkpoint,
        cost=card.cost,
        request=card.request,
    )
    ends = 4 + member.predicted_seconds
    plan = plan_of(
        [member],
        [Pool(members=(card.member,), blend=blend, log_loss=loss)],
        budget_seconds=3600,
        predicted_seconds=ends,
        overhead_seconds=4,
        rows=300,
        dataset_digest=card.dataset_digest,
        schedule=(Job(members=(card.member,), devices=(0,), start_seconds=4, end_seconds=ends),),
    )
    return store, written(plan, folder / "plan.json")


def test_new_battles_are_predicted_better_than_by_the_label_shares(trained: tuple[Path, Path], tmp_path: Path) -> None:
    store, plan = trained
    write_sample(tmp_path / "test.csv", 200, 4)
    done = predict(plan, tmp_path / "test.csv", tmp_path / "out.csv", started_at=time.monotonic(), store=store)
    battles = read_battles(tmp_path / "test.csv")
    frame = read_submission(tmp_path / "out.csv")
    assert frame["id"].tolist() == list(battles.ids)
    y = battles.frame["label"].to_numpy(dtype=np.int64)
    p = frame.set_index("id").loc[battles.frame["id"], ["p_a", "p_b", "p_tie"]].to_numpy()
    assert done.log_loss == pytest.approx(log_loss_rows(p, y).mean())
    shares = np.bincount(y, minlength=3) / len(y)
    assert done.log_loss < -(shares * np.log(shares)).sum() - 0.02
    assert done.patterns == {"lexical@ab": len(battles.frame)} | ({"prior": done.bad_rows} if done.bad_rows else {})


def test_a_prediction_without_labels_is_evaluated_with_every_member_s_line(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, plan = trained
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    write_sample(tmp_path / "labelled.csv", 200, 6)
    frame = pd.read_csv(tmp_path / "labelled.csv", dtype=str, keep_default_na=False)
    frame.drop(columns=list(WINNER_COLUMNS)).to_csv(tmp_path / "test.csv", index=False)
    output = tmp_path / "out.csv"
    done = predict(plan, tmp_path / "test.csv", output, started_at=time.monotonic(), store=store)
    assert done.log_loss is None
    lines = {line.name: line for line in evaluate(plan, tmp_path / "labelled.csv", output)}
    usable = len(read_battles(tmp_path / "labelled.csv").frame)
    assert lines["lexical@ab"].rows == usable
    assert lines["blend"].rows == usable
    (scores,) = (tmp_path / "home" / "predict").rglob("scores.parquet")
    battles = read_battles(tmp_path / "labelled.csv").frame
    p = probabilities(read_scores(scores).set_index("id").loc[battles["id"]])
    assert lines["lexical@ab"].log_loss == pytest.approx(log_loss_rows(p, battles["label"].to_numpy()).mean())


def test_a_moved_store_is_found_by_fingerprint_and_a_file_of_one_row_is_enough(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    store, plan = trained
    moved = tmp_path / "elsewhere"
    moved.symlink_to(store)
    write_sample(tmp_path / "test.csv", 1, 5)
    done = predict(plan, tmp_path / "test.csv", tmp_path / "out.csv", started_at=time.monotonic(), store=moved)
    assert sum(done.patterns.values()) == 1 and len(read_submission(tmp_path / "out.csv")) == 1


def test_tables_alone_blend_to_what_a_prediction_writes(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row of the file by every member, in a table by the member's name; a second time they come from the store."""
    store, plan = trained
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    write_sample(tmp_path / "test.csv", 200, 8)
    notes: list[str] = []
    for _ in range(2):
        (table,) = write_scores_only(plan, tmp_path / "test.csv", tmp_path / "tables", store=store, say=notes.append)
    assert [note for note in notes if "running" in note] and "in the store" in notes[-1]
    assert table.path == tmp_path / "tables" / "lexical@ab.parquet" and table.rows == 200
    predict(plan, tmp_path / "test.csv", tmp_path / "whole.csv", started_at=time.monotonic(), store=store)
    predict_from_scores(plan, named_files([str(table.path)]), tmp_path / "blended.csv", ids=tmp_path / "test.csv")
    ours, theirs = (read_submission(tmp_path / name).set_index("id").sort_index() for name in ("blended.csv", "whole.csv"))
    pd.testing.assert_frame_equal(ours, theirs)
