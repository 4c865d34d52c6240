"""The README says what is there: every file, every command."""

import importlib.util
import re
import tomllib

import pytest
import typer.main

from ensemble.cli import app as ensemble_app
from tests.helpers.paths import ROOT
from zoo.cli.main import app as zoo_app
from zoo.contracts import TrainSpec
from zoo.experiments.recipes import Recipe


def test_the_file_tree_is_that_of_the_modules() -> None:
    spec = importlib.util.spec_from_file_location("file_tree", ROOT / "scripts" / "file_tree.py")
    assert spec and spec.loader
    file_tree = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(file_tree)
    readme = (ROOT / "README.md").read_text()
    assert file_tree.with_tree(readme) == readme, "run `python scripts/file_tree.py --write`"


@pytest.mark.parametrize("app", [zoo_app, ensemble_app])
def test_every_command_has_help(app: typer.Typer) -> None:
    group = typer.main.get_command(app)
    commands = group.commands  # type: ignore[attr-defined]
    assert len(commands) >= 4
    for name, command in commands.items():
        assert (command.help or "").strip(), name
        assert [p.name for p in command.params if not getattr(p, "help", None)] == [], name


def test_settings_in_the_training_guide_are_settings() -> None:
    """Every TOML block is read: a setting that is renamed must be renamed there."""
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "training.md").read_text(), re.DOTALL)
    assert len(blocks) >= 5
    for block in map(tomllib.loads, blocks):
        if "question" in block:
            assert Recipe.model_validate(block).until == "train"
        else:
            TrainSpec.model_validate(block["train"])
