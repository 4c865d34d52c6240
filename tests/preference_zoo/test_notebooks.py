"""The notebooks of docs/notebooks run as they stand, and what is kept of their outputs is small and of no machine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest

from scripts.notebooks import NOTEBOOKS, cleaned, run_notebook

PAGES = sorted(NOTEBOOKS.glob("*.ipynb"))
MOST_BYTES = 400_000


def run(name: str, folder: Path) -> list:
    notebook = cleaned(run_notebook(NOTEBOOKS / f"{name}.ipynb", folder))
    kept = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    return list(zip(notebook.cells, kept.cells, strict=True))


def kinds(cell: nbformat.NotebookNode) -> list[tuple[str, ...]]:
    """What a cell shows: kinds of outputs with their forms."""
    return [(output.output_type, *sorted(output.get("data", {}))) for output in cell.get("outputs", [])]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_what_is_kept_is_whole_small_and_says_nothing_of_a_machine(path: Path) -> None:
    text = path.read_text()
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run from the top to the end"
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    assert sum(bool(cell.outputs) for cell in code) >= len(code) / 2
    assert len(text) < MOST_BYTES
    assert re.findall(r"/(?:home|root|tmp|work|Users)/", text) == []
    assert json.loads(text)["metadata"].keys() == {"kernelspec"}


def test_there_are_three() -> None:
    assert [path.stem for path in PAGES] == ["01-first-plan", "02-train-and-compare", "03-competition-day"]


def test_the_first_plan(tmp_path: Path) -> None:
    cells = run("01-first-plan", tmp_path)
    assert [kinds(ran) for ran, _ in cells] == [kinds(kept) for _, kept in cells]
    assert not (tmp_path / "mlruns" / "store").exists(), "no store is needed"


@pytest.mark.chain
@pytest.mark.timeout(900)
def test_train_and_compare(tmp_path: Path) -> None:
    cells = run("02-train-and-compare", tmp_path)
    assert [kinds(ran) for ran, _ in cells] == [kinds(kept) for _, kept in cells]
    assert "tiny@ab" in str(cells[-2][0]) and "lexical@ab" in str(cells[-2][0])


@pytest.mark.chain
@pytest.mark.timeout(900)
def test_competition_day(tmp_path: Path) -> None:
    run("03-competition-day", tmp_path)
    assert (tmp_path / "bundle" / "job" / "bundle.json").exists() and (tmp_path / "submission.csv").exists()
