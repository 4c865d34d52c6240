"""Lineage: what the folds of one recipe share."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.manifests import finished
from zoo.contracts import Entry, Held, Selection
from zoo.entries.load import load_entry, override
from zoo.pipeline.chain import battles_input
from zoo.pipeline.folds import average_chain, fold_chains
from zoo.store import find, recipe_of


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
