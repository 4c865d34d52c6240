"""`zoo data judge` with the lexical entry: from a trained entry to labelled pairs, and what is told of bad rows and files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.helpers.logs import question
from zoo.cli.data import data_app
from zoo.cli.main import app
from zoo.data.battles import read_battles
from zoo.data.columns import VOTES, WINNER_COLUMNS
from zoo.data.sample import write_sample
from zoo.data.splits import fold_of
from zoo.errors import ZooError
from zoo.scores.tables import SCORES
from zoo.settings import store_folder
from zoo.stages.data.fold_verdicts import SEEN_ELSEWHERE
from zoo.store import list_artifacts

PROMPTS = 150


def invoke(which: object, *words: object) -> str:
    result = CliRunner().invoke(which, [str(word) for word in words])  # type: ignore[arg-type]
    if isinstance(result.exception, ZooError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def written(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def human(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Battles that can be learned from, each of a prompt of its own."""
    folder = tmp_path_factory.mktemp("human")
    frame = pd.read_csv(write_sample(folder / "sample.csv", PROMPTS, 0).path, dtype=str)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, PROMPTS)
    long, short = json.dumps(["because it is so " * 30]), json.dumps(["it is so"])
    frame["prompt"] = [json.dumps([question(n)]) for n in range(PROMPTS)]
    frame["response_a"], frame["response_b"] = np.where(y == 0, long, short), np.where(y == 1, long, short)
    frame[list(WINNER_COLUMNS)] = np.eye(3, dtype=int)[np.where(rng.random(PROMPTS) < 0.8, y, rng.integers(0, 3, PROMPTS))]
    return written(folder / "human.csv", frame)


@pytest.fixture
def pairs(tmp_path: Path, human: Path) -> Path:
    """Pairs of human prompts, of others, one that cannot be read, and one whose id another has."""
    frame = pd.read_csv(human, dtype=str).drop(columns=list(WINNER_COLUMNS)).iloc[:60]
    frame = frame.assign(id=[f"p{n}" for n in range(60)], licence="MIT")
    frame.loc[frame.index[30:], "prompt"] = [json.dumps([question(1000 + n)]) for n in range(30)]
    frame.loc[frame.index[5], "response_a"] = "[broken"
    return written(tmp_path / "pairs.csv", pd.concat([frame, frame.iloc[[8]]]))


def judged(pairs: Path, human: Path, out: Path, *words: object) -> str:
    return invoke(data_app, "judge", pairs, "--judge", "lexical", "--data", human, "-o", out, *words)


@pytest.fixture
def trained(human: Path) -> Path:
    invoke(app, "run", "lexical", "--data", human, "--folds", 3)
    return human


def test_pairs_are_judged_cross_fitted_and_labelled_in_one_step(tmp_path: Path, trained: Path, pairs: Path) -> None:
    out, labelled = tmp_path / "verdicts.csv.gz", tmp_path / "labelled.csv"
    told = judged(pairs, trained, out)
    assert "59 pairs judged" in told and "bad row" in told and "duplicate id" in told
    table = pd.read_csv(out, dtype={"id": str}).set_index("id")
    assert len(table) == 60 + PROMPTS and table.index.is_unique
    assert table["judged_by"][[f"p{n}" for n in range(30) if n != 5]].str.fullmatch("fold [012]").all()
    assert table["judged_by"][[f"p{n}" for n in range(30, 60)]].eq("3 folds").all()
    human = store_folder() / next(store_folder().glob("lexical-score-*")).name
    held_out = next(
        pd.read_parquet(artifact.path / "ab" / SCORES).set_index("id")
        for artifact in list_artifacts(store_folder(), "lexical-score")
        if artifact.manifest.request.selection.rows == "held_out"  # type: ignore[union-attr]
    )
    assert human.exists()
    np.testing.assert_allclose(table.loc[held_out.index, "p_a"], held_out["p_a"], atol=1e-12)
    told = invoke(data_app, "label", pairs, "--judge", out, "--human", trained, "-o", labelled, "--drop", "empty")
    assert "lexical: 59 rows" in told and "these: by models that had not seen its prompt" in told and "duplicate id" in told
    moved = tmp_path / "moved.csv.gz"
    moved.write_bytes(out.read_bytes())  # without its report
    told = invoke(
        data_app, "label", pairs, "--judge", moved, "--human", trained, "-o", tmp_path / "again.csv", "--drop", "empty"
    )
    assert "no report of `zoo data judge` for these bytes" in " ".join(told.split())
    battles = read_battles(labelled, keep=VOTES)
    assert len(battles.frame) == 59 and battles.labelled


def test_the_same_command_takes_all_from_the_store(tmp_path: Path, trained: Path, pairs: Path) -> None:
    judged(pairs, trained, tmp_path / "one.parquet")
    made = {artifact.path: artifact.manifest.created_at for artifact in list_artifacts(store_folder())}
    judged(pairs, trained, tmp_path / "two.parquet")
    assert {artifact.path: artifact.manifest.created_at for artifact in list_artifacts(store_folder())} == made
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert len([path for path in made if path.name.startswith("lexical-score")]) == 4, "three folds, and the human battles"


def test_who_is_no_judge_of_these_battles_is_told_with_the_mend(tmp_path: Path, human: Path, pairs: Path) -> None:
    out = tmp_path / "v.csv"
    with pytest.raises(ZooError, match=r"the store has no checkpoint of it; run `zoo run lexical --data human.csv --folds 5`"):
        judged(pairs, human, out)
    other = write_sample(tmp_path / "other.csv", 120, 3).path
    invoke(app, "run", "lexical", "--data", other)
    with pytest.raises(ZooError, match=r"its 1 checkpoints in the store were not trained on folds of human\.csv"):
        judged(pairs, human, out)


def test_an_id_of_two_battles_is_refused_before_anything_is_scored(tmp_path: Path, trained: Path, pairs: Path) -> None:
    frame = pd.read_csv(pairs, dtype=str)
    frame["id"] = pd.read_csv(trained, dtype=str)["id"].iloc[::-1].iloc[: len(frame)].to_numpy()
    with pytest.raises(ZooError, match=r"is of one battle in .* and of another in"):
        judged(written(tmp_path / "clash.csv", frame), trained, tmp_path / "v.csv")


def test_a_table_of_a_model_that_learned_from_the_human_battles_certifies_nothing(
    tmp_path: Path, trained: Path, pairs: Path
) -> None:
    """The mean of all folds, of which most have seen each battle."""
    from zoo.contracts import LexicalScoreRequest, Selection
    from zoo.pipeline.runner import run_stage

    found = list_artifacts(store_folder(), "lexical-score")[0].manifest.request
    assert isinstance(found, LexicalScoreRequest)
    for selection, refused in ((Selection(rows="all"), True), (Selection(), False)):
        scored = run_stage(found.model_copy(update={"selection": selection}), store_folder()).path / "ab" / SCORES
        words = ("label", trained, "--judge", scored, "--human", trained, "-o", tmp_path / "l.csv")
        if refused:
            with pytest.raises(ZooError, match=r"lexical@ab has learned from human\.csv, .* `zoo data judge --judge lexical"):
                invoke(data_app, *words)
        else:
            assert "its verdicts on these: out of fold" in invoke(data_app, *words)


@pytest.mark.parametrize("human_ids", [True, False])
def test_nor_does_one_of_battles_with_other_ids_or_of_a_file_with_more_battles(
    tmp_path: Path, trained: Path, human_ids: bool
) -> None:
    """A pair that is a human battle speaks for its judge whatever its id, and part of what was learned was learned, too."""
    from zoo.contracts import Input, LexicalScoreRequest, Selection
    from zoo.data.battles import dataset_digest
    from zoo.pipeline.runner import run_stage

    frame = pd.read_csv(trained, dtype=str)
    some = written(tmp_path / "some.csv", frame.iloc[: PROMPTS // 2])
    renamed = written(tmp_path / "renamed.csv", frame.assign(id="p" + frame["id"]))
    pairs = some if human_ids else renamed
    found = list_artifacts(store_folder(), "lexical-score")[0].manifest.request
    assert isinstance(found, LexicalScoreRequest)
    given = Input(path=pairs, fingerprint=dataset_digest(read_battles(pairs)))
    update = {"battles": given, "selection": Selection(rows="all"), "unusable": None}
    scored = run_stage(found.model_copy(update=update), store_folder()).path / "ab" / SCORES
    words = ("label", pairs, "--judge", scored, "--human", some if human_ids else trained, "-o", tmp_path / "l.csv")
    with pytest.raises(ZooError, match=r"lexical@ab has learned from .*, and these are no rows that it held out"):
        invoke(data_app, *words)


def test_a_human_battle_whose_question_another_asks_second_is_not_judged_by_who_learned_that(
    tmp_path: Path, human: Path
) -> None:
    frame = pd.read_csv(human, dtype=str)
    own = fold_of([question(0)], 3)
    first = next(question(n) for n in range(5000, 5100) if fold_of([question(n)], 3) != own)
    frame.loc[PROMPTS - 1, "prompt"] = json.dumps([first, question(0)])
    file, pairs = (
        written(tmp_path / "both.csv", frame),
        written(tmp_path / "p.csv", frame.iloc[1:9].assign(id=list("abcdefgh"))),
    )
    invoke(app, "run", "lexical", "--data", file, "--folds", 3, "--fold-rule", "prompts")
    judged(pairs, file, tmp_path / "v.csv")
    status = pd.read_csv(tmp_path / "v.csv", dtype={"id": str}).set_index("id")["status"]
    assert status[frame["id"][0]] == status[frame["id"][PROMPTS - 1]] == SEEN_ELSEWHERE
    assert (status != "ok").sum() == 2


def test_a_verdict_of_another_battle_is_no_verdict(tmp_path: Path, trained: Path, pairs: Path) -> None:
    """The pairs were changed after they were judged."""
    out = tmp_path / "verdicts.parquet"
    judged(pairs, trained, out)
    frame = pd.read_csv(pairs, dtype=str)
    frame.loc[0, "response_a"] = json.dumps(["another answer"])
    told = invoke(
        data_app, "label", written(pairs, frame), "--judge", out, "--human", trained, "-o", tmp_path / "l.csv", "--json"
    )
    left = {record["reason"]: record["count"] for record in json.loads(told)["verdicts_left_out"]}
    assert left["of another battle that had the id"] == 1


def test_two_judges_have_a_voice_each(tmp_path: Path, trained: Path, pairs: Path) -> None:
    """Of one entry trained in two ways, by their artifacts."""
    invoke(app, "run", "lexical", "--data", trained, "--folds", 2)
    names = [artifact.path.name for artifact in list_artifacts(store_folder(), "lexical-train")]
    out = tmp_path / "v.parquet"
    words = [word for name in names for word in ("--judge", name)]
    invoke(data_app, "judge", pairs, *words, "--data", trained, "-o", out)
    table = pd.read_parquet(out).set_index("id")
    assert table["judged_by"]["p40"].count("folds") == 2 and "; " in table["judged_by"]["p40"]
    with pytest.raises(ZooError, match="the same models as an earlier --judge"):
        invoke(data_app, "judge", pairs, "--judge", names[0], "--judge", names[0], "--data", trained, "-o", out)
