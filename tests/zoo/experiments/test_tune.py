"""Tuning: what is drawn, which rows choose and which judge, and real studies that are killed, go on, and end early."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.helpers.tiny_models import TINY_ENTRY
from tests.helpers.tuned import report_of
from tests.helpers.waiting import wait_until
from zoo.contracts import Entry, EvaluateRequest, Held, Input, TrainSpec
from zoo.data.sample import write_sample
from zoo.data.splits import sample_rows, select_training
from zoo.data.usable import usable_battles
from zoo.entries.load import load_entry, override
from zoo.entries.toml import document
from zoo.entries.tuned import write_training
from zoo.errors import ZooError
from zoo.experiments.run import run_chain
from zoo.experiments.scored import Labels
from zoo.experiments.tune import Space, TuneOptions, load_space, results_folder, tune
from zoo.experiments.tune.rows import LEAST_PROMPTS, HeldRows, split_held
from zoo.experiments.tune.run import _name
from zoo.experiments.tune.space import Knob, default_space, differing, draw, own_values, with_drawn
from zoo.experiments.tune.study import FINGERPRINT, Study, best_of, importance_of
from zoo.experiments.tune.training import Following, followed
from zoo.experiments.tune.trials import IN_STORE, Setting, Tuner
from zoo.pipeline.weights import fetch_request
from zoo.report.text import as_text
from zoo.report.tuned import pictures, run_command, settings_text, tune_html, tune_page
from zoo.scores.metric_names import HELD_OUT_LOSS
from zoo.scores.tables import EVALUATED, probabilities, read_scores
from zoo.scores.tuned import TriedSettings, TuneReport
from zoo.store import list_artifacts

# --- the space --------------------------------------------------------------------------------------------------------------

rates = st.floats(1e-6, 1e-2)
specs = st.builds(
    TrainSpec,
    method=st.sampled_from(["qlora", "lora", "full"]),
    learning_rate=rates,
    rank=st.integers(1, 64),
    alpha=st.integers(1, 128),
    epochs=st.floats(0.1, 5),
    dropout=st.floats(0, 0.5),
    warmup_fraction=st.floats(0, 0.9),
    label_smoothing=st.floats(0, 0.5),
    weight_decay=st.floats(0, 1),
)


@dataclass
class Chosen:
    """A trial that draws the lowest, the highest or something between, as `share` says."""

    share: float

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        return float(low * (high / low) ** self.share) if log else low + self.share * (high - low)

    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        return round(low + self.share * (high - low))

    def suggest_categorical(self, name: str, choices: tuple[object, ...]) -> object:
        return choices[round(self.share * (len(choices) - 1))]


@given(specs, st.floats(0, 1))
def test_whatever_is_drawn_is_a_training_within_the_space(spec: TrainSpec, share: float) -> None:
    space = default_space(spec)
    drawn = draw(space, Chosen(share))
    made = with_drawn(spec, drawn)  # pydantic refuses what no training may have
    knobs = dict(space.knobs())
    for name, value in drawn.items():
        knob = knobs[name]
        assert value in knob.choices if knob.choices else knob.low <= value <= knob.high
    if "rank" in drawn:
        assert made.alpha == max(1, round(drawn["alpha_ratio"] * drawn["rank"]))
    else:
        assert (made.rank, made.alpha, made.dropout) == (spec.rank, spec.alpha, spec.dropout), "a full one has no adapter"
    assert {name: getattr(made, name) for name in differing(made, spec)} == differing(made, spec)
    assert with_drawn(spec, {}) == spec and differing(spec, spec) == {}


@given(specs)
def test_the_entry_s_own_values_lie_in_the_default_space(spec: TrainSpec) -> None:
    own = own_values(default_space(spec), spec)
    assert (
        own["learning_rate"] == spec.learning_rate and own["dropout" if spec.method != "full" else "weight_decay"] is not None
    )


def test_a_rank_keeps_the_entry_s_ratio_where_no_other_is_drawn() -> None:
    spec = TrainSpec(rank=16, alpha=32)
    assert with_drawn(spec, {"rank": 4}).alpha == 8 and with_drawn(spec, {"alpha_ratio": 0.5}).alpha == 8


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rank = { low = 4.5, high = 8 }", "whole number"),
        ("rank = { low = 0, high = 8 }", "rank"),
        ("learning_rate = { low = 0, high = 1, log = true }", "log scale"),
        ("learning_rate = { low = 1 }", "give low and high"),
        ("learning_rate = { choices = [1], low = 1 }", "not both"),
        ("learning_rate = { choices = [1, 1] }", "each once"),
        ("alpha_ratio = { choices = [0, 1] }", "above 0"),
        ("swap_orders = { low = 0, high = 1 }", "true or false"),
        ("dropout = { choices = [true] }", "no value of it"),
        ("teacher_weight = { low = 0, high = 1 }", "no train.teacher"),
        ("extra_weight = { low = 1, high = 2 }", "no train.extra"),
    ],
)
def test_a_space_that_cannot_be_is_told_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "space.toml").write_text(text)
    with pytest.raises(ZooError, match=told) as found:
        load_space(tmp_path / "space.toml", load_entry("smollm2-135m"))
    assert "space.toml" in str(found.value) and "\n" not in str(found.value)


def test_knobs_refuse_what_they_are_not() -> None:
    with pytest.raises(ValidationError, match="not below"):
        Knob(low=1, high=1)


# --- rows -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [None, "near-prompts-1"])
@pytest.mark.parametrize("eval_rows", [10, 20, 500])
def test_rows_that_choose_and_rows_that_judge_share_no_prompt(sample_csv: Path, rule: str | None, eval_rows: int) -> None:
    held = Held(n_folds=3, fold=1, rule=rule)
    rows = split_held(sample_csv, held, eval_rows)
    of = lambda ids: {rows.labels.prompts[i] for i in ids}  # noqa: E731
    assert not of(rows.choosing) & of(rows.judging) and min(map(len, (of(rows.choosing), of(rows.judging)))) >= LEAST_PROMPTS
    battles = usable_battles(sample_csv)
    _, frame = select_training(battles, held)
    assert list(rows.choosing) == list(sample_rows(frame, len(rows.choosing))["id"]), "as the train stage takes them"
    assert set(rows.judging) <= set(frame["id"]) and len(rows.choosing) <= eval_rows


# --- pruning ----------------------------------------------------------------------------------------------------------------

SPACE = Space(learning_rate=Knob(low=1e-4, high=1e-2, log=True))


def study_in(folder: Path) -> Study:
    return Study("tune any", folder / "studies.db", SPACE, {"learning_rate": 1e-3}, seed=0, facts={"kind": "tune"})


def ran(study: Study, losses: list[float]) -> tuple[int, list[str]]:
    trial = study.ask(99)
    study.note(trial, {"drawn": study.draw(trial)})
    said = [study.report(trial, share, loss) for share, loss in zip((0.25, 0.5, 0.75, 1.0), losses, strict=True)]
    if any(said):
        study.prune(trial)
    else:
        study.complete(trial, losses[-1])
    return trial.number, said


def test_a_trial_above_the_median_of_the_others_ends_there_but_never_the_entry_s_own(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    assert ran(study, [9.0, 9.0, 9.0, 9.0]) == (0, ["", "", "", ""])
    for _ in range(2):
        assert not any(ran(study, [1.0, 0.9, 0.8, 0.7])[1])
    number, said = ran(study, [1.0, 1.0, 1.0, 1.0])
    assert said[0] == "" and "50%" in said[1], "nothing better than the others' median after half of it"
    trials = study.trials()
    assert [t.state for t in trials] == ["complete"] * 3 + ["pruned"] and best_of(trials).number == 1
    assert trials[number].curve[0] == (0.25, 1.0) and trials[0].drawn == {}


def test_a_trial_of_a_killed_process_is_gone_on_with_by_its_own_settings(tmp_path: Path) -> None:
    first = study_in(tmp_path)
    ran(first, [1.0, 1.0, 1.0, 1.0])
    drawn = first.draw(first.ask(99))
    again = study_in(tmp_path)
    (left,) = again.interrupted()
    assert (left.number, again.draw(left)) == (1, drawn) and again.drawn() == 2
    again.complete(left, 0.5)
    assert not again.interrupted() and best_of(again.trials()).number == 1


def test_what_mattered_is_the_setting_that_moved_the_loss() -> None:
    rng = np.random.default_rng(0)
    drawn = [{"learning_rate": float(rate), "dropout": float(rng.random())} for rate in np.geomspace(1e-4, 1e-2, 12)]
    trials = tuple(
        TriedSettings(number=i, state="complete", settings={}, drawn=one, log_loss=1 + abs(np.log10(one["learning_rate"]) + 3))
        for i, one in enumerate(drawn)
    )
    found = importance_of(trials)
    assert next(iter(found)) == "learning_rate" and found["learning_rate"] > 0.7
    assert importance_of(trials[:7]) == {}, "too few to tell"


def test_an_evaluation_is_judged_once_and_by_its_share_of_the_training() -> None:
    heard: list[tuple[float, float]] = []
    following = Following(lambda share, loss: heard.append((share, loss)) or ("" if share < 0.5 else "enough"), lambda: "")
    following.hear({"name": HELD_OUT_LOSS, "step": 0, "value": 1.5})
    following.hear({"name": HELD_OUT_LOSS, "step": 2, "value": 1.4})
    assert not heard, "not before it is known how many steps there are"
    following.hear({"bar": {"description": "train", "total": 8, "done": 1}})
    following.hear({"name": HELD_OUT_LOSS, "step": 2, "value": 1.4})
    assert heard == [(0.25, 1.4)] and not following.stopped.is_set()
    following.finished([(0, 1.5), (2, 1.4), (8, 1.2)], 8)
    assert heard[1:] == [(1.0, 1.2)] and following.why == "enough"


def test_what_breaks_in_looking_at_a_training_ends_it_and_is_raised(tmp_path: Path) -> None:
    """Else nobody would look any more: no pruning, and a budget that nobody keeps."""

    def look() -> str:
        raise OSError("no space left for the study")

    following = Following(lambda *_: "", look)
    with pytest.raises(OSError, match="no space left"), followed(tmp_path, following, say=print):
        assert following.stopped.wait(20)


def test_settings_that_have_failed_in_this_run_are_not_trained_again(tmp_path: Path) -> None:
    entry, study = load_entry("smollm2-135m"), study_in(tmp_path)
    place = Input(path=tmp_path, fingerprint="0" * 16)
    shared = Setting(entry, HeldRows((), (), Labels({}, {}, True)), place, Held(), place, tmp_path)
    tuner = Tuner(shared, study, TuneOptions(tmp_path, Held(), 3, jobs=1), print)
    ran(study, [1.0, 1.0, 1.0, 1.0])
    first, second = study.ask(99), study.ask(99)
    study.note(first, {FINGERPRINT: "equal"})
    study.fail(first)
    assert not tuner._is_known(second, "equal"), "an earlier run may have lacked something"
    tuner._failed.add(first.number)
    assert tuner._is_known(second, "equal") and not tuner._is_known(study.ask(99), "other")
    assert [trial.state for trial in study.trials()] == ["complete", "failed", "failed", "unfinished"]


def test_each_file_of_battles_has_a_study_and_a_folder_of_its_own(tmp_path: Path) -> None:
    """Of equal battles under two names, too: MLflow refuses a run's data to change, and would then log nothing any more."""
    entry = load_entry("smollm2-135m")
    place = Input(path=tmp_path, fingerprint="0" * 16)
    shared = Setting(entry, HeldRows((), (), Labels({}, {}, True)), place, Held(), place, tmp_path)
    names = ("one.csv", "two.csv", "one.csv.gz")
    assert len({_name(shared, SPACE, TuneOptions(Path(name), Held(), 3))[-8:] for name in names}) == len(names)


# --- what people see ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("difference", "error", "told", "better"),
    [
        (-0.04, 0.01, "by more than twice", True),
        (-0.01, 0.01, "more rows would tell", True),
        (0.01, 0.01, "did not carry over", False),
    ],
)
def test_the_page_says_on_which_rows_the_best_was_judged(difference: float, error: float, told: str, better: bool) -> None:
    report = report_of(difference, error)
    text = as_text(tune_page(report, []))
    assert told in text and "looks better than it is: -0.0500 ± 0.0100" in text and f"{difference:+.4f} ± {error:.4f}" in text
    assert "90 other rows of 80 other prompts" in text and "1 pruned" in text and report.is_better is better
    html = tune_html(report, pictures(report))
    assert "<b>" not in html.replace('<div class="tile"><b>', "").replace("<b>.csv", "") or "&lt;b&gt;.csv" in html
    assert html.count("<svg") == len(pictures(report)) and "http" not in html.replace("http://www.w3.org", "")


def test_settings_are_written_into_the_user_s_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_ENTRIES", str(tmp_path))
    path = write_training("smollm2-135m", {"learning_rate": 1e-3, "rank": 8, "alpha": 24})
    assert path == tmp_path / "smollm2-135m.toml" and "# a small model from a cold start" in path.read_text()
    spec = load_entry("smollm2-135m").train
    assert spec is not None and (spec.learning_rate, spec.rank, spec.alpha) == (1e-3, 8, 24)
    with pytest.raises(ZooError, match="the settings do not fit it"):
        write_training("smollm2-135m", {"rank": 0})
    assert settings_text({"rank": 8, "swap_orders": False}) == "rank 8, swap_orders false"


def test_the_command_to_use_settings_has_what_they_were_tuned_beside() -> None:
    command = run_command("tiny", Path("my battles.csv"), ["train.method=lora", "train.rank=8"], {"rank": 4, "alpha": 8})
    assert shlex.split(command)[:5] == ["zoo", "run", "tiny", "--data", "my battles.csv"]
    spec = override(load_entry("smollm2-135m"), shlex.split(command)[6::2]).train
    assert spec is not None and (spec.method, spec.rank, spec.alpha) == ("lora", 4, 8), "what was found goes last"


# --- real studies -------------------------------------------------------------------------------------------------------------

PLAIN = {"method": "lora", "rank": 4, "alpha": 8, "learning_rate": 5e-3, "eval_rows": 16, "max_rows": 32, "batch_rows": 8}
RATES = "learning_rate = { low = 1e-4, high = 1e-2, log = true }\n"


@pytest.fixture
def tiny_entry(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Entry]:
    folder = tmp_path / "entries"
    folder.mkdir()
    own = TINY_ENTRY | {"train": PLAIN, "prompt": {**TINY_ENTRY["prompt"], "max_tokens": 96}}
    (folder / "tiny.toml").write_text(document(own))
    monkeypatch.setenv("ZOO_ENTRIES", str(folder))
    yield load_entry("tiny")


@pytest.mark.chain
@pytest.mark.timeout(500)
def test_a_study_is_killed_goes_on_and_is_judged_on_rows_that_chose_nothing(
    tiny_entry: Entry, tiny_llama: Path, own_home: Path, tmp_path: Path
) -> None:
    """One study for all of it, since each training loads a model: killed in a trial, finished, asked for more, judged."""
    data, space = tmp_path / "battles.csv", tmp_path / "space.toml"
    write_sample(data, 320, 7)
    space.write_text(RATES)
    options = ["--data", str(data), "--space", str(space), "--fold", "0", "--source", str(tiny_llama)]
    command = [sys.executable, "-m", "zoo", "tune", "tiny", *options, "--trials", "2"]
    store = own_home / "store"
    said: list[str] = []
    run_chain([fetch_request(tiny_entry, store, source=str(tiny_llama))], tiny_entry, store, say=said.append, track=False)
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
    wait_until(lambda: list((store / ".partial").glob("train-*")), "a training", killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    drawn = load_space(space, tiny_entry)
    ask = TuneOptions(data, Held(rule="near-prompts-1"), 2, space=drawn, source=str(tiny_llama))
    report = tune(tiny_entry, ask, store, say=said.append)
    assert any("going on with study" in line for line in said) and [t.state for t in report.trials] == ["complete"] * 2
    assert report.own.settings == {} and set(report.trials[1].settings) == {"learning_rate"}
    made = len(said)
    again = tune(tiny_entry, ask, store, say=said.append)
    assert again.trials == report.trials and not any(": running" in line for line in said[made:]), "nothing is made twice"
    known = tune(tiny_entry, replace(ask, trials=1, space=None), store, say=said.append)  # another study, the same training
    assert (known.own.seconds, known.own.why) == (None, IN_STORE), "no time that a budget could be reckoned by"
    with pytest.raises(ZooError, match=r"--budget: .* is less than one training"):
        other = TuneOptions(data, Held(fold=1, rule="near-prompts-1"), 2, budget_seconds=1e-3, source=str(tiny_llama))
        tune(tiny_entry, other, store, say=said.append)
    check_judgement(report, data, store)
    trained = {a.manifest.fingerprint for a in list_artifacts(store, "train")}
    assert len(trained) == (1 if report.winner.is_default else 2), "the adapter of a trial that lost is gone"
    assert str(results_folder(report)).startswith(str(own_home))


PLAIN_SPEC = TrainSpec(**PLAIN)


def check_judgement(report: TuneReport, data: Path, store: Path) -> None:
    """The paired difference again, from the tables that the evaluations left."""
    if report.winner.is_default:
        assert report.judging is None and report.choosing is None
        return
    assert report.judging is not None and report.choosing is not None
    labels = usable_battles(data).frame.set_index("id")["label"]
    tables = {}
    for artifact in list_artifacts(store, "evaluate"):
        assert isinstance(artifact.manifest.request, EvaluateRequest)
        table = read_scores(artifact.path / EVALUATED)
        y = labels.loc[table["id"]].to_numpy()
        losses = -np.log(probabilities(table)[np.arange(len(y)), y])
        tables[artifact.manifest.fingerprint] = pd.Series(losses, index=table["id"])
    rows = split_held(data, Held(rule="near-prompts-1"), PLAIN_SPEC.eval_rows)
    means = sorted(float(losses.loc[list(rows.judging)].mean()) for losses in tables.values())
    assert means == pytest.approx(sorted([report.judging.own, report.judging.best]))
    assert report.judging.difference == pytest.approx(report.judging.best - report.judging.own)
    assert report.choosing.own == pytest.approx(report.own.log_loss, abs=5e-3), "as the training measured it, in 16 bits"
    assert json.loads(report.model_dump_json())["judging"]["rows"] == len(rows.judging)
