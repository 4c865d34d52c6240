"""Servers and databases that do not answer are given up at once, in one line; no spelling of a password is ever printed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.logged import add_member, log
from zoo.errors import ZooError
from zoo.tracking.client import connection as tracking_client
from zoo.tracking.home import mask
from zoo.tracking.sync import sync

HOST = st.sampled_from(["db.example.org", "10.0.0.7:5432", "localhost", "[::1]:5432"])
USER = st.sampled_from(["me", "zoo-user", "first.last", "me@corp"])
CHARACTERS = st.characters(min_codepoint=33, max_codepoint=126)
PASSWORD = st.text(CHARACTERS, min_size=6, max_size=20).map(lambda text: f"Zq{text}qZ")


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    "uri", ["http://me:hunter2-and-more@127.0.0.1:{}", "postgresql+psycopg://me:hunter2-and-more@127.0.0.1:{}/zoo"]
)
@pytest.mark.parametrize("alive", [True, False])
def test_nobody_who_is_dead_is_asked_twice(
    uri: str, alive: bool, silent: int, own_home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody answers (`alive`: somebody takes the connection): one line a stage, and one attempt, which is bounded."""
    if uri.startswith("postgresql"):
        pytest.importorskip("psycopg", reason="psycopg is not installed; it is in the `dev` extra")
    monkeypatch.setattr(tracking_client, "SECONDS", 1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(silent if alive else 9))
    asked: list[str] = []
    ask = tracking_client._ask
    monkeypatch.setattr(tracking_client, "_ask", lambda uri: (asked.append(uri), ask(uri)))
    artifact = add_member(own_home, "first")
    assert not log(artifact)
    (said,) = [record.getMessage() for record in caplog.records if record.name == "zoo"]
    assert "run `zoo sync`" in said and "\n" not in said and "hunter2" not in said
    assert len(asked) == 1
    with pytest.raises(ZooError, match="run `zoo sync` again") as caught:
        sync(own_home / "store")
    assert "hunter2" not in str(caught.value) and len(asked) == 2


@pytest.mark.parametrize(
    "uri", ["me:hunter2-and-more@host/db", "postgresql:me:hunter2-and-more@host/db", "mlruns", "file:///x"]
)
def test_what_is_no_store_is_refused_and_makes_no_folder(
    uri: str, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    artifact = add_member(own_home, "first")
    before = sorted(tmp_path.iterdir())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert not log(artifact)
    assert "neither a server nor a database" in caplog.text and "hunter2" not in caplog.text
    assert sorted(tmp_path.iterdir()) == before


def spellings(user: str, password: str, host: str) -> list[str]:
    """A tracking URI with a password as people write them, and wrongly write them."""
    escaped = password.replace("\\", "\\\\").replace("'", "\\'")
    plain = password.replace("\\", "").replace("'", "").replace('"', "").replace("&", "")
    return [
        f"postgresql://{user}:{password}@{host}/zoo",
        f"postgresql://{user}:{quote(password, safe='')}@{host}/zoo",
        f"postgresql:{user}:{password}@{host}/zoo",
        f"{user}:{password}@{host}",
        f"{user}:{password}@{host}/zoo?sslmode=require",
        f"host={host} user={user} password='{escaped}' dbname=zoo",
        f"host={host} user={user} password = '{escaped} {escaped}' dbname=zoo",
        f"host={host} user={user} password={plain} dbname=zoo",
        f"http://{host}/?password={plain}&x=1",
    ]


@given(user=USER, password=PASSWORD, host=HOST)
def test_no_spelling_of_a_password_is_printed(user: str, password: str, host: str) -> None:
    """In any message that holds the URI, or the password alone as a driver spells it back."""
    parts = {password, password.replace("\\", "").replace("'", "").replace('"', "").replace("&", ""), quote(password, safe="")}
    for uri in spellings(user, password, host):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", uri)
            for message in (uri, f"{uri}: it failed", f"OperationalError: could not connect to '{uri}' (timeout)"):
                said = mask(message)
                assert not [part for part in parts if part in said], (uri, said)
        said = mask(f"{uri}: it failed")
        assert not [part for part in parts if part in said], f"of somebody else: {uri}: {said}"


@pytest.mark.parametrize(
    "text",
    ["lexical@ab", "12:30 is no password", "http://host:5000 is down", "A: yes, B: no", "llama-3-8b@ba-512-awq: 1.05", "x:y"],
)
def test_ordinary_text_is_left(text: str) -> None:
    assert mask(text) == text
