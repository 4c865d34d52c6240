"""Fetching: what a folder lacks is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.requests import BASE, given
from zoo.contracts import (
    FetchRequest,
)
from zoo.errors import ZooError
from zoo.stages.weights import fetch


def test_fetch_says_what_a_folder_lacks(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    request = FetchRequest(entry="tiny", base=BASE, source="folder", folder=given(tmp_path / "model"))
    (tmp_path / "out").mkdir()
    with pytest.raises(ZooError, match=r"no config\.json; point to the folder"):
        fetch.run(request, tmp_path / "out")
