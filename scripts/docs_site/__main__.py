"""Build the site of the documents: `python -m scripts.docs_site site`. A warning, such as of a link, stops it."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from sphinx.cmd.build import main as run_sphinx

from scripts.docs_site.gather import gather


def build(target: Path) -> int:
    """Gather the pages and build them into a folder; Sphinx's exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        source.mkdir()
        gather(source)
        strict = ["--fail-on-warning", "--keep-going", "--quiet"]
        return run_sphinx(["-b", "html", *strict, "-d", f"{scratch}/read", str(source), str(target)])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    if code := build(Path(sys.argv[1])):
        raise SystemExit(code)
    print(f"{sys.argv[1]}/index.html")
