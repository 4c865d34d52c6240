"""Build the site of the documents: `python -m scripts.docs_site site`. A warning, such as of a link, stops it."""

from __future__ import annotations

import sys
from pathlib import Path

from scripts.docs_site.build import build

if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    if code := build(Path(sys.argv[1])):
        raise SystemExit(code)
    print(f"{sys.argv[1]}/index.html")
