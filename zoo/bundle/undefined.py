"""Names that Python code reads and nothing defines, which `compile` does not find."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence


def undefined_names(sources: Sequence[str]) -> list[str]:
    """Names that pieces of Python, run one after the other, read before they are defined.

    By scopes of functions, without following control flow: what is defined anywhere before counts. SyntaxError where a piece is
    no Python.
    """
    known = set(dir(builtins)) | {"__file__", "__name__", "__doc__", "__builtins__"}
    missing: list[str] = []
    for source in sources:
        tree = ast.parse(source)
        known |= _bound(tree) | {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}
        missing += [name for name in _read_in(tree, known) if name not in missing]
    return missing


def _read_in(scope: ast.AST, known: set[str]) -> list[str]:
    """Names read in a scope and the scopes in it that none of them binds."""
    found: list[str] = []
    waiting: list[ast.AST] = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            found += _read_in(node, known | _bound(node))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in known:
            found.append(node.id)
        else:
            waiting += ast.iter_child_nodes(node)
    return found


def _bound(scope: ast.AST) -> set[str]:
    """Names that a scope binds: arguments, assignments, imports, definitions, exceptions; not those of functions in it."""
    names: set[str] = set()
    waiting: list[ast.AST] = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop()
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
                continue
            case ast.Lambda():
                continue
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
                names.add(name)
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                names.add(name)
            case ast.alias(name=name, asname=other):
                names.add(other or name.partition(".")[0])
        waiting += ast.iter_child_nodes(node)
    return names
