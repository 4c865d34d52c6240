"""A page of a headless Chromium, for tests of what people look at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
WAIT_MILLISECONDS = 120_000  # a loaded machine draws pages slowly


@contextmanager
def browser_page() -> Iterator[Any]:
    """A page with nothing in its storage; the test is skipped where there is no browser."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(
            f"no browser: none of {', '.join(BROWSERS)} is installed; `sh scripts/install_services.sh` gets one as root"
        )
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; it is in the `dev` extra")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 900})
        page.set_default_timeout(WAIT_MILLISECONDS)
        yield page
        browser.close()
