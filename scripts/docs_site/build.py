"""Build the site with Sphinx; a warning stops it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sphinx.cmd.build import main as run_sphinx

from scripts.docs_site.gather import gather


def build(target: Path) -> int:
    """Gather the pages and make them into a folder; 0, or Sphinx's exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        source.mkdir()
        gather(source)
        return render(source, target, Path(scratch) / "read")


def render(source: Path, target: Path, read: Path) -> int:
    """Make pages of a folder of markdown with a conf.py; what Sphinx has read goes into `read`."""
    strict = ["--fail-on-warning", "--keep-going", "--quiet"]
    return run_sphinx(["-b", "html", *strict, "-d", str(read), str(source), str(target)])
