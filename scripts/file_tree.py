"""The file tree and layers of docs/architecture.md: `python scripts/file_tree.py --write` puts them there.

The tree comes from the first lines of the modules' docstrings, the layers from import-linter's contracts in pyproject.toml.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
DATA = {  # beside the modules of a package
    "zoo/cost": ("published_runs.toml", "run times that others published, with their sources"),
    "zoo/entries": ("*.toml", "one file a model"),
    "zoo/targets": ("*.toml", "one file a target machine: GPUs, memory, dtypes, rates"),
}
OTHER = {
    "docs/": "concepts, guides, questions, this page; notebooks/; conf.py of the site that `make docs` makes",
    "experiments/": "what was asked, with which recipe, and what came out: NNN-slug/recipe.toml and NOTES.md",
    "benchmarks/": "scripts that made figures, and the figures with machine and date",
    "scripts/": "install, services for tests, demo, this page's tree, the notebooks run, docs_site/, release",
    "tests/": "the same tree as the packages, and tests/helpers/ for what they share",
    "mlruns/": "what machines write, not in git: store/, mlflow.db, artifacts/",
}
WIDTH = 26


def head(path: Path) -> str:
    """First line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0].rstrip(".")


def tree(root: Path = ROOT) -> str:
    """Every package with its line, and its modules with theirs."""
    lines = []
    for package in [
        path.parent for name in ("zoo", "ensemble", "preference_zoo") for path in sorted((root / name).rglob("__init__.py"))
    ]:
        name = package.relative_to(root).as_posix()
        lines.append(f"{name + '/':<{WIDTH}} {head(package / '__init__.py')}")
        inside = [(path.name, head(path)) for path in sorted(package.glob("*.py")) if path.name != "__init__.py"]
        inside += [DATA[name]] if name in DATA else []
        lines += [f"  {file:<{WIDTH - 2}} {text}" for file, text in inside]
    lines += [f"{name:<{WIDTH}} {text}" for name, text in OTHER.items()]
    return "\n".join(["```", *lines, "```"]) + "\n"


def layers(root: Path = ROOT) -> str:
    """The contracts that `lint-imports` enforces: the layers of each package, then every other contract's name."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    ordered = [contract for contract in contracts if contract["type"] == "layers"]
    lines = [f"- {contract['name']}: " + " → ".join(f"`{layer}`" for layer in contract["layers"]) for contract in ordered]
    return "\n".join([*lines, *(f"- {contract['name']}" for contract in contracts if contract not in ordered)]) + "\n"


def between(page: str, mark: str, text: str) -> str:
    """The page with `text` between its marks `<!-- MARK -->` and `<!-- /MARK -->`."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
    before, rest = page.split(begin)
    return before + begin + text + end + rest.split(end)[1]


def written(page: str) -> str:
    """The page with the tree and the layers of today."""
    return between(between(page, "files", tree()), "layers", layers())


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(written(PAGE.read_text()))
    else:
        print(tree(), layers(), sep="\n", end="")
