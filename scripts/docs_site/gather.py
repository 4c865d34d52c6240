"""Gather the site's pages into a folder: documents with links for the site, notebooks, and pages made from code."""

from __future__ import annotations

import shutil
from pathlib import Path

from scripts.docs_site import api, commands, keys
from scripts.docs_site.contents import MEASURED_SECTIONS, measured_page, tables_of_contents
from scripts.docs_site.notebooks import notebook_page
from scripts.docs_site.places import FOLDERS, README, ROOT, relinked, site_places

MADE = {
    "reference/zoo.md": commands.zoo_page,
    "reference/ensemble.md": commands.ensemble_page,
    "reference/api.md": api.api_page,
    "reference/entry.md": keys.entry_page,
    "reference/target.md": keys.target_page,
    "reference/recipe.md": keys.recipe_page,
}


def gather(folder: Path) -> None:
    """Fill an empty folder with all that Sphinx reads, `conf.py` among it."""
    places = site_places()
    for path, place in places.items():
        if path in FOLDERS:
            continue
        source, target = ROOT / path, folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".ipynb":
            target.write_text(notebook_page(source))
            shutil.copy(source, target.with_suffix(".ipynb"))
        elif source.suffix == ".md":
            contents = "\n" + tables_of_contents() if path == README else ""
            target.write_text(relinked(source.read_text(), path, places) + contents)
        else:
            shutil.copy(source, target)
    for place, make in MADE.items():
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_text(make())
    found = {title: sorted(_page(one) for one in ROOT.glob(pattern)) for title, pattern in MEASURED_SECTIONS.items()}
    (folder / "measured.md").write_text(measured_page(found))
    shutil.copy(ROOT / "docs" / "conf.py", folder)
    shutil.copytree(ROOT / "docs" / "_static", folder / "_static")


def _page(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix()
