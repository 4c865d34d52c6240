"""The real UI in a real browser: the runs table opens on the members, three runs compare, a figure opens.

Needs Chromium (scripts/install_services.sh) and playwright (the `dev` extra). Screenshots go to the folder
`ZOO_SCREENSHOTS` where that is set.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.helpers.browser import browser_page
from tests.helpers.tracked import logged, scored, train_request
from zoo.data.battles import read_battles
from zoo.data.sample import write_sample
from zoo.entries.load import load_entry
from zoo.pipeline.import_table import import_scores
from zoo.store import read_manifest
from zoo.tracking.sync import log_stage
from zoo.tracking.view import COLUMNS


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """A page of a headless Chromium with nothing in its storage."""
    with browser_page() as page:
        yield page


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What `zoo ui` says of a store with two data sets, address by name; it is stopped as a person would stop it."""
    home = tmp_path_factory.mktemp("ui")
    battles = home / "battles.csv"
    write_sample(battles, rows=120, seed=3)
    frame, rng = read_battles(battles).frame, np.random.default_rng(0)
    truth = np.eye(3)[frame["label"].to_numpy()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name, sharpness in (("weak", 0.2), ("fair", 0.6), ("good", 1.0)):
            p = np.exp(truth * sharpness + rng.normal(size=truth.shape) / 2)
            table = pd.DataFrame(p / p.sum(axis=1, keepdims=True), columns=["p_a", "p_b", "p_tie"])
            table.insert(0, "id", frame["id"])
            table.to_csv(home / f"{name}.csv", index=False)
            price = {"target": "t4x2", "load_seconds": 5.0, "seconds_per_row": 0.1, "store": home / "store"}
            path = import_scores(name, home / f"{name}.csv", battles, **price).path
            assert log_stage(read_manifest(path), path)
        for rate, loss in RATES.items():  # three trainings that differ in one setting, each scored
            training = logged(home / "store", train_request(learning_rate=rate))
            table = scored(home / "store", model=training.fingerprint, loss=loss)
            for artifact in (training, table):
                assert log_stage(artifact.manifest, artifact.path, load_entry("smollm2-135m"))
        environment = {**os.environ, "ZOO_HOME": str(home)}
    command = [sys.executable, "-m", "zoo", "ui", "--port", "5150"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    assert "opening MLflow on the runs of" in next(lines), "at once"
    said = list(iter(lambda: next(lines).rstrip().partition("] ")[2], "Ctrl-C stops it; runs are kept"))
    places = dict(line.split(": ", 1) for line in said)
    yield places
    process.terminate()
    assert process.wait() == 0
    with pytest.raises(subprocess.CalledProcessError):  # the server went with it
        subprocess.run(["curl", "--silent", "--fail", places["MLflow"].partition("#")[0]], check=True)


def shoot(page: Any, name: str) -> None:
    """Keep a screenshot for people to look at, where they asked for it."""
    if folder := os.environ.get("ZOO_SCREENSHOTS"):
        page.wait_for_timeout(1500)  # animations
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def close_assistant(page: Any) -> None:
    """MLflow opens its assistant's panel once, over a quarter of the page."""
    panel = page.locator("[data-component-id='mlflow.assistant.chat_panel.close']")
    try:
        panel.first.click(timeout=5000)
    except Exception:
        return


@pytest.fixture(scope="module")
def address(addresses: dict[str, str]) -> str:
    """The page that `zoo ui` opens: that of the data that were scored last."""
    return addresses["MLflow"]


RATES = {0.0001: 1.05, 0.0003: 0.98, 0.001: 1.01}  # learning rate -> log loss


@pytest.mark.services
@pytest.mark.timeout(600)
def test_the_bare_address_leads_to_the_runs(page: Any, address: str) -> None:
    """Never to MLflow's own start page, which knows language-model applications alone."""
    page.goto(address.partition("#")[0])
    page.wait_for_selector(".ag-row")
    assert page.url == address or page.url.partition("?")[0] == address.partition("?")[0]


@pytest.mark.services
@pytest.mark.timeout(600)
def test_which_setting_helped_is_seen_in_the_browser(page: Any, addresses: dict[str, str]) -> None:
    """The view of settings has an axis of the one that differs, and Compare its values side by side."""
    (place,) = (url for name, url in addresses.items() if name.startswith("my_battles ") and "6 scored" in name)
    page.goto(place)
    page.wait_for_selector(".ag-row")
    close_assistant(page)
    names = [link.inner_text() for link in page.query_selector_all(".ag-row a") if "learning_rate=" in link.inner_text()]
    assert "learning_rate=0.0003" in names[0], "best first, told apart by name"
    shoot(page, "settings-runs")
    for row in (0, 1):
        page.locator(".ag-row input.ag-checkbox-input").nth(row).click()
    page.get_by_role("button", name="Compare").first.click()
    page.wait_for_function("location.hash.includes('compare-runs')")
    page.get_by_text("train.learning_rate", exact=True).first.wait_for()
    shown = page.inner_text("body")
    assert "0.0003" in shown and "0.001" in shown
    shoot(page, "settings-compare")
    page.goto(place.replace("viewStateShareKey=members", "viewStateShareKey=settings").replace("TABLE", "CHART"))
    page.get_by_text("train.learning_rate").first.wait_for()
    shoot(page, "settings-chart")


@pytest.mark.services
@pytest.mark.timeout(600)
def test_members_compare_in_the_browser(page: Any, address: str) -> None:
    outside: list[str] = []
    page.on("request", lambda r: None if r.url.startswith(("http://127.0.0.1", "data:", "blob:")) else outside.append(r.url))
    page.goto(address)
    page.wait_for_selector(".ag-row")
    close_assistant(page)
    page.wait_for_timeout(1000)

    cells = page.query_selector_all(".ag-header-cell")  # in the page in any order, their places in an attribute
    shown = [cell.inner_text() for cell in sorted(cells, key=lambda cell: int(cell.get_attribute("aria-colindex") or 0))]
    wanted = [column.partition("`")[2].rstrip("`") for column in COLUMNS]
    there = [name for name in shown if name in wanted]
    assert there[:2] == ["val/log_loss", "val/log_loss_se"] and "cost/hours_25k" in there, shown
    names = [link.inner_text() for link in page.query_selector_all(".ag-row a") if link.inner_text()]
    assert [name for name in names if name in ("good", "fair", "weak")] == ["good", "fair", "weak"], "best first"
    shoot(page, "runs")

    for row in range(3):
        page.locator(".ag-row input.ag-checkbox-input").nth(row).click()
    page.get_by_role("button", name="Compare").first.click()
    page.wait_for_function("location.hash.includes('compare-runs')")
    page.get_by_text("val/log_loss", exact=True).first.wait_for()
    assert all(page.get_by_text(name, exact=True).count() for name in ("good", "fair", "weak"))
    shoot(page, "compare")

    page.goto(address)
    page.locator(".ag-row a", has_text="good").first.click()
    page.wait_for_function("location.hash.match(/runs\\/[0-9a-f]{32}/)")
    page.goto(page.url.partition("?")[0].rstrip("/") + "/artifacts/figures/reliability.png")
    image = page.locator("img[src*='reliability.png'], img[src^='blob:']").first
    image.wait_for()
    page.wait_for_function("Array.from(document.images).some(i => i.naturalWidth > 400)")
    shoot(page, "figure")
    assert outside == [], "nothing leaves the machine"
