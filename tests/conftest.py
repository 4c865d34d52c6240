"""Shared fixtures: a home of its own for every test, a tiny real model, and generated battles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.helpers.tiny_models import write_tiny_llama

# Tiny models gain nothing from threads, and where others use the machine too, threads that wait for each other crawl.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("unhurried", deadline=None)  # nothing is asserted about time: machines are shared
settings.load_profile("unhurried")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests are allowed the most seconds begin first: at the end no worker is left alone with one of them."""
    longest: dict[Path, float] = {}
    for item in items:
        limit = item.get_closest_marker("timeout")
        longest[item.path] = max(longest.get(item.path, 0), limit.args[0] if limit else 0)
    items.sort(key=lambda item: -longest[item.path])


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing a test makes lands in the user's store, and no setting of the user's reaches a test."""
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ZOO_SETTINGS", str(tmp_path / "no-settings.toml"))
    for name in ("ZOO_ENTRIES", "ZOO_TARGETS", "ZOO_REMOTE", "ZOO_STUDY_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def no_silent_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prediction's watchdog ends its process. In the process of the tests it must fail a test instead of ending them all.

    The prediction goes on past its budget, which the tests that call it check.
    """
    monkeypatch.setattr("ensemble.predict.deadline.end_process", lambda code: None)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Llama with tokenizer."""
    return write_tiny_llama(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def sample_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 240 generated battles, their true probabilities beside it."""
    from zoo.data.sample import write_sample

    path = tmp_path_factory.mktemp("data") / "battles.csv"
    write_sample(path, 240, 7)
    return path
