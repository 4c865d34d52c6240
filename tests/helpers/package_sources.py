"""A package's Python sources, read from its wheel or its folder and never imported."""

from __future__ import annotations

import ast
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path


class Sources:
    """Modules by path below the package's root, such as `vllm/config/model.py`."""

    def __init__(self, place: Path) -> None:
        self._wheel = zipfile.ZipFile(place) if place.is_file() else None
        self._folder = place
        self._names = frozenset(self._wheel.namelist()) if self._wheel else None
        self.tree = cache(self._parsed)

    def has(self, path: str) -> bool:
        return path in self._names if self._names is not None else (self._folder / path).is_file()

    def text(self, path: str) -> str:
        return (self._wheel.read(path) if self._wheel else (self._folder / path).read_bytes()).decode()

    def _parsed(self, path: str) -> ast.Module:
        return ast.parse(self.text(path))

    def module_path(self, dotted: str) -> str | None:
        """The file of a module by its dotted name, None where there is none."""
        stem = dotted.replace(".", "/")
        return next((path for path in (f"{stem}.py", f"{stem}/__init__.py") if self.has(path)), None)

    def offers(self, dotted: str, name: str) -> bool:
        """Whether `from dotted import name` would find it: a submodule, or a name that the module binds anywhere."""
        if self.module_path(f"{dotted}.{name}"):
            return True
        path = self.module_path(dotted)
        return path is not None and name in set(_bound(self.tree(path)))

    def definition(self, path: str, name: str) -> ast.ClassDef | ast.FunctionDef:
        """A class or function by its name, or `Class.method`."""
        found: ast.AST = self.tree(path)
        for part in name.split("."):
            inside = ast.walk(found)
            found = next(n for n in inside if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == part)
        assert isinstance(found, ast.ClassDef | ast.FunctionDef)
        return found

    def source(self, path: str, name: str) -> str:
        found = ast.get_source_segment(self.text(path), self.definition(path, name))
        assert found is not None
        return found

    def fields(self, path: str, name: str) -> set[str]:
        """Annotated fields of a class."""
        body = self.definition(path, name).body
        return {n.target.id for n in body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}

    def constant(self, path: str, name: str) -> object:
        """The literal that a module assigns to a name; of a mapping or list, strings and numbers in it."""
        for node in ast.walk(self.tree(path)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
            if any(isinstance(t, ast.Name) and t.id == name for t in targets) and node.value is not None:
                return ast.literal_eval(node.value)
        raise AssertionError(f"{path} assigns no {name}")


def _bound(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Dict):  # lazily imported names, `MODULE_ATTRS` of vllm/__init__.py
            yield from (key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str))


def imports_of(path: Path, package: str) -> Iterator[tuple[str, str]]:
    """(module, name) of every `from package... import name` in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package:
            yield from ((node.module, alias.name) for alias in node.names)
