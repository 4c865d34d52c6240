"""This package's own wheel, made of the source tree that it runs from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from zoo.errors import ZooError
from zoo.store import write_atomic

ROOT = Path(__file__).parents[2]
SOURCES = ("zoo", "ensemble", "preference_zoo", "pyproject.toml", "README.md", "LICENSE")
SAME_TIME = "1577836800"  # 1 Jan 2020: files in the wheel get this time, so that the same source makes the same wheel


def make_wheel(folder: Path) -> Path:
    """Put the wheel of this tree's package into a folder.

    The tree stays as it is: it is copied before it is built. ZooError where the package is installed without its source.
    """
    if not (ROOT / "pyproject.toml").exists():
        raise ZooError(f"{ROOT} has no pyproject.toml: a bundle brings this package's wheel; install it from a checkout")
    with tempfile.TemporaryDirectory() as scratch:
        source, made = Path(scratch) / "source", Path(scratch) / "made"
        source.mkdir()
        for name in SOURCES:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
            else:
                shutil.copy(ROOT / name, source / name)
        command = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(made),
            str(source),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "SOURCE_DATE_EPOCH": SAME_TIME}, check=False
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ZooError(f"this package's wheel cannot be made: {last}; pip install 'setuptools>=77' pip", exit_code=1)
        (wheel,) = made.glob("*.whl")
        target = folder / wheel.name
        write_atomic(target, wheel.read_bytes())
    return target
