"""Names that nothing defines: found in every scope, and no name that Python would find is among them."""

import ast
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from zoo.bundle.undefined import undefined_names


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("x = 1\nprint(x)", []),
        ("print(y)", ["y"]),
        ("def f(a, *b, c=1, **d):\n return a, b, c, d, e", ["e"]),
        ("def f():\n return later\nlater = 1", []),
        ("[q for q in range(3) if q]", []),
        ("lambda z: z + w", ["w"]),
        ("import os.path as p, sys\np, sys", []),
        ("import os.path\nos", []),
        ("try:\n pass\nexcept OSError as error:\n print(error, other)", ["other"]),
        ("class A:\n b = 1\n def f(self):\n  return self, c", ["c"]),
        ("with open('x') as f, g as h:\n f, h", ["g"]),
        ("match v:\n case {'a': x, **rest}: x, rest\n case [*y]: y", ["v"]),
        ("if (n := 3):\n n", []),
        ("def f():\n x = 1\nprint(x)", ["x"]),
        ("@decorator\ndef f(x=default): pass", ["decorator", "default"]),
        ("def f(x: Kind) -> Result: pass", ["Kind", "Result"]),
        ("global a\na = 1\na", []),
        ("def f():\n global made\n made = 1\nmade", []),
    ],
)
def test_names(source: str, missing: list[str]) -> None:
    assert sorted(undefined_names([source])) == sorted(missing)


def test_later_pieces_see_earlier_ones() -> None:
    assert undefined_names(["a = 1", "print(a, b)", "b = 2"]) == ["b"]


def test_no_python() -> None:
    with pytest.raises(SyntaxError):
        undefined_names(["def"])


@pytest.mark.parametrize("path", sorted((ROOT / "zoo").rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_this_package_reads_no_undefined_name(path: Path) -> None:
    """ruff says so of it, too; here it says that the check invents nothing."""
    source = path.read_text()
    ast.parse(source)
    assert undefined_names([source]) == []
