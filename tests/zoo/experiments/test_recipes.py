"""Every committed recipe loads, and its entries and settings exist."""

from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from zoo.errors import ZooError
from zoo.experiments.recipes import load_recipe, recipe_entries, run_recipe
from zoo.experiments.worth import load_worth
from zoo.targets import load_target

RECIPES = sorted((ROOT / "experiments").rglob("recipe.toml"))


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.parent.name)
def test_committed_recipes_load(path: Path) -> None:
    if "[[sources]]" in path.read_text():  # of `zoo data worth`
        worth = load_worth(path.parent)
        assert worth.question and [entry.load() for entry in worth.entries] and load_target(worth.target)
    else:
        recipe = load_recipe(path.parent)
        assert recipe.question and recipe_entries(recipe) and load_target(recipe.target)
    assert (path.parent / "NOTES.md").exists()


def test_errors_name_the_key(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"recipe\.toml: no such file"):
        load_recipe(tmp_path)
    (tmp_path / "recipe.toml").write_text('question = "?"\ndata = "x.csv"\nfould = 1\n[[runs]]\nentry = "lexical"\n')
    with pytest.raises(ZooError, match="fould"):
        load_recipe(tmp_path)


def test_a_recipe_of_worth_is_sent_to_its_command(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('question = "?"\ndata = "x.csv"\nseeds = [0]\n[[sources]]\nname = "x"\n')
    with pytest.raises(ZooError, match=f"run `zoo data worth {tmp_path}`"):
        load_recipe(tmp_path)


@pytest.mark.chain
def test_a_recipe_runs_to_scores(tmp_path: Path, sample_csv: Path) -> None:
    (tmp_path / "recipe.toml").write_text(f'question = "?"\ndata = "{sample_csv.name}"\n[[runs]]\nentry = "lexical"\n')
    artifacts = run_recipe(tmp_path, sample_csv.parent, tmp_path / "store", say=lambda _: None)
    assert [a.manifest.stage for a in artifacts] == ["lexical-score"]
    assert (artifacts[0].path / "ab" / "scores.parquet").exists()
