"""Guides whose shell commands are run as they stand: a page of Markdown becomes one script in a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.helpers.paths import ROOT


def commands(page: Path, fewest: int = 5) -> str:
    """The page's shell blocks, one after the other; `fewest`: how many there must be."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) >= fewest, page
    return "\n".join(blocks)


def checkout(folder: Path) -> None:
    """What a reader has after `make setup`: `make` of this checkout, and an environment with its programs.

    `make` says what it would do and does nothing: installing is not what a guide is tested for.
    """
    bin_folder = folder / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    for name in ("zoo", "ensemble"):
        _program(bin_folder / name, f'exec {sys.executable} -m {name} "$@"')
    (bin_folder / "activate").write_text(f'PATH="{bin_folder}:$PATH"\n')
    (folder / "make").mkdir()
    _program(folder / "make" / "make", f'exec /usr/bin/env -u MAKEFLAGS PATH="{os.environ["PATH"]}" make -n -C "{ROOT}" "$@"')


def _program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def run(script: str, folder: Path, **variables: str) -> str:
    """Run a script in a folder that `checkout` has prepared, and stop at the first command that fails; its output."""
    search = [folder / "make", os.environ["PATH"]]
    if ".venv/bin/activate" not in script:
        search.insert(0, folder / ".venv" / "bin")
    environment = {**os.environ, **variables, "PATH": ":".join(map(str, search))}
    environment["PYTHONPATH"] = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(["bash", "-eux"], input=script, cwd=folder, env=environment, capture_output=True, text=True)
    print(done.stdout, done.stderr, sep="\n")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout
