"""An environment of a few installed packages and what they need, and nothing else of what is installed here."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

from tests.helpers.paths import ROOT


def slim_environment(folder: Path, packages: Sequence[str]) -> dict[str, str]:
    """Environment variables for `run_slim`: links to the packages and to what they require lie in `folder`."""
    for name in _with_requirements(packages):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).is_symlink():
                (folder / top).symlink_to(str(distribution.locate_file(top)))
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]), "PYTHONNOUSERSITE": "1"}


def run_slim(environment: dict[str, str], *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Python without its own site-packages."""
    command = [sys.executable, "-S", *arguments]
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
