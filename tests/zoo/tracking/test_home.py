"""Where runs go, and that no credential is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.tracked import (
    SECRET,
)
from zoo.tracking.home import mask, tracking_uri


def test_default_store_is_sqlite_in_the_home_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking_uri() == f"sqlite:///{home / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    assert tracking_uri() == "http://elsewhere:5000"


@pytest.mark.parametrize(
    "text",
    [
        f"http://user:{SECRET}@host:5000/path",
        f"postgresql://user:p/w{SECRET}@host/db",
        f"https://host?access_token={SECRET}&x=1",
        f"FATAL: password={SECRET} refused",
        f"the token is {SECRET}",
    ],
)
def test_credentials_are_masked(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    assert SECRET not in mask(text) and "***" in mask(text)
    assert mask("http://host:5000 is down; mail me@example.org") == "http://host:5000 is down; mail me@example.org"
