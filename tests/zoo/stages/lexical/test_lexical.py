"""The lexical entry: symmetric in A and B, honest out of fold, resumable, and better than knowing the label shares."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from zoo.contracts import ExtraBattles, Input, LexicalScoreRequest, LexicalSpec, LexicalTrainRequest, Selection, StageResult
from zoo.data.battles import read_battles
from zoo.data.columns import WINNER_COLUMNS
from zoo.data.sample import sample_battles
from zoo.data.splits import assign_folds
from zoo.errors import ZooError
from zoo.scores.tables import probabilities, read_card, read_scores, swap_sides
from zoo.stages.lexical import stage as lexical
from zoo.stages.lexical.features import ANSWER_FEATURES, Features, answer_features
from zoo.stages.lexical.model import cases_of, fit_fold, fit_vectorizer, load_fold, predict, terms_of

ROWS = 500
SPEC = LexicalSpec(folds=3)


def train(battles: Path, out: Path) -> StageResult:
    out.mkdir()
    request = LexicalTrainRequest(entry="lexical", battles=Input(path=battles, fingerprint="b"), spec=SPEC)
    return lexical.train(request, out)


def score(model: Path, battles: Path, out: Path, **selection: object) -> tuple[StageResult, pd.DataFrame]:
    out.mkdir(exist_ok=True)
    request = LexicalScoreRequest(
        entry="lexical",
        model=Input(path=model, fingerprint="m"),
        battles=Input(path=battles, fingerprint="b"),
        selection=Selection(**selection),
        target="cpu",
    )
    return lexical.score(request, out), read_scores(out / "ab" / "scores.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lexical")


@pytest.fixture(scope="module")
def battles(folder: Path) -> Path:
    path = folder / "battles.csv"
    sample_battles(ROWS, 11)[0].to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def trained(folder: Path, battles: Path) -> StageResult:
    return train(battles, folder / "train")


@pytest.fixture(scope="module")
def model(folder: Path, trained: StageResult) -> Path:
    return folder / "train"


def test_out_of_fold_it_knows_more_than_the_label_shares_and_less_than_the_truth(trained):
    metrics = trained.metrics
    assert metrics["val/log_loss"] < metrics["baseline/log_loss_prior"] - 2 * metrics["val/log_loss_se"]
    assert metrics["val/log_loss"] > 0.8
    assert metrics["val/rows"] == ROWS == trained.measurements.rows


def test_exchanging_the_answers_exchanges_the_probabilities_exactly(model, battles):
    frame = read_battles(battles).frame
    swapped = frame.assign(response_a=frame["response_b"], response_b=frame["response_a"])
    served = lexical.load_model(model / "model")
    for folds in (None, assign_folds(frame, SPEC.folds)):
        p = served.predict(frame, folds)
        assert (served.predict(swapped, folds) == swap_sides(p)).all()
        assert p.sum(axis=1) == pytest.approx(1, abs=1e-12) and (p > 0).all()


def test_held_out_rows_are_scored_by_models_that_saw_no_label_of_their_fold(model, battles, tmp_path):
    frame = pd.read_csv(battles, dtype="str")
    folds = assign_folds(read_battles(battles).frame, SPEC.folds)
    first = folds == 0
    frame.loc[first, list(WINNER_COLUMNS)] = ["0", "0", "1"]  # a lie about every row of fold 0
    frame.to_csv(tmp_path / "lied.csv", index=False)
    train(tmp_path / "lied.csv", tmp_path / "train")
    _, honest = score(model, battles, tmp_path / "honest")
    _, lied = score(tmp_path / "train", battles, tmp_path / "lied")
    assert (honest["fold"].to_numpy() == folds).all()
    assert (probabilities(honest)[first] == probabilities(lied)[first]).all()
    assert (probabilities(honest)[~first] != probabilities(lied)[~first]).any(axis=1).all()


def test_scores_of_training_and_scoring_agree_and_the_card_says_what_it_cost(model, trained, battles, tmp_path):
    result, table = score(model, battles, tmp_path / "out")
    assert list(table["id"]) == list(read_battles(battles).ids)
    for name in ("val/log_loss", "val/acc", "baseline/log_loss_prior"):
        assert result.metrics[f"ab:{name}"] == pytest.approx(trained.metrics[name], abs=1e-12)
    card = read_card(tmp_path / "out" / "ab" / "scores.json")
    assert (card.member, card.checkpoint, card.rows, card.failed_rows) == ("lexical@ab", "m", ROWS, 0)
    assert card.cost.seconds_per_row > 0 and card.cost.load_seconds > 0 and card.cost.gpus == 0
    assert LexicalScoreRequest.model_validate(card.request).selection.rows == "held_out"


def test_the_price_of_a_larger_file_counts_reading_it_and_loading_does_not(model, battles, tmp_path, monkeypatch):
    """Reading takes 100 s on the clock of this test, and nothing else takes any time."""
    now = [5.0]

    def slow_read(path):
        now[0] += 100
        return read_battles(path)

    monkeypatch.setattr(lexical, "read_battles", slow_read)
    monkeypatch.setattr(lexical, "process_age_seconds", lambda: now[0])
    monkeypatch.setattr(lexical.time, "monotonic", lambda: now[0])
    result, table = score(model, battles, tmp_path / "out", rows="all")
    cost = read_card(tmp_path / "out" / "ab" / "scores.json").cost
    assert cost.load_seconds == 5 == result.measurements.load_seconds and result.measurements.run_seconds == 100
    assert cost.seconds_per_row * len(table) == pytest.approx(100)


def test_all_rows_get_the_mean_of_the_fold_models(model, battles, tmp_path):
    _, table = score(model, battles, tmp_path / "out", rows="all", max_rows=20)
    frame = read_battles(battles).frame.set_index("id", drop=False).loc[table["id"]]
    served = lexical.load_model(model / "model")
    each = [served.predict(frame, np.full(20, fold)) for fold in range(SPEC.folds)]
    assert probabilities(table) == pytest.approx(np.mean(each, axis=0), abs=1e-12)
    assert set(table["fold"]) == {-1}


def test_rows_that_cannot_be_read_are_in_the_table_without_a_number(model, tmp_path):
    path = tmp_path / "b.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["id", "prompt", "response_a", "response_b"], ["1", "[]", "oops", "[]"], ["2", '["q"]', "[null]", '["y"]']]
        )
    result, table = score(model, path, tmp_path / "all", rows="all")
    by_id = table.set_index("id")
    assert by_id.loc["2", "status"] == "ok" and "bad row" in by_id.loc["1", "status"]
    assert np.isnan(by_id.loc["1", "p_a"]) and result.metrics == {"ab:rows/failed": 1.0}
    (tmp_path / "ids.txt").write_text("2\n1\n")
    listed = {"rows": "listed", "ids": Input(path=tmp_path / "ids.txt", fingerprint="i")}
    _, table = score(model, path, tmp_path / "listed", **listed)
    assert list(table["id"]) == ["2", "1"]


def test_a_run_that_died_goes_on_from_its_finished_chunks(model, battles, tmp_path, monkeypatch):
    monkeypatch.setattr(lexical, "CHUNK_ROWS", 90)
    _, whole = score(model, battles, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole" / "ab" / "chunks", tmp_path / "torn" / "ab" / "chunks")
    chunks = sorted((tmp_path / "torn" / "ab" / "chunks").glob("*.parquet"))
    assert len(chunks) == -(-ROWS // 90)
    chunks[2].unlink()  # died between a chunk's timing and its table
    chunks[-1].unlink()
    chunks[-1].with_suffix(".json").unlink()
    before = {path: path.stat().st_mtime_ns for path in chunks if path.exists()}
    _, resumed = score(model, battles, tmp_path / "torn")
    pd.testing.assert_frame_equal(resumed, whole)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_it_cannot_learn_from_is_refused(battles, tmp_path):
    frame = pd.read_csv(battles, dtype="str")
    frame.drop(columns=list(WINNER_COLUMNS)).to_csv(tmp_path / "unlabelled.csv", index=False)
    with pytest.raises(ZooError, match="no labelled rows"):
        train(tmp_path / "unlabelled.csv", tmp_path / "a")
    frame[frame["winner_tie"] == "1"].to_csv(tmp_path / "ties.csv", index=False)
    with pytest.raises(ZooError, match="no battle that has a winner"):
        train(tmp_path / "ties.csv", tmp_path / "b")
    frame[frame["winner_model_b"] == "0"].to_csv(tmp_path / "one_side.csv", index=False)
    with pytest.raises(ZooError, match="no battle that A wins, or none that B wins"):
        train(tmp_path / "one_side.csv", tmp_path / "c")


def test_battles_without_a_tie_are_learned_from_and_a_tie_is_next_to_impossible(battles, tmp_path):
    frame = pd.read_csv(battles, dtype="str")
    frame[frame["winner_tie"] == "0"].to_csv(tmp_path / "two_class.csv", index=False)
    metrics = train(tmp_path / "two_class.csv", tmp_path / "train").metrics
    result, table = score(tmp_path / "train", tmp_path / "two_class.csv", tmp_path / "score")
    p = probabilities(table)
    assert (p[:, 2] > 0).all() and (p[:, 2] < 0.5 / (len(p) * 0.5)).all()
    assert metrics["val/log_loss"] < np.log(2) and result.metrics["ab:val/acc"] > 0.5


def test_held_out_rows_that_cannot_be_used_fail_in_the_fold_of_their_prompt(model, battles, tmp_path):
    frame = pd.read_csv(battles, dtype="str")
    folds = assign_folds(read_battles(battles).frame, SPEC.folds)
    frame.loc[[3, 4], "response_a"] = ""
    frame.to_csv(tmp_path / "b.csv", index=False)
    result, table = score(model, tmp_path / "b.csv", tmp_path / "out")
    by_id = table.set_index("id")
    assert result.metrics["ab:rows/failed"] == 2 and len(table) == ROWS
    for place in (3, 4):
        row = by_id.loc[frame.loc[place, "id"]]
        assert "bad row" in row["status"] and np.isnan(row["p_a"]) and row["fold"] == folds[place]


def test_a_checkpoint_is_plain_arrays_and_a_broken_one_is_named(model, tmp_path):
    with np.load(model / "model" / "fold-0.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype == np.float64 for name in arrays.files)
    assert (
        load_fold(model / "model" / "fold-0.npz").win_terms.shape == load_fold(model / "model" / "fold-1.npz").win_terms.shape
    )
    shutil.copytree(model / "model", tmp_path / "model")
    for content in (b"", b"PK\x03\x04 torn"):
        (tmp_path / "model" / "fold-1.npz").write_bytes(content)
        with pytest.raises(ZooError, match="not a lexical checkpoint"):
            lexical.load_model(tmp_path / "model")


def test_features_see_markdown_refusals_and_overlap():
    plain, rich = (
        dict(zip(ANSWER_FEATURES, answer_features(text, {"what", "is", "bread"}), strict=True))
        for text in ("I'm sorry, but I can't.", "# Bread\n- **flour**\n- water\n1. mix\n```x```")
    )
    assert plain["refusal"] == 1 and rich["refusal"] == 0 and plain["log_bullets"] == 0
    assert rich["log_bullets"] == pytest.approx(np.log(3)) and rich["log_headings"] == pytest.approx(np.log(2))
    assert rich["prompt_covered"] == 1 / 4 and plain["prompt_covered"] == 0 and not rich["empty"]
    assert dict(zip(ANSWER_FEATURES, answer_features("", set()), strict=True))["empty"] == 1


def test_pair_features_are_the_same_either_way_round(battles):
    frame = read_battles(battles).frame.head(50)
    swapped = frame.assign(response_a=frame["response_b"], response_b=frame["response_a"])
    there, back = Features(frame), Features(swapped)
    assert (there.pair == back.pair).all() and (there.a == back.b).all() and (there.prompt == back.prompt).all()


def train_with(folder: Path, battles: Path, *extra: tuple[Path, float], name: str = "train", **spec: object) -> StageResult:
    (folder / name).mkdir()
    files = tuple(ExtraBattles(battles=Input(path=path, fingerprint="x"), weight=weight) for path, weight in extra)
    request = LexicalTrainRequest(
        entry="lexical",
        battles=Input(path=battles, fingerprint="b"),
        spec=LexicalSpec(folds=3, **spec),
        extra_files=files,
        extra_rule="near-prompts-1" if files else None,
    )
    return lexical.train(request, folder / name)


def test_extra_battles_help_where_they_are_of_the_same_kind(battles, tmp_path):
    few = pd.read_csv(battles, dtype="str").iloc[:120]
    few.to_csv(tmp_path / "few.csv", index=False)
    sample_battles(900, 12)[0].to_csv(tmp_path / "more.csv", index=False)
    alone = train_with(tmp_path, tmp_path / "few.csv", name="alone").metrics
    found = train_with(tmp_path, tmp_path / "few.csv", (tmp_path / "more.csv", 1.0)).metrics
    assert found["val/log_loss"] < alone["val/log_loss"] - 0.01 and found["val/rows"] == 120
    assert found["train/extra_rows"] + found["train/extra_rows_left_out"] == 900 and found["train/extra_rows"] > 100
    assert "train/extra_rows" not in alone


def test_no_fold_learns_extra_battles_of_its_own_prompts(battles, tmp_path):
    """A lie about the extra rows of one fold's prompts changes every model but that fold's."""
    frame = read_battles(battles).frame
    folds = assign_folds(frame, SPEC.folds)
    extra = pd.read_csv(battles, dtype="str").assign(response_a=lambda f: f["response_b"])  # other battles, the same prompts
    extra["id"] = "x" + extra["id"]
    extra.to_csv(tmp_path / "extra.csv", index=False)
    lied = extra.copy()
    lied.loc[folds == 0, list(WINNER_COLUMNS)] = ["0", "0", "1"]
    lied.to_csv(tmp_path / "lied.csv", index=False)
    for name in ("extra", "lied"):
        train_with(tmp_path, battles, (tmp_path / f"{name}.csv", 1.0), name=f"train-{name}")
    honest, other = (
        [load_fold(tmp_path / f"train-{name}" / "model" / f"fold-{fold}.npz") for fold in range(3)]
        for name in ("extra", "lied")
    )
    assert (honest[0].win_features == other[0].win_features).all() and (honest[0].tie_terms == other[0].tie_terms).all()
    assert (honest[1].win_features != other[1].win_features).any() and (honest[2].tie_terms != other[2].tie_terms).any()


def test_weights_and_vote_shares_count_as_so_many_rows(battles):
    """One row of weight 2 is two rows; a row that two thirds vote A for is two such rows of A and one of B."""
    frame = read_battles(battles).frame.iloc[:200].reset_index(drop=True)
    features = Features(frame)
    vectorizer = fit_vectorizer(features, SPEC)
    terms, y = terms_of(vectorizer, features), np.eye(3)[frame["label"].to_numpy()]
    rows, doubled = np.ones(200, bool), np.concatenate([np.arange(200), np.arange(50)])
    y[120] = [2 / 3, 1 / 3, 0]
    weighted = y.copy()
    weighted[:50] *= 2
    again = frame.iloc[doubled].reset_index(drop=True)
    more = Features(again)
    one = fit_fold(features, terms, 3 * weighted, rows, SPEC)
    y_again = 3 * y[doubled]
    other = fit_fold(more, terms_of(vectorizer, more), y_again, np.ones(250, bool), SPEC)
    assert predict(one, features, terms) == pytest.approx(predict(other, features, terms), abs=2e-3)
    cases = cases_of(np.array([1.0, 0.5, 0.0]), np.array([0.0, 0.5, 2.0]))
    assert cases.rows.tolist() == [0, 1, 1, 2] and cases.truth.tolist() == [True, True, False, False]
    assert cases.weight.tolist() == [1.0, 0.5, 0.5, 2.0]


def test_votes_are_learned_where_they_are_asked_for_and_a_file_of_nothing_new_is_refused(battles, tmp_path):
    frame = pd.read_csv(battles, dtype="str").iloc[:150]
    frame.to_csv(tmp_path / "few.csv", index=False)
    voted = sample_battles(200, 13)[0].assign(votes_a="0.4", votes_b="0.4", votes_tie="0.2")
    voted.to_csv(tmp_path / "voted.csv", index=False)
    soft = train_with(tmp_path, tmp_path / "few.csv", (tmp_path / "voted.csv", 1.0), name="soft", extra_targets="votes").metrics
    hard = train_with(tmp_path, tmp_path / "few.csv", (tmp_path / "voted.csv", 1.0), name="hard").metrics
    assert soft["train/extra_rows_with_votes"] == 200 and "train/extra_rows_with_votes" not in hard
    assert soft["val/log_loss"] != hard["val/log_loss"]
    with pytest.raises(
        ZooError, match=r"few\.csv: none of its 150 labelled rows is left for fold 0: 150 also in the main file"
    ):
        train_with(tmp_path, tmp_path / "few.csv", (tmp_path / "few.csv", 1.0), name="same")
    with pytest.raises(ZooError, match="extra_targets = 'votes': no row"):
        train_with(tmp_path, battles, (write_more(tmp_path), 1.0), name="none", extra_targets="votes")
    with pytest.raises(ZooError, match="has no column votes_a"):
        train_with(tmp_path, battles, name="no-votes", targets="votes")


def write_more(folder: Path) -> Path:
    path = folder / "more.csv"
    sample_battles(60, 14)[0].to_csv(path, index=False)
    return path
