"""A tiny model that chats, and requests of it that a stand-in for the engine answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.asking import TALKER, Asking
from tests.helpers.tiny_models import write_chat_template, write_tiny_llama
from zoo.stages.generate import stage


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chat")
    write_chat_template(write_tiny_llama(folder / "model"))
    return folder


@pytest.fixture
def asking(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Asking:
    monkeypatch.setattr(stage, "COMMAND", TALKER)
    return Asking(tmp_path, model)
