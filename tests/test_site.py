"""The site of the documents: it builds without a warning, is whole, and asks nothing of other machines."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ensemble.cli import app as ensemble_app
from scripts.docs_site.build import render
from scripts.docs_site.commands import help_page
from scripts.docs_site.keys import contracts_of, keys
from scripts.docs_site.places import relinked, site_places
from tests.helpers.paths import ROOT
from zoo.cli.main import app as zoo_app
from zoo.contracts import Contract, Entry
from zoo.experiments.recipes import Recipe
from zoo.scores.metric_names import METRICS
from zoo.targets.load import Target

LOADED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}  # what a browser gets by itself


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "scripts.docs_site", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


class Page(HTMLParser):
    """What a page has the browser load, its anchors, and its links."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded, self.anchors, self.links = [], set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given.get("id", "")}
        if given.get("rel") not in ("canonical", "index", "search", "next", "prev"):
            self.loaded += [given[LOADED[tag]]] if LOADED.get(tag) in given else []
        self.links += [given["href"]] if tag == "a" and "href" in given else []


def test_pages_load_nothing_from_other_machines(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert sum(len(page.loaded) for page in pages.values()) > 5 * len(pages) > 200
    assert [(path.name, url) for path, page in pages.items() for url in page.loaded if re.match(r"(https?:)?//", url)] == []
    styles = [path for path in site.rglob("*.css") if re.search(r"(@import|url\()\s*['\"]?(https?:)?//", path.read_text())]
    assert styles == []


def test_every_link_within_the_site_has_its_page_and_anchor(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html")}
    wrong, checked = [], 0
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            to, _, anchor = link.partition("#")
            target = (path.parent / to).resolve() if to else path
            checked += 1
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors):
                wrong.append((path.relative_to(site).as_posix(), link))
    assert wrong == [] and checked > 1000


@pytest.mark.parametrize(
    ("text", "code"),
    [("[fine](other.md#a-heading)", 0), ("[gone](gone.md)", 1), ("[moved](other.md#no-heading)", 1), ("![none](none.svg)", 1)],
)
def test_a_link_that_leads_nowhere_stops_the_build(tmp_path: Path, text: str, code: int) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "docs" / "_static", source / "_static")
    shutil.copy(ROOT / "docs" / "conf.py", source)
    (source / "index.md").write_text(f"# Start\n\n{text}\n\n```{{toctree}}\nother\n```\n")
    (source / "other.md").write_text("# Other\n\n## A heading\n\nText.\n")
    assert render(source, tmp_path / "site", tmp_path / "read") == code


def test_every_command_key_and_metric_is_on_its_page(site: Path) -> None:
    for name, app, some in (("zoo", zoo_app, "zoo data validate"), ("ensemble", ensemble_app, "ensemble recalibrate")):
        commands = re.findall(r"^#+ `(.+)`$", help_page(app, name), re.MULTILINE)
        assert some in commands and len(commands) > 10
        assert {one.replace(" ", "-") for one in commands} <= Page(site / "reference" / f"{name}.html").anchors
    shown = (site / "reference" / "entry.html").read_text()
    assert all(key in shown for key in ("learning_rate", "float16_rescale_bits", "chunk_rows", "max_ladder_loss"))
    metrics = (site / "metrics.html").read_text()
    assert len(METRICS) > 50 and [name for name in METRICS if f">{name}<" not in metrics] == []


@pytest.mark.parametrize("contract", [Entry, Target, Recipe])
def test_every_key_that_people_write_has_a_meaning(contract: type[Contract]) -> None:
    cells = [line.split(" | ") for line in keys(contract).splitlines() if line.startswith("| `")]
    assert len(cells) > 10
    assert [cell[0] for cell in cells if len(cell) != 4 or cell[3].strip(" |") == ""] == []
    assert list(contracts_of(tuple[Entry, ...] | None)) == [Entry]


def test_links_between_files_become_links_between_pages() -> None:
    places = site_places()
    text = "[a](../docs/generate.md#how-fast), `benchmarks/forms.md`, `experiments/001-human-preferences`, [b](nowhere.md)\n"
    assert relinked(text, "benchmarks/made_data.md", places) == (
        "[a](../generate.md#how-fast), [`benchmarks/forms.md`](forms.md), "
        "[`experiments/001-human-preferences`](../experiments/001-human-preferences/NOTES.md), [b](nowhere.md)\n"
    )
    assert relinked("[data.md](data.md), ![b](overview.svg)", "docs/tables.md", places) == "[](data.md), ![b](overview.svg)"
    code = "```sh\nzoo experiment `experiments/001-human-preferences`\n```\n"
    assert relinked(code, "README.md", places) == code
