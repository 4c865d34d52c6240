"""The notebooks of docs/notebooks, run: `python scripts/notebooks.py --write [NAME ...]` keeps their outputs in the files.

Each runs in an empty folder with a home of its own. What is kept is small and says nothing of this machine: bars go.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "docs" / "notebooks"
LONGEST_SECONDS = 1800  # of a cell


def run_notebook(path: Path, folder: Path) -> Any:
    """Run a notebook in a folder; the notebook with its outputs. CellExecutionError for a cell that fails."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=LONGEST_SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    usual = {name: value for name, value in os.environ.items() if name not in ("ZOO_HOME", "ZOO_ENTRIES")}
    usual["PYTHONPATH"] = f"{ROOT}:{usual.get('PYTHONPATH', '')}".rstrip(":")
    usual["PATH"] = f"{Path(sys.executable).parent}:{usual['PATH']}"  # `!zoo` is that of this interpreter
    client.execute(env=usual)
    return notebook


def cleaned(notebook: Any) -> Any:
    """The notebook without what differs from run to run and says nothing: bars, times of cells, versions of the kernel."""
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    )
    for place, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{place}", nbformat.from_dict({})
        if cell.cell_type != "code":
            continue
        joined: list[Any] = []
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                continue
            if output.output_type == "stream" and joined and joined[-1].output_type == "stream":
                joined[-1].text += output.text
            else:
                joined.append(output)
            output.pop("metadata", None) if output.output_type == "stream" else None
        cell.outputs = joined
    return notebook


def main(names: list[str]) -> None:
    """Run the notebooks that are named, or all, and keep their outputs."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if names and path.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            notebook = cleaned(run_notebook(path, Path(folder)))
        text = nbformat.writes(notebook)
        if folder in text or str(ROOT) in text:
            raise SystemExit(f"{path.name}: an output has a place of this machine")
        path.write_text(text + "\n")
        print(path.name, f"{len(text):,} characters")


if __name__ == "__main__":
    if "--write" not in sys.argv:
        raise SystemExit(__doc__)
    main([name for name in sys.argv[1:] if name != "--write"])
