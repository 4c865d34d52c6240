"""Where a file of the repository lies on the site, and links between pages said anew for it.

Documents link to each other as files, which works wherever a repository is shown. On the site the folder `docs` is the top, and
what lies beside it that documents speak of has pages too: README, changelog, measurements, experiments.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = "README.md"
BESIDE_DOCS = (
    README,
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "benchmarks/*.md",
    "benchmarks/results/*.md",
    "benchmarks/results/*.png",
    "experiments/*/NOTES.md",
)
FOLDERS = {"docs/notebooks": "notebooks/01-first-plan.md", "experiments": "measured.md", "benchmarks": "measured.md"}
_CODE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[(?P<label>[^\[\]]*)\]\((?P<path>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")
_NAMED = re.compile(r"(?<![\[`])`(?P<path>(?:docs|benchmarks|experiments)/[\w./-]+)`(?![\]`])")


def site_places(root: Path = ROOT) -> dict[str, str]:
    """Where files lie on the site, by their path in the repository."""
    own = (path for path in (root / "docs").rglob("*") if path.suffix in (".md", ".svg", ".ipynb"))
    beside = (path for pattern in BESIDE_DOCS for path in root.glob(pattern))
    places = {path: path.removeprefix("docs/") for path in (one.relative_to(root).as_posix() for one in (*own, *beside))}
    pages = {path: place.replace(".ipynb", ".md") for path, place in places.items()}
    return pages | {README: "index.md"} | FOLDERS


def relinked(text: str, source: str, places: dict[str, str]) -> str:
    """A page's markdown with links that hold on the site; `source` is the page's path in the repository.

    Files that have a page and are only named, as in `benchmarks/forms.md`, become links. What leads nowhere stays as it is: the
    build then stops and names it.
    """
    here = posixpath.dirname(places[source])

    def towards(path: str) -> str | None:
        place = places.get(path) or places.get(f"{path}/NOTES.md")
        return None if place is None or place == places[source] else posixpath.relpath(place, here or ".")

    def link(found: re.Match[str]) -> str:
        target = towards(posixpath.normpath(posixpath.join(posixpath.dirname(source), found["path"])))
        label = "" if found["label"] == found["path"] and not found["anchor"] else found["label"]  # empty: the page's title
        return found[0] if target is None else f"[{label}]({target}{found['anchor'] or ''})"

    def named(found: re.Match[str]) -> str:
        target = towards(found["path"].rstrip("/"))
        return found[0] if target is None else f"[`{found['path']}`]({target})"

    parts = _CODE.split(text)  # every other part is code
    return "".join(part if place % 2 else _NAMED.sub(named, _LINK.sub(link, part)) for place, part in enumerate(parts))
