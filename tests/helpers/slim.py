"""An environment of a few installed packages and what they need, and nothing else of what is installed here."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

from tests.helpers.paths import ROOT


def slim_environment(folder: Path, packages: Sequence[str]) -> dict[str, str]:
    """Environment variables for `run_slim`: a virtual environment with links to the packages and to what they require.

    Processes that it starts have no other interpreter, and so no more packages than it.
    """
    venv.create(folder, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    for name in _with_requirements(packages):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (site / top).is_symlink():
                (site / top).symlink_to(str(distribution.locate_file(top)))
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONNOUSERSITE": "1", "VIRTUAL_ENV": str(folder)}


def run_slim(environment: dict[str, str], *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Python of that environment alone."""
    command = [str(Path(environment["VIRTUAL_ENV"]) / "bin" / "python"), *arguments]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)


def _with_requirements(packages: Sequence[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(packages)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        found.add(name)
        for text in importlib.metadata.requires(name) or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                waiting.append(needed.name)
    return found
