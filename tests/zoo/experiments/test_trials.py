"""Trials: paired comparisons, what is evaluated in which order, and real trainings side by side with one that fails."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.tiny_models import TEMPLATE
from zoo.contracts import Entry, EvaluateRequest, Held, Input, PromptSpec, Selection, TrainRequest, TrainSpec
from zoo.data.battles import read_battles
from zoo.data.sample import write_sample
from zoo.entries.load import load_entry
from zoo.errors import ZooError
from zoo.experiments.recipes import Recipe, RecipeRun
from zoo.experiments.run import run_chain
from zoo.experiments.side_by_side import run_side_by_side
from zoo.experiments.trials import (
    AVERAGED,
    TRAINED,
    ZERO_SHOT,
    Trial,
    compared,
    planned,
    run_trials,
    trials_figure,
    trials_table,
)
from zoo.pipeline.weights import fetch_request
from zoo.report.text import Format, as_text
from zoo.scores.tables import EVALUATED, probabilities, read_scores

PROMPT = PromptSpec(template=TEMPLATE, max_tokens=96)


def trial(name: str, losses: dict[str, float], *, form: str = TRAINED, data: str = "votes.csv", entry: str = "tiny") -> Trial:
    return Trial(name, entry, form, data, losses, {row: ord(row) for row in losses}, recalibrated=1.0)


rows = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 5), min_size=1)


@given(rows, rows)
def test_a_change_is_the_paired_mean_over_shared_rows(first: dict[str, float], other: dict[str, float]) -> None:
    zero, one, two = compared([trial("tiny", first, form=ZERO_SHOT), trial("one", first), trial("two", other)])
    assert one.change is None and (zero.change is None or zero.change[0] == 0)
    shared = sorted(first.keys() & other.keys())
    if not shared:
        assert two.change is None
        return
    differences = np.array([other[i] - first[i] for i in shared])
    assert two.change is not None and two.change[0] == pytest.approx(differences.mean())
    if len(shared) > 1:
        assert two.change[1] == pytest.approx(differences.std(ddof=1) / math.sqrt(len(shared)))


def test_rows_of_one_prompt_are_one_draw_for_the_errors() -> None:
    """Every row twice says no more than every row once."""
    once = {"a": 0.5, "b": 1.5, "c": 0.7}
    twice = once | {row.upper(): loss for row, loss in once.items()}
    prompts = {row: ord(row.lower()) for row in twice}

    def both(losses: dict[str, float]) -> list[Trial]:
        plain = replace(trial("one", losses), prompts={row: prompts[row] for row in losses})
        return compared([plain, replace(plain, name="two", losses={row: loss**2 for row, loss in losses.items()})])

    (one, other), (double, doubled) = both(once), both(twice)
    assert double.log_loss == pytest.approx(one.log_loss) and doubled.change == pytest.approx(other.change)


def test_other_files_and_other_entries_have_first_runs_of_their_own() -> None:
    same = {"a": 1.0, "b": 2.0}
    trials = [trial("one", same), trial("one", same, data="dev.csv"), trial("big", same, entry="big"), trial("two", same)]
    assert [t.change is None for t in compared(trials)] == [True, True, True, False]


def test_the_table_and_the_figure_hold_every_trial() -> None:
    losses = {"a": 0.9, "b": 1.2}
    trials = [trial("tiny", losses, form=ZERO_SHOT), trial("one", losses), trial("two", losses)]
    trials += [replace(t, data="dev.csv") for t in trials[1:]]
    table = as_text(trials_table(compared(trials)), Format.markdown)
    assert table.count("| two") == 2 and "| 1.0500 | 0.1500 |" in table and "| +0.0000 | 0.0000 |" in table
    titles = [column.title for column in trials_table(trials).columns]
    assert len(set(titles)) == len(titles)
    figure = trials_figure(trials)
    panels = figure.axes
    assert len(figure.legends) == 1 and not any(axes.get_legend() for axes in panels), "one legend, beside the data"
    assert [axes.get_title(loc="left") for axes in panels] == ["votes.csv", "dev.csv"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["two", "one"]  # the first run is drawn on top


def test_guessing_is_drawn_where_the_file_s_outcomes_have_it() -> None:
    losses = {"a": 0.6, "b": 0.7}
    figure = trials_figure([trial("one", losses), replace(trial("one", losses, data="two.csv"), ties=False)])
    found = [next(line for line in axes.lines if line.get_label() == "guessing").get_xdata()[0] for axes in figure.axes]
    assert found == pytest.approx([math.log(3), math.log(2)])


def test_what_a_run_takes_in_order(sample_csv: Path, tmp_path: Path) -> None:
    (tmp_path / "dev.csv").write_bytes(sample_csv.read_bytes())
    (tmp_path / "votes.csv").write_bytes(sample_csv.read_bytes())
    runs = (RecipeRun(entry="smollm2-135m", name="one"), RecipeRun(entry="smollm2-135m", name="mean", average=True))
    held = Held(n_folds=2, fold=1)
    recipe = Recipe(question="?", data="votes.csv", also_on=("dev.csv",), until="train", held=held, score_rows=9, runs=runs)
    entry = load_entry("smollm2-135m")

    def plan_of(run: RecipeRun) -> list[tuple[str, str, str, int]]:
        plan = planned(recipe, run, entry, tmp_path, tmp_path / "store")
        return [(form, data, request.stage, getattr(request, "held", held).fold) for form, data, request in plan]

    zero_shot = [("", "", "fetch", 1), (ZERO_SHOT, "votes.csv", "evaluate", 1), (ZERO_SHOT, "dev.csv", "evaluate", 1)]
    trained = [("", "", "train", 1), (TRAINED, "votes.csv", "evaluate", 1), (TRAINED, "dev.csv", "evaluate", 1)]
    assert plan_of(runs[0]) == zero_shot + trained
    folds = [
        (form if not form else f"{form}, fold {fold}", data, stage, fold) for fold in (0, 1) for form, data, stage, _ in trained
    ]
    merged = [("", "", "merge", 1), (AVERAGED, "dev.csv", "evaluate", 1)]  # never on the file that it was learned from
    assert plan_of(runs[1]) == zero_shot + folds + merged
    other_fold = RecipeRun(entry="smollm2-135m", name="fold 0", fold=0)
    assert [fold for *_, fold in plan_of(other_fold)] == [1, 0, 1, 0, 0, 0]  # fetching and other files hold nothing out
    lexical = load_entry("lexical")
    requests = [request for _, _, request in planned(recipe, runs[0], lexical, tmp_path, tmp_path / "store")]
    assert [request.stage for request in requests] == ["lexical-train", "lexical-score", "lexical-score"]
    assert requests[0].spec.folds == 2 and all(request.selection.diagnostic for request in requests[1:]), "no members"
    with pytest.raises(ZooError, match="no adapters to average"):
        list(planned(recipe, runs[1], lexical, tmp_path, tmp_path / "store"))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_evaluation_says_what_training_measured(method: str, tiny_llama: Path, sample_csv: Path, tmp_path: Path) -> None:
    from zoo.stages.compare import evaluate
    from zoo.stages.train import stage as train

    for name in ("base", "train", "after", "turned"):
        (tmp_path / name).mkdir()
    (tmp_path / "base" / "model").symlink_to(tiny_llama)
    made = {name: Input(path=tmp_path / name, fingerprint=name) for name in ("base", "train")}
    asked = {"entry": "tiny", "base": made["base"], "battles": Input(path=sample_csv, fingerprint="data"), "prompt": PROMPT}
    spec = TrainSpec(method=method, rank=4, learning_rate=5e-3, dropout=0.1, eval_rows=240, max_rows=32, batch_rows=8)
    trained = train.run(TrainRequest(held=Held(), spec=spec, **asked), tmp_path / "train")
    request = EvaluateRequest(trained=made["train"], method=method, held=Held(), **asked)
    found = evaluate.run(request, tmp_path / "after")
    assert found.metrics["val/rows"] == trained.metrics["val/rows"]
    assert found.metrics["val/log_loss"] == pytest.approx(trained.metrics["val/log_loss"], abs=5e-3)  # files hold 16 bits
    table = read_scores(tmp_path / "after" / EVALUATED)
    frame = read_battles(sample_csv).frame.set_index("id")
    y = frame.loc[table["id"], "label"].to_numpy()
    assert -np.log(probabilities(table)[np.arange(len(y)), y]).mean() == pytest.approx(found.metrics["val/log_loss"])
    turned = pd.read_csv(sample_csv, dtype=str, keep_default_na=False)
    turned = turned.rename(columns={"response_a": "response_b", "response_b": "response_a"})
    turned.drop(columns=[name for name in turned if name.startswith("winner_")]).to_csv(tmp_path / "turned.csv", index=False)
    battles = Input(path=tmp_path / "turned.csv", fingerprint="turned")
    everything = request.model_copy(update={"selection": Selection(rows="all"), "order": "ba", "battles": battles})
    assert evaluate.run(everything, tmp_path / "turned").metrics == {}  # no labels, no metrics
    both = read_scores(tmp_path / "turned" / EVALUATED)
    assert len(both) == 240 and set(both["fold"]) == {-1}
    shown_alike = probabilities(both.set_index("id").loc[table["id"]])[:, [1, 0, 2]]
    assert np.allclose(shown_alike, probabilities(table), atol=5e-3)  # other batches round otherwise in 16 bits


RECIPE = """
question = "Does a rate without bound train?"
data = "votes.csv"
also_on = ["dev.csv"]
until = "train"
score_rows = 20
[[runs]]
entry = "tiny"
name = "as it is"
[[runs]]
entry = "tiny"
name = "no bound"
set = ["train.learning_rate=1e30", "train.warmup_fraction=0"]
"""
ENTRY = f"""
name = "tiny"
[base]
hub_id = "test/tiny"
architecture = "LlamaForCausalLM"
parameters = 300000
licence = "none"
[prompt]
template = {TEMPLATE!r}
max_tokens = 96
[train]
method = "lora"
rank = 4
learning_rate = 5e-3
eval_rows = 10
max_rows = 32
[quantize]
[score]
"""


@pytest.mark.slow
@pytest.mark.chain
@pytest.mark.timeout(400)
def test_runs_side_by_side_leave_all_that_the_tables_need(
    tiny_llama: Path, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at a time: the one that fails is named with its log, and costs the other nothing."""
    (tmp_path / "entries").mkdir()
    (tmp_path / "entries" / "tiny.toml").write_text(ENTRY.replace("'<|", '"<|').replace("\\n'", '\\n"'))
    monkeypatch.setenv("ZOO_ENTRIES", str(tmp_path / "entries"))
    folder = tmp_path / "001-rates"
    folder.mkdir()
    (folder / "recipe.toml").write_text(RECIPE)
    write_sample(tmp_path / "votes.csv", 120, 1)
    write_sample(tmp_path / "dev.csv", 30, 2)
    store, said = own_home / "store", []
    entry: Entry = load_entry("tiny")
    run_chain([fetch_request(entry, store, source=str(tiny_llama))], entry, store, say=said.append)
    with pytest.raises(ZooError, match=r"1 runs failed: no bound \(.*01\.log\)"):
        run_side_by_side(folder, tmp_path, 2, store, logs=tmp_path / "logs", say=said.append)
    assert "as it is: done" in said and "training diverged at step" in (tmp_path / "logs" / "01.log").read_text()
    made = len(said)
    trials = run_trials(folder, tmp_path, store, only=["as it is"], say=said.append)
    assert not any(line for line in said[made:] if "running" in line), "all of it was in the store"
    assert [(t.form, t.data) for t in trials] == [(f, d) for f in (ZERO_SHOT, TRAINED) for d in ("votes.csv", "dev.csv")]
    assert [len(t.losses) for t in trials] == [20, 30, 20, 30]
    sheet = pd.read_csv(tmp_path / "dev.csv", dtype={"id": str})
    assert set(trials[1].losses) == set(sheet["id"])
    with pytest.raises(ZooError, match="no run other; it has as it is, no bound"):
        run_trials(folder, tmp_path, store, only=["other"], say=said.append)
