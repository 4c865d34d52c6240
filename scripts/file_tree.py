"""The README's file tree, from the modules' own docstrings: `python scripts/file_tree.py --write` puts it into README.md."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = {"zoo": "zoo/", "zoo/stages": "zoo/stages/", "ensemble": "ensemble/"}
OTHER = {
    "zoo/entries/": "one TOML file a model",
    "zoo/targets/": "one TOML file a target machine",
    "docs/": "guides: a new model (its commands are tested), training, quantization",
    "experiments/": "what was asked, with which recipe, and what came out: NNN-slug/recipe.toml and NOTES.md",
    "benchmarks/": "scripts that made figures, and the figures with machine and date",
    "scripts/": "install, services for tests, demo, this tree",
    "tests/": "behaviour: invariants, oracles, kills; test_chain.py runs the real chain on a tiny model",
    "mlruns/": "what machines write, not in git: store/, mlflow.db, artifacts/",
}
BEGIN, END = "<!-- files -->\n", "<!-- /files -->"


def tree() -> str:
    """Every module with the first sentence of its docstring, folder by folder."""
    lines = ["```"]
    for folder, label in FOLDERS.items():
        lines.append(label)
        for path in sorted((ROOT / folder).glob("*.py")):
            doc = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].replace("\n", " ")
            if path.name != "__init__.py":
                lines.append(f"  {path.name:<20} {doc.split('. ')[0].rstrip('.')}")
    lines += [f"{name:<22} {text}" for name, text in OTHER.items()]
    return "\n".join([*lines, "```"]) + "\n"


def with_tree(readme: str) -> str:
    """The README with the tree between its marks."""
    head, rest = readme.split(BEGIN)
    return head + BEGIN + tree() + END + rest.split(END)[1]


if __name__ == "__main__":
    path = ROOT / "README.md"
    if "--write" in sys.argv:
        path.write_text(with_tree(path.read_text()))
    else:
        print(tree(), end="")
