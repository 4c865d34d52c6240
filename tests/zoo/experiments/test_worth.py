"""Worth: what is trained, what of a source is learned, gains against an oracle, and a real run that is killed on its way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers.waiting import wait_until
from zoo.data.sample import write_sample
from zoo.data.usable import usable_battles
from zoo.errors import ZooError
from zoo.experiments.scored import Scored
from zoo.experiments.worth import WorthRecipe, load_worth, measure_worth
from zoo.experiments.worth.compare import Models, Rows, compare
from zoo.experiments.worth.recipe import MAIN, configs, expanded, told, whole
from zoo.experiments.worth.sources import OTHERS, check_overlap, prepare, rows_learned, write_rows
from zoo.report.text import Format, as_text
from zoo.report.worth import NOT_TOLD, contrasts_table, curve_figure, leaderboard_table, worth_figure, worth_page
from zoo.scores.worth import ALONE, HELD_OUT, Area, WorthReport
from zoo.store import list_artifacts

RECIPE = {
    "question": "?",
    "data": "main.csv",
    "seeds": [0, 1, 2],
    "also_on": ["dev.csv"],
    "held": {"n_folds": 3},
    "entries": [{"entry": "lexical"}],
    "sources": [{"name": "more", "file": "more.csv"}],
}


def recipe_of(**changes: object) -> WorthRecipe:
    return WorthRecipe.model_validate({**RECIPE, **changes})


def three_sources(**changes: object) -> WorthRecipe:
    sources = [{"name": name, "file": "more.csv"} for name in "abc"]
    return recipe_of(sources=[*sources, {"name": "c2", "file": "more.csv", "together": False}], **changes)


def test_each_source_is_trained_on_alone_and_left_out_of_all_of_them() -> None:
    recipe = three_sources(rows=[100, 400])
    found = configs(recipe, {"a": 1000, "b": 300, "c": 50, "c2": 50})
    assert [told(config) for config in found[:5]] == ["main", "main + a", "main + b", "main + c", "main + c2"]
    assert [told(config) for config in found[5:9]] == ["main + a + b + c", "main + b + c", "main + a + c", "main + a + b"]
    assert [told(config) for config in found[9:]] == ["main + 100 a", "main + 400 a", "main + 100 b"]
    two = configs(
        three_sources(), {"a": 9, "b": 9, "c2": 9}
    )  # c has no rows: all at once is a and b, each alone is all but one
    assert [told(config) for config in two] == ["main", "main + a", "main + b", "main + c2", "main + a + b"]


def test_a_training_without_chance_runs_once_for_all_seeds_but_for_the_rows_that_they_draw() -> None:
    recipe = recipe_of(entries=[{"entry": "lexical"}, {"entry": "smollm2-135m", "set": ["train.rank=4"]}], rows=[10])
    files = {("more", None, 0): Path("/more.csv")} | {("more", 10, seed): Path(f"/more-{seed}.csv") for seed in (0, 1, 2)}
    plain, cells = expanded(recipe, configs(recipe, {"more": 20}), files, ["more"])
    runs = {run.title: run for run in plain.runs}
    assert sum(run.entry == "lexical" for run in plain.runs) == 2 + 3 and len(plain.runs) == 5 + 9
    assert cells.titles("lexical", whole(["more"]), (0,), 2) == cells.titles("lexical", whole(["more"]), (0,), 0)
    (own,) = cells.titles("smollm2-135m", (("more", 10),), (0,), 2)
    assert runs[own].fold == 0 and "train.seed=2" in runs[own].settings and "train.rank=4" in runs[own].settings
    assert 'train.extra=[{ file = "/more-2.csv", weight = 1.0 }]' in runs[own].settings
    assert "train.extra_targets=votes" in runs[own].settings
    (none,) = cells.titles("smollm2-135m", MAIN, (0,), 1)
    assert not any("extra" in setting for setting in runs[none].settings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": [0]}, "at least 3"),
        ({"seeds": [4, 4, 4]}, "different"),
        ({"folds": [3]}, "not one of 3"),
        ({"folds": [0, 0]}, "each once"),
        ({"also_on": ["dev.csv", "main.csv"]}, "not main.csv"),
        ({"also_on": ["dev.csv", "dev.csv"]}, "each file once"),
        ({"rows": [5, 5]}, "rising"),
        ({"sources": [{"name": "a", "file": "x"}, {"name": "a", "file": "y"}]}, "names must differ"),
    ],
)
def test_recipes_that_would_say_nothing_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        recipe_of(**change)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of small files: `more` is another source, with some rows of `dev`'s and of `main`'s prompts among them."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, rows, seed in (("main", 90, 1), ("dev", 60, 2), ("more", 90, 3)):
        write_sample(folder / f"{name}.csv", rows, seed)
    return folder


def test_what_stands_on_other_battles_is_learned_by_nobody_and_larger_parts_hold_smaller_ones(data: Path) -> None:
    recipe = recipe_of()
    main = usable_battles(data / "main.csv")
    found = prepare(recipe, recipe.sources[0], main, data, (0, 1, 2))
    dev = {json.dumps(turns) for turns in usable_battles(data / "dev.csv").frame["prompt"]}
    more = usable_battles(data / "more.csv").frame
    shared = sum(json.dumps(turns) in dev for turns in more["prompt"])
    assert shared and found.left_out[OTHERS] >= shared
    assert not {json.dumps(turns) for turns in found.frame["prompt"]} & dev
    assert len(found.frame) + sum(found.left_out.values()) == found.labelled == 90
    parts = [set(found.part(rows, 0).tolist()) for rows in (5, 10, 20)]
    assert [len(part) for part in parts] == [5, 10, 20] and parts[0] < parts[1] < parts[2]
    assert parts[1] != set(found.part(10, 1).tolist()), "another seed draws others"


def test_a_source_of_what_is_held_out_is_told_and_has_no_rows_left(data: Path) -> None:
    copied = pd.read_csv(data / "dev.csv", dtype=str)
    copied["id"] = "x" + copied["id"]
    copied.to_csv(data / "copy.csv", index=False)
    recipe = recipe_of(sources=[{"name": "copy", "file": "copy.csv"}])
    found = prepare(recipe, recipe.sources[0], usable_battles(data / "main.csv"), data, (0, 1, 2))
    assert found.empty == f"0 rows left of 60 labelled ones: 60 {OTHERS}"


def test_two_forms_of_the_same_battles_are_not_taken_for_two_sources(data: Path) -> None:
    recipe = recipe_of(sources=[{"name": "one", "file": "more.csv"}, {"name": "two", "file": "more.csv"}])
    main = usable_battles(data / "main.csv")
    one, two = (prepare(recipe, source, main, data, (0,)) for source in recipe.sources)
    check_overlap([one])
    with pytest.raises(ZooError, match=r"two: .* together = false"):
        check_overlap([one, two])


def test_rows_of_two_sources_count_once(data: Path, tmp_path: Path) -> None:
    """As many as a training on the same files says that it has learned."""
    frame = pd.read_csv(data / "more.csv", dtype=str)
    frame[:60].to_csv(data / "first.csv", index=False)
    frame[40:].to_csv(data / "second.csv", index=False)
    recipe = recipe_of(sources=[{"name": name, "file": f"{name}.csv"} for name in ("first", "second")])
    main = usable_battles(data / "main.csv")
    sources = [prepare(recipe, source, main, data, (0, 1, 2)) for source in recipe.sources]
    rows = rows_learned(sources, [0, 1, 2])
    each, both = [rows([name]) for name in ("first", "second")], rows(["first", "second"])
    twice = set(sources[0].frame["id"]) & set(sources[1].frame["id"])
    assert twice and max(each) < both < sum(each)
    assert each == [pytest.approx(one.learned.sum(axis=0).mean()) for one in sources]
    whole_file = prepare(recipe_of(), recipe_of().sources[0], main, data, (0, 1, 2))
    assert both == pytest.approx(whole_file.learned.sum(axis=0).mean())


def test_the_file_that_is_learned_from_has_the_same_battles_labels_and_votes(data: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(data / "more.csv", dtype=str)
    frame["votes_a"], frame["votes_b"], frame["votes_tie"] = "0.5", "0.25", "0.25"
    frame.loc[0, "votes_a"] = ""
    frame.to_csv(data / "more.csv", index=False)
    recipe = recipe_of(also_on=[])
    main = usable_battles(data / "main.csv")
    for source in (recipe.sources[0], recipe.sources[0].model_copy(update={"targets": "hard"})):
        found = prepare(recipe, source, main, data, (0,))
        write_rows(found, None, tmp_path / "out.csv.gz")
        read = usable_battles(tmp_path / "out.csv.gz", keep=("votes_a", "votes_b", "votes_tie"))
        assert list(read.frame["id"]) == list(found.frame["id"]) and list(read.frame["label"]) == list(found.frame["label"])
        assert list(read.frame["prompt"]) == list(found.frame["prompt"])
        assert ("votes_a" in read.kept) == (source.targets == "votes")
    first = (tmp_path / "out.csv.gz").read_bytes()
    write_rows(found, None, tmp_path / "out.csv.gz")
    assert (tmp_path / "out.csv.gz").read_bytes() == first, "the same rows are the same file"


def made_report(gained: float, *, gpu_seconds: float | None = None) -> tuple[WorthReport, np.ndarray]:
    """A report of models whose probabilities are made: with `more` each row has `gained` nats less, but for noise of seeds."""
    recipe = recipe_of(entries=[{"entry": "smollm2-135m"}], rows=[10])
    rng, ids = np.random.default_rng(0), [str(i) for i in range(120)]
    files = {("more", None, 0): Path("m")} | {("more", 10, seed): Path("m") for seed in (0, 1, 2)}
    usable = {"more": 20}
    plain, cells = expanded(recipe, configs(recipe, usable), files, [])
    areas = [Rows(Area(data=d, part=p), ids, np.arange(120)) for d, p in (("main.csv", HELD_OUT), ("dev.csv", "all"))]
    y, tables, means = rng.integers(0, 3, 120), {}, {}
    for run in plain.runs:
        loss = 1.0 - (gained if "main + more" in run.title else 0.0) + rng.normal(0, 0.002) + rng.normal(0, 0.01, 120)
        p = np.full((120, 3), 0.0)
        p[:] = ((1 - np.exp(-loss)) / 2)[:, None]
        p[np.arange(120), y] = np.exp(-loss)
        tables[run.title] = dict.fromkeys(("main.csv", "dev.csv"), Scored(ids, p, y, np.zeros(120), ties=True))
        means[run.title] = loss.mean()
    models = Models(recipe, cells, tables, {"smollm2-135m": False}, areas)
    contrasts, curve, drowned = compare(recipe, models, areas, usable, lambda names: 20.0)
    facts = {"name": "more", "file": "more.csv", "weight": 1, "soft": False, "labelled": 20, "learned": {0: 20}, "left_out": {}}
    report = WorthReport(
        question="?",
        data="main.csv",
        target="cpu",
        folds=(0,),
        seeds=(0, 1, 2),
        trainings=len(plain.runs),
        without_chance=(),
        sources=({**facts, "gpu_seconds": gpu_seconds},),
        contrasts=tuple(contrasts),
        curve=tuple(curve),
        drowned=tuple(drowned),
    )
    with_it = [means[cells.titles("smollm2-135m", whole(["more"]), (0,), seed)[0]] for seed in (0, 1, 2)]
    without = [means[cells.titles("smollm2-135m", MAIN, (0,), seed)[0]] for seed in (0, 1, 2)]
    return report, np.array(without) - np.array(with_it)


def test_gains_are_those_of_the_seeds_pairs_and_zero_is_not_told_from_zero() -> None:
    report, by_seed = made_report(0.1, gpu_seconds=1800)
    (held, away) = report.contrasts
    assert held.raw.mean == pytest.approx(by_seed.mean()) and held.raw.seeds == 3 and held.raw.told
    assert held.log_loss[0] - held.log_loss[1] == pytest.approx(held.raw.mean)
    line = leaderboard_table(report).records()[0]
    assert line["verdict"] == "gains" and line["gained_per_thousand_rows"] == pytest.approx(1000 * away.raw.mean / 20)
    assert line["gained_per_gpu_hour"] == pytest.approx(2 * away.raw.mean)
    nothing, _ = made_report(0.0)
    assert leaderboard_table(nothing).records()[0]["verdict"] == NOT_TOLD
    assert leaderboard_table(nothing).records()[0]["gained_per_gpu_hour"] is None, "nobody said what it cost"
    costs, _ = made_report(-0.1)
    assert leaderboard_table(costs).records()[0]["verdict"] == "costs"


def test_pages_and_figures_hold_every_comparison() -> None:
    report, _ = made_report(0.1)
    text = as_text(worth_page(report, ["worth.json"]))
    assert "more" in text and "95 %" in text and "worth.json" in text and "flattered by the choice" in text
    assert len(contrasts_table(report).rows) == len(report.contrasts)
    assert [axes.get_title(loc="left") for axes in worth_figure(report).axes] == ["main.csv, held out", "dev.csv, all"]
    assert len(curve_figure(report).axes) == 2
    assert as_text(leaderboard_table(report), Format.markdown).count("smollm2-135m") == 1


TOML = """
question = "Do rows of the same kind help?"
data = "main.csv"
folds = [0, 1]
seeds = [0, 1, 2]
also_on = ["dev.csv"]
rows = [20]
[held]
n_folds = 2
[[entries]]
entry = "lexical"
[[sources]]
name = "more"
file = "more.csv"
[[sources]]
name = "copy"
file = "copy.csv"
"""


@pytest.mark.slow
@pytest.mark.chain
@pytest.mark.timeout(600)
def test_a_run_that_is_killed_goes_on_and_a_finished_one_trains_nothing(data: Path, own_home: Path, tmp_path: Path) -> None:
    """On a CPU from files to the table: the first training survives a kill, a source of held-out prompts is told."""
    copied = pd.read_csv(data / "dev.csv", dtype=str)
    copied.assign(id="x" + copied["id"]).to_csv(data / "copy.csv", index=False)
    folder, store = tmp_path / "001-worth", own_home / "store"
    folder.mkdir()
    (folder / "recipe.toml").write_text(TOML)
    command = [sys.executable, "-m", "zoo", "data", "worth", str(folder), "--data-dir", str(data)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: list(store.glob("lexical-train-*/manifest.json")), "the first training", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first = {path: path.stat().st_mtime_ns for path in store.glob("lexical-train-*/manifest.json")}
    assert first
    said: list[str] = []
    results = own_home / "experiments" / "001-worth"
    report = measure_worth(folder, data, store, results=results, say=said.append)
    assert {path: path.stat().st_mtime_ns for path in first} == first, "what was trained is not trained again"
    assert any(f"{len(first)} of them in the store" in line for line in said)
    assert len([a for a in list_artifacts(store) if a.manifest.stage == "lexical-train"]) == report.trainings == 2 + 3
    (line,) = report.known_beforehand
    assert line.startswith("dev.csv: ") and line in said, "the main file has prompts of dev"
    assert [facts.empty for facts in report.sources] == ["", f"0 rows left of 60 labelled ones: 60 {OTHERS}"]
    assert {contrast.kind for contrast in report.contrasts} == {ALONE}, "there is one source to add"
    again: list[str] = []
    assert measure_worth(folder, data, store, results=results, say=again.append) == report
    assert any("5 trainings, 5 of them in the store, 0 to do" in line for line in again)
    assert not any("5 of 5" in line for line in again), "nothing ran"
    assert load_worth(folder).seeds == report.seeds


def test_a_file_that_is_not_there_is_named_with_its_key(data: Path, own_home: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(TOML)
    with pytest.raises(ZooError, match=r"sources: .*copy\.csv: no such file"):
        measure_worth(tmp_path, data, own_home / "store", results=own_home / "x", say=lambda _: None)
