"""The label stage: verdicts become shares of votes by a map that humans stand behind, or none does and it says so."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.helpers.logs import REAL, needs_real_data, question, word
from zoo.contracts import Input, LabelRequest
from zoo.data.battles import read_battles
from zoo.data.columns import VOTES, WINNER_COLUMNS
from zoo.data.made import PAIRS, REPORT
from zoo.errors import ZooError
from zoo.stages.data import label

ROWS, PROMPTS, MODELS = 300, 60, 5
STRENGTH = np.array([2.0, 1.0, 0.3, -1.0, -2.0])


def battles(seed: int, *, skill: float = 1.0, first: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Battles of models of different strength, and a judge's verdicts: the human label where it knows, else any."""
    rng = np.random.default_rng(seed)
    ends = np.array([rng.permutation(MODELS)[:2] for _ in range(ROWS)])
    margin = STRENGTH[ends[:, 0]] - STRENGTH[ends[:, 1]]
    y = np.where(rng.random(ROWS) < 0.25, 2, (rng.random(ROWS) > 1 / (1 + np.exp(-margin))).astype(int))
    said = np.where(rng.random(ROWS) < skill, y, rng.integers(0, 3, ROWS))
    rows = []
    for number, (a, b) in enumerate(ends.tolist()):
        prompt, own = question(first + number % PROMPTS), first + number
        answers = [" ".join(word(10_000 + 97 * own + 7 * model + k) for k in range(4)) for model in (a, b)]
        rows.append([f"r{own}", f"m{a}", f"m{b}", *(json.dumps([text]) for text in (prompt, *answers))])
    frame = pd.DataFrame(rows, columns=["id", "model_a", "model_b", "prompt", "response_a", "response_b"])
    frame[list(WINNER_COLUMNS)] = np.eye(3, dtype=int)[y]
    return frame.assign(source="arena", licence="MIT"), said


def labelled(frame: pd.DataFrame, said: np.ndarray) -> pd.DataFrame:
    found = frame.copy()
    found[list(WINNER_COLUMNS)] = np.eye(3, dtype=int)[said]
    return found


def written(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_csv(path, index=False)
    return path


def given(path: Path) -> Input:
    return Input(path=path, fingerprint=path.name)


def run(
    tmp_path: Path, pairs: Path, human: Path, *judges: Path, maps: Path | None = None, **settings: Any
) -> tuple[pd.DataFrame, dict[str, Any]]:
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    named = {"judges": tuple(map(given, judges)), "names": tuple(path.stem for path in judges)}
    request = LabelRequest(
        entry="data",
        pairs=given(pairs),
        human=given(human),
        source="file",
        maps=given(maps) if maps else None,
        **named,
        **settings,
    )
    label.run(request, out)
    return pd.read_parquet(out / PAIRS), json.loads((out / REPORT).read_text())


def counts(report: dict[str, Any]) -> dict[str, int]:
    return {record["reason"]: record["count"] for record in report["counts"]}


def test_own_labels_become_shares_of_votes(tmp_path: Path) -> None:
    frame, said = battles(0, skill=0.7)
    more, more_said = battles(1, skill=0.7, first=1000)
    pairs = written(labelled(pd.concat([frame, more]), np.concatenate([said, more_said])), tmp_path / "judged.csv")
    table, report = run(tmp_path, pairs, written(frame, tmp_path / "human.csv"))
    judge = report["judges"]["arena"]
    assert judge["certificate"]["rows"] == ROWS and judge["certificate"]["prompts"] == PROMPTS and not judge["fault"]
    assert counts(report) == {"ok": 2 * ROWS} and set(table["judge"]) == {"arena"} and table["licence"].eq("MIT").all()
    shares = table[list(VOTES)].to_numpy()
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=2e-6)
    assert shares.min() > 0.02 and shares.max() < 0.95, "no certainty from a judge that errs"
    assert (shares.argmax(axis=1) == table[list(WINNER_COLUMNS)].to_numpy().argmax(axis=1)).all()
    read = read_battles(written(table, tmp_path / "back.csv"), keep=VOTES)
    assert read.labelled and not read.errors and set(VOTES) <= set(read.kept)


def test_an_exchanged_file_has_exchanged_labels(tmp_path: Path) -> None:
    frame, said = battles(0, skill=0.7)
    human = written(frame, tmp_path / "human.csv")
    there, _ = run(tmp_path, written(labelled(frame, said), tmp_path / "one.csv"), human)
    turned = labelled(frame, np.where(said < 2, 1 - said, said))
    turned = turned.assign(response_a=frame["response_b"], response_b=frame["response_a"], model_a=frame["model_b"])
    back, report = run(tmp_path, written(turned.assign(model_b=frame["model_a"]), tmp_path / "two.csv"), human)
    assert report["judges"]["arena"]["certificate"]["rows"] == ROWS, "humans' battles are found in the other order, too"
    expected = there[["votes_b", "votes_a", "votes_tie"]].to_numpy()
    np.testing.assert_allclose(back[list(VOTES)].to_numpy(), expected, atol=2e-6)


def test_score_tables_of_both_orders_are_one_judge_with_consistency(tmp_path: Path) -> None:
    human, said = battles(0, skill=0.8)
    more, more_said = battles(1, skill=0.8, first=1000)
    every, verdicts = pd.concat([human, more]), np.concatenate([said, more_said])
    judges = []
    for name, sure in (("ab", 0.8), ("ba", 0.6)):
        p = sure * np.eye(3)[verdicts] + (1 - sure) / 3
        table = pd.DataFrame(p, columns=["p_a", "p_b", "p_tie"]).assign(id=every["id"].to_numpy(), status="ok")
        table.loc[ROWS, "status"] = "engine failed"
        judges.append(written(table.iloc[:-1] if name == "ba" else table, tmp_path / f"{name}.csv"))
    pairs = written(more.drop(columns=list(WINNER_COLUMNS)), tmp_path / "pairs.csv")
    table, report = run(tmp_path, pairs, written(human, tmp_path / "human.csv"), *judges)
    assert counts(report) == {"ok": ROWS - 2, label.UNJUDGED: 2}
    left = {record["reason"]: record["count"] for record in report["verdicts_left_out"]}
    assert left == {"not scored by the judge: engine failed": 2, "by some of the tables only": 1}
    assert set(table["judge"]) == {"ab + ba"} and report["judges"]["ab + ba"]["certificate"]["rows"] == ROWS
    np.testing.assert_allclose(table["consistency"], 0.6 + 0.4 / 3 + 2 * 0.2 / 3, atol=1e-6)


def test_preferences_of_a_log_are_found_by_the_conversations(tmp_path: Path) -> None:
    frame, said = battles(0, skill=0.8)
    pairs = frame.drop(columns=list(WINNER_COLUMNS)).assign(log_id_a="p" + frame["id"] + "-" + frame["model_a"])
    pairs = pairs.assign(log_id_b="p" + frame["id"] + "-" + frame["model_b"])
    turned = np.arange(ROWS) % 2 == 1
    share_b = np.array([0.0, 1.0, 0.5])[said]
    preferences = pd.DataFrame(
        {
            "prompt_id": "p" + frame["id"],
            "model_a": np.where(turned, frame["model_b"], frame["model_a"]),
            "model_b": np.where(turned, frame["model_a"], frame["model_b"]),
            "judge": "gpt",
            "share_b": np.where(turned, 1 - share_b, share_b),
        }
    ).astype({"share_b": object})
    preferences.loc[0, "share_b"] = "maybe"
    preferences.loc[len(preferences)] = ["elsewhere", "x", "y", "gpt", 0.5]
    preferences.loc[len(preferences)] = ["elsewhere", "x", "x", "gpt", 0.5]
    files = [written(pairs, tmp_path / "pairs.csv"), written(frame, tmp_path / "human.csv")]
    table, report = run(tmp_path, *files, written(preferences, tmp_path / "preferences.csv"))
    assert counts(report) == {"ok": ROWS - 1, label.UNJUDGED: 1} and set(table["judge"]) == {"gpt"}
    left = {record["reason"]: record["count"] for record in report["verdicts_left_out"]}
    itself = {"of an answer against itself": 1}
    assert left == {"no probabilities that can be read": 1, "of no pair and no human battle": 1} | itself
    decided = table[list(VOTES)].to_numpy().argmax(axis=1)
    said = said[1:]
    assert (decided[said < 2] == said[said < 2]).all(), "sides are those of the pair, whatever the file's are"


@pytest.mark.parametrize("skill", [0.0, 0.7])
def test_a_judge_that_is_not_below_the_prior_is_refused(tmp_path: Path, skill: float) -> None:
    frame, said = battles(0, skill=skill)
    pairs, human = written(labelled(frame, said), tmp_path / "judged.csv"), written(frame, tmp_path / "human.csv")
    if skill:
        assert counts(run(tmp_path, pairs, human)[1]) == {"ok": ROWS}
        return
    with pytest.raises(ZooError, match=r"refused: arena: mapped log loss .* is not below the prior's .*--human"):
        run(tmp_path, pairs, human)
    assert not list((tmp_path / "out").iterdir()), "nothing is left that could be taken for labels"


def test_too_few_prompts_are_refused_and_one_source_does_not_speak_for_another(tmp_path: Path) -> None:
    frame, said = battles(0, skill=0.8)
    judged = labelled(frame, said)
    few = frame[frame["prompt"].isin(frame["prompt"].unique()[:19])]
    with pytest.raises(ZooError, match=r"arena: humans judged battles of 19 of its prompts .* 20 are needed"):
        run(tmp_path, written(judged, tmp_path / "judged.csv"), written(few, tmp_path / "few.csv"))
    other, other_said = battles(1, skill=0.8, first=1000)
    pairs = written(pd.concat([judged, labelled(other, other_said).assign(source="elsewhere")]), tmp_path / "both.csv")
    human = written(frame, tmp_path / "human.csv")
    table, report = run(tmp_path, pairs, human)
    assert set(table["judge"]) == {"arena"} and counts(report) == {"ok": ROWS, label.REFUSED: ROWS}
    assert any(warning.startswith("elsewhere: refused") for warning in report["warnings"])
    earlier = tmp_path / "earlier.json"
    earlier.write_text(json.dumps(report))
    table, report = run(tmp_path, pairs, human, maps=earlier)
    assert counts(report) == {"ok": 2 * ROWS} and report["judges"]["elsewhere"]["borrowed"] == "arena"
    assert any("nobody has measured it here" in warning for warning in report["warnings"])


def test_pairs_against_one_reference_are_warned_of(tmp_path: Path) -> None:
    frame, said = battles(0, skill=0.8)
    versus = frame.assign(model_a=["reference"] * ROWS, model_b=[f"m{n % 9}" for n in range(ROWS)])
    _, report = run(tmp_path, written(labelled(versus, said), tmp_path / "judged.csv"), written(frame, tmp_path / "human.csv"))
    assert report["judges"]["arena"]["all_rows"]["commonest"][0] == "reference"
    assert any("100% of its pairs have reference on one side" in warning for warning in report["warnings"])


def test_a_judge_whose_sides_are_exchanged_is_warned_of(tmp_path: Path) -> None:
    frame, said = battles(0, skill=0.8)
    human = written(frame, tmp_path / "human.csv")
    _, report = run(tmp_path, written(labelled(frame, np.array([1, 0, 2])[said]), tmp_path / "turned.csv"), human)
    assert any("say the opposite of its verdicts" in warning for warning in report["warnings"])
    _, report = run(tmp_path, written(labelled(frame, said), tmp_path / "judged.csv"), human)
    assert not any("opposite" in warning for warning in report["warnings"])


def test_filters_are_measured_and_every_row_has_its_reason(tmp_path: Path) -> None:
    frame, said = battles(0, skill=0.8)
    judged = labelled(frame, said)
    judged.loc[0, "response_b"], judged.loc[1, "response_a"] = judged.loc[0, "response_a"], '[""]'
    judged.loc[2, "response_a"] = "[broken"
    judged["licence"] = ""
    pairs, human = written(judged, tmp_path / "judged.csv"), written(frame, tmp_path / "human.csv")
    table, report = run(tmp_path, pairs, human, drop=("identical", "empty", "coin-flip"))
    every = pd.read_parquet(tmp_path / "out" / "rows.parquet").set_index("id")["status"]
    assert len(every) == ROWS and [every[f"r{n}"] for n in range(3)] == ["identical", "empty", label.BAD_ROW]
    assert counts(report) == every.value_counts().to_dict() and set(table["id"]) == set(every.index[every == "ok"])
    lost = {record["filter"]: record["rows_lost"] for record in report["filters"]}
    assert lost["identical"] == 1 and lost["empty"] == 1
    effects = report["judges"]["arena"]["filters"]
    assert [effect["filter"] for effect in effects] == ["identical", "empty", "coin-flip"]
    assert any("no licence" in warning for warning in report["warnings"])
    assert any("judged.csv: 299 of 300 rows used" in warning for warning in report["warnings"])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("id,score\n1,2\n", r"row 1: has id; a judge's table has id with p_a"),
        (
            "id,p_a,p_b,p_tie\nr1,0.2,0.3,0.5\nr1,0.2,0.3,0.5\n",
            r"says anything of its rows \(2 of an id that occurs more than once\)",
        ),
        ("id,p_a,p_b,p_tie\nzz,0.2,0.3,0.5\n", r"no judge says anything of its rows \(1 of no pair.*--judge"),
        ("prompt_id,model_a,model_b,share_b\n1,a,b,0.5\n", r"no column log_id_a, log_id_b"),
    ],
)
def test_tables_that_are_no_judge_of_these_pairs_are_refused(tmp_path: Path, text: str, named: str) -> None:
    frame, _ = battles(0)
    (tmp_path / "judge.csv").write_text(text)
    pairs, human = written(frame, tmp_path / "pairs.csv"), written(frame, tmp_path / "human.csv")
    with pytest.raises(ZooError, match=named):
        run(tmp_path, pairs, human, tmp_path / "judge.csv")


def test_an_id_of_two_battles_is_refused(tmp_path: Path) -> None:
    frame, _ = battles(0)
    other = frame.assign(prompt=frame["prompt"].to_numpy()[::-1])
    (tmp_path / "judge.csv").write_text("id,p_a,p_b,p_tie\nr1,0.2,0.3,0.5\n")
    with pytest.raises(ZooError, match=r"id r1 is of one battle in .* and of another in"):
        run(tmp_path, written(frame, tmp_path / "pairs.csv"), written(other, tmp_path / "human.csv"), tmp_path / "judge.csv")


@needs_real_data
def test_what_is_known_of_gpt_4_on_mt_bench(tmp_path: Path) -> None:
    """On 1,814 battles that humans judged too: 1.368 raw, 0.862 smoothed, 0.840 mapped by prompt folds, 0.830 with length."""
    _, report = run(tmp_path, REAL / "llm_judged.csv.gz", REAL / "human_train.csv.gz")
    judge = report["judges"]["mtbench_gpt4"]
    loss = {step["name"]: step["log_loss"] for step in judge["certificate"]["steps"]}
    known = {"uniform": 1.099, "raw": 1.368, "smoothed": 0.862, "mapped": 0.840, "mapped with length": 0.830}
    assert judge["certificate"]["rows"] == 1814
    assert {name: loss[name] for name in known} == pytest.approx(known, abs=0.004)
    assert {"llmfao_gpt4", "vicuna80_gpt4"} == {name for name, each in report["judges"].items() if each["fault"]}


def test_a_line_of_a_judge_s_table_that_cannot_be_read_is_counted_and_stops_nothing(tmp_path: Path) -> None:
    frame, said = battles(0, skill=0.8)
    pairs = written(frame.drop(columns=list(WINNER_COLUMNS)), tmp_path / "pairs.csv")
    table = tmp_path / "judge.jsonl"
    rows = [
        json.dumps({"id": row_id, **dict(zip(("p_a", "p_b", "p_tie"), (0.7 * np.eye(3)[y] + 0.1).tolist(), strict=True))})
        for row_id, y in zip(frame["id"], said, strict=True)
    ]
    rows[3], rows[7] = '{"id": "r3", "p_a": 0.', '["a list"]'
    table.write_text("\n".join(rows) + "\n")
    made, report = run(tmp_path, pairs, written(frame, tmp_path / "human.csv"), table)
    left = {each["reason"]: each for each in report["verdicts_left_out"]}
    assert left["a row that cannot be read"]["count"] == 2 and left["a row that cannot be read"]["example"].startswith(
        "judge.jsonl row 4"
    )
    assert len(made) == ROWS - 2 and counts(report)["unjudged"] == 2 == report["totals"]["pairs"] - len(made)
