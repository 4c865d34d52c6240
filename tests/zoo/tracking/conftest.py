"""A home with an empty MLflow database of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from zoo.tracking.client import connection as tracking_client


@pytest.fixture(scope="session")
def fresh_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, made once: its tables take seconds."""
    path = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("ZOO_HOME", str(path))
        tracking_client.ensure_store()
    return path / "mlflow.db"


@pytest.fixture
def home(tmp_path: Path, fresh_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    shutil.copy(fresh_database, tmp_path / "home" / "mlflow.db")
    return tmp_path / "home"
