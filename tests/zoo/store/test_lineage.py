"""Lineage: what the folds of one recipe share, and what files were made from."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from typer.testing import CliRunner

from tests.helpers.made import make_labels
from tests.helpers.manifests import finished
from zoo.cli.main import app
from zoo.contracts import Entry, Held, Selection
from zoo.data.battles import dataset_digest, read_battles
from zoo.entries.load import load_entry, override
from zoo.pipeline.chain import battles_input
from zoo.pipeline.folds import average_chain, fold_chains
from zoo.pipeline.lineage import lineage_of_made_file
from zoo.store import (
    file_sha256,
    find,
    find_garbage,
    lineage,
    lineage_of_file,
    list_artifacts,
    made_files,
    recipe_of,
    users_of_files,
)


def recipes(entry: Entry, csv: Path, store: Path, held: Held = Held(n_folds=2)) -> list[str]:
    """The recipe of each fold's scores, and of a checkpoint that is the mean of the folds."""
    chains = fold_chains(entry, battles_input(csv), "cpu", store, held=held, selection=Selection(), source="hub")
    made = []
    for requests in (*chains, average_chain(chains, store)):
        artifacts = [find(store, request) or finished(store, request) for request in requests]
        made.append(recipe_of(artifacts[-1].manifest, artifacts[-1].path))
    return made


def test_folds_of_an_entry_are_one_recipe_and_their_mean_is_another(sample_csv: Path, tmp_path: Path) -> None:
    entry = load_entry("smollm2-135m")
    first, second, mean = recipes(entry, sample_csv, tmp_path)
    assert first and first == second and mean not in ("", first)
    assert recipes(override(entry, ["train.seed=1"]), sample_csv, tmp_path)[0] != first


def test_folds_of_another_number_or_rule_are_another_recipe(sample_csv: Path, tmp_path: Path) -> None:
    """Their held-out rows overlap: joined, rows would stand in a table twice."""
    entry = load_entry("smollm2-135m")
    splits = [Held(n_folds=2), Held(n_folds=3), Held(n_folds=2, rule="near-prompts-1")]
    assert len({recipes(entry, sample_csv, tmp_path, held)[0] for held in splits}) == 3


def test_files_that_left_the_store_are_followed_by_content(tmp_path: Path, own_home: Path) -> None:
    """Wherever a file lies now, and whatever its name; a file given from within the store too."""
    labelled, store = make_labels(tmp_path), own_home / "store"
    moved = labelled.rename(tmp_path / "elsewhere.csv.gz")
    (label,), (mine,) = list_artifacts(store, "label"), list_artifacts(store, "mine")
    given = lineage_of_file(store, moved, file_sha256(moved)[:16])
    assert [made.name for made in made_files(given)] == [label.path.name, mine.path.name]
    inside = mine.path / "pairs.parquet"
    assert [made.name for made in lineage_of_file(store, inside, file_sha256(inside)[:16]).made_by] == [mine.path.name]
    assert {each.what: each.file for each in lineage(store, mine).given} == {"logs": "log.jsonl", "never": "never.csv"}
    battles = dataset_digest(read_battles(moved))
    assert [made.name for made in lineage_of_file(store, moved, battles).made_by] == [label.path.name], "as scoring knows it"


def test_a_copy_in_another_format_is_followed_and_one_with_other_votes_is_not(tmp_path: Path, own_home: Path) -> None:
    """Else a report would vouch for labels that no judge and no map gave."""
    labelled, store = make_labels(tmp_path), own_home / "store"
    (label,) = list_artifacts(store, "label")
    frame = pd.read_csv(labelled, dtype=str)
    frame[::-1].to_csv(tmp_path / "copy.csv", index=False)
    frame.assign(votes_a=frame["votes_b"], votes_b=frame["votes_a"]).to_csv(tmp_path / "swapped.csv", index=False)
    pd.read_csv(labelled).astype({"id": str}).to_parquet(tmp_path / "copy.parquet")
    for name, makers in (("copy.csv", [label.path.name]), ("copy.parquet", [label.path.name]), ("swapped.csv", [])):
        assert [made.name for made in lineage_of_made_file(store, tmp_path / name).made_by] == makers, name


def test_a_removed_artifact_stays_in_the_lineage_of_what_was_made_from_its_files(tmp_path: Path, own_home: Path) -> None:
    make_labels(tmp_path)
    store = own_home / "store"
    (label,), (mine,) = list_artifacts(store, "label"), list_artifacts(store, "mine")
    assert users_of_files(store, [mine.path]) == {mine.path.name: [label.path.name]}
    assert users_of_files(store, [mine.path, label.path]) == {}
    told = CliRunner().invoke(app, ["rm", mine.path.name, "--yes"])
    assert told.exit_code == 0 and f"{label.path.name} was made from a file of it" in told.stderr
    (given,) = [each for each in lineage(store, label).given if each.what == "pairs"]
    assert [(made.name, made.artifact) for made in given.made_by] == [(mine.path.name, None)]
    assert {each.what for each in given.made_by[0].given} == {"logs", "never"}
    assert not [item for item in find_garbage(own_home, days=0) if ".written" in str(item.path)]
    assert "removed; its note is left" in CliRunner().invoke(app, ["lineage", label.path.name]).stdout
