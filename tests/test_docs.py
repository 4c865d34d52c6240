"""The documents say what is there: every file, every function they name, every command."""

from __future__ import annotations

import ast
import itertools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from ensemble.cli import app as ensemble_app
from scripts import file_tree
from tests.helpers.paths import ROOT
from zoo.cli.main import app as zoo_app
from zoo.contracts import TrainSpec
from zoo.experiments.recipes import Recipe

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = sorted(path for package in ("zoo", "ensemble", "preference_zoo") for path in (ROOT / package).rglob("*.py"))
LONGEST = 90
FILLERS = {"a", "an", "and", "are", "is", "it", "its", "of", "the", "they"}


def test_the_architecture_page_has_the_modules_and_layers_of_today() -> None:
    page = file_tree.PAGE.read_text()
    assert file_tree.written(page) == page, "run `python scripts/file_tree.py --write`"
    assert len(re.findall(r"^(?:zoo|ensemble)/\S*/ ", page, re.MULTILINE)) >= 25


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_functions_that_a_page_names_exist(page: Path) -> None:
    folders = "zoo|ensemble|scripts|tests|docs|benchmarks|experiments"
    named = re.findall(rf"`((?:{folders})/[\w./-]+)(?::([\w.]+))?`", page.read_text())
    for path, name in named:
        if "NAME" in path or "NNN" in path:
            continue
        assert (ROOT / path).exists(), f"{page.name} names {path}"
        if name:
            assert name in _names(ROOT / path), f"{page.name} names {path}:{name}"
    if page.name == "architecture.md":
        assert sum(bool(name) for _, name in named) >= 30


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_readme_is_short_and_its_make_targets_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) < 150
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", "\n".join(page.read_text() for page in PAGES), re.MULTILINE))
    assert {"demo", "test"} <= targets
    assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_headings_are_one_short_sentence() -> None:
    """The first line of a docstring is what the file tree, the help and a reader in a hurry see."""
    found = [(path, *heading) for path in MODULES for heading in _headings(ast.parse(path.read_text()), "")]
    assert len(found) > 1000
    wrong = [f"{path.relative_to(ROOT)} {name}: {line}" for path, name, line in found if not _is_heading(line)]
    assert wrong == [], f"at most {LONGEST} characters, ending in a full stop"


def test_no_docstring_says_a_thing_twice() -> None:
    """The sentence after the heading goes on from it: one whose words are all in the sentence before says nothing."""
    found = [(path, ast.get_docstring(node) or "") for path in MODULES for node in _documented(path)]
    assert len(found) > 1000
    assert [f"{path.relative_to(ROOT)}: {doc[:LONGEST]}" for path, doc in found if _repeats(doc)] == []


@pytest.mark.parametrize(
    ("doc", "repeats"),
    [
        ("The plan's page: one HTML file.\n\nMembers, schedule and frontier.\nMembers, schedule and frontier.", True),
        ("Log loss of blends, by folds grouped by prompt.\n\nFolds are grouped by prompt.", True),
        ("Weights that minimise -log(w p).\n\nThey are exact: see the certificate.", False),
        ("The newest finished fetch.", False),
    ],
)
def test_what_counts_as_saying_a_thing_twice(doc: str, repeats: bool) -> None:
    assert _repeats(doc) == repeats


def _documented(path: Path) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef]:
    return (
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    )


def _repeats(doc: str) -> bool:
    """Whether the second or third sentence has no word of its own beside the one before it."""
    sentences = [set(re.findall(r"\w+", sentence.lower())) - FILLERS for sentence in re.split(r"\.\s+", doc)[:4]]
    return any(len(after) > 0 and after <= before for before, after in itertools.pairwise(sentences))


def _is_heading(line: str) -> bool:
    return len(line) <= LONGEST and line.endswith(".")


def _headings(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """First docstring line of a module, its public classes, and their public functions."""
    assert isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    doc = ast.get_docstring(node)
    if doc or isinstance(node, ast.Module):
        yield name or "module", (doc or "").partition("\n")[0]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield from _headings(child, f"{name}.{child.name}".lstrip("."))


def _names(path: Path) -> set[str]:
    """What a module defines: functions, classes, their methods as `Class.method`, and constants."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{child.name}" for child in node.body if isinstance(child, ast.FunctionDef)}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


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
