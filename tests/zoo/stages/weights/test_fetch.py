"""Base weights from a folder of the user's: what leaves the folder or is no file is refused, and the rest is copied."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from tests.helpers.requests import BASE, given
from tests.helpers.tiny_models import write_tiny_gemma3, write_tiny_llama
from zoo.contracts import FetchRequest
from zoo.entries.load import load_entry
from zoo.errors import ZooError
from zoo.pipeline.weights import fetch_request
from zoo.stages.weights import fetch
from zoo.store import copy_file, folder_fingerprint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder as far as fetching looks at it."""
    made = tmp_path / "model"
    made.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (made / name).write_text('{"tie_word_embeddings": true}' if name == "config.json" else name)
    return made


def run(folder: Path, out: Path) -> Path:
    out.mkdir(exist_ok=True)
    fetch.run(FetchRequest(entry="tiny", base=BASE, source="folder", folder=given(folder)), out)
    return out / "model"


def plant(path: Path, kind: str, secret: Path) -> None:
    """What somebody may have put into a folder that he hands on."""
    if kind == "secret":
        path.symlink_to(secret)
    elif kind == "relative":
        path.symlink_to(os.path.relpath(secret, path.parent))
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.symlink_to(secret.parent)
    elif kind == "chain":
        (path.parent / "inner").symlink_to(secret)
        path.symlink_to("inner")
    elif kind == "nowhere":
        path.symlink_to("absent")
    elif kind == "circle":
        path.symlink_to(path.name)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        socket.socket(socket.AF_UNIX).bind(str(path))


LINKS = ["secret", "relative", "endless", "folder", "chain"]
NAMED = {kind: "a link out of the folder" for kind in LINKS} | {"fifo": "neither a file", "socket": "neither a file"}


@pytest.mark.parametrize("kind", [*LINKS, "nowhere", "circle", "fifo", "socket"])
@pytest.mark.parametrize("name", ["x.json", "deep/x.json"])
def test_what_leaves_the_folder_or_is_no_file_is_refused_by_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)  # sockets' paths are short
    (tmp_path / "outside").mkdir()
    secret = tmp_path / "outside" / "id_ed25519"
    secret.write_text("PRIVATE KEY")
    place = Path("model") / name
    place.parent.mkdir(exist_ok=True)
    plant(place, kind, secret)
    with pytest.raises(ZooError, match=NAMED.get(kind, "a link that leads nowhere")) as caught:
        run(folder, tmp_path / "out")
    assert "x.json" in str(caught.value) or "inner" in str(caught.value)
    with pytest.raises(ZooError, match=NAMED.get(kind, "a link that leads nowhere")):  # asked for, before anything is read
        fetch_request(load_entry("smollm2-135m"), tmp_path / "store", source=str(folder))
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file() and "PRIVATE" in p.read_text()]


def test_links_inside_are_files_and_copies_are_nobody_else_s(folder: Path, tmp_path: Path) -> None:
    """The hub's cache with its links resolved by the user has none; a folder may still name one file twice."""
    (folder / "blobs").mkdir()
    (folder / "model.safetensors").rename(folder / "blobs" / "1")
    (folder / "model.safetensors").symlink_to("blobs/1")
    before = folder_fingerprint(folder)
    model = run(folder, tmp_path / "out")
    weights = model / "model.safetensors"
    assert not weights.is_symlink() and weights.stat().st_nlink == 1 and weights.read_text() == "model.safetensors"
    (folder / "blobs" / "1").write_text("edited in place")
    assert weights.read_text() == "model.safetensors" and folder_fingerprint(folder) != before
    assert all(path.stat().st_nlink == 1 for path in model.iterdir())


@pytest.mark.parametrize("pieces", [0, 1])
def test_a_copy_is_whole_where_the_kernel_stops_copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    """As between file systems: at once, or after a part."""
    copied, left = os.copy_file_range, [None] * pieces

    def stops(source: int, target: int, count: int) -> int:
        if not left:
            raise OSError(18, "Invalid cross-device link")
        left.pop()
        return copied(source, target, 1000)

    monkeypatch.setattr(os, "copy_file_range", stops)
    content = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(content)
    copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == content


def test_a_file_exchanged_for_a_fifo_after_the_check_holds_nothing_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(OSError, match="not an ordinary file"):
        copy_file(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_fetch_says_what_a_folder_lacks(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ZooError, match=r"no config\.json; point to the folder"):
        run(folder, tmp_path / "out")


def left_out(folder: Path) -> Path:
    """A base of which neither config.json nor a tensor says what its head is: transformers saves no head that is tied."""
    config = json.loads((folder / "config.json").read_text())
    del config["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_head_that_is_neither_there_nor_the_family_s_embedding_is_refused(tmp_path: Path) -> None:
    """Gemma's is the embedding where its config does not say; Llama's is not, and an engine would make it of random numbers."""
    run(left_out(write_tiny_gemma3(tmp_path / "gemma")), tmp_path / "taken")
    with pytest.raises(ZooError, match=r"no lm_head\.weight.*it would be random.*tie_word_embeddings = true"):
        run(left_out(write_tiny_llama(tmp_path / "llama")), tmp_path / "refused")
    run(left_out(write_tiny_llama(tmp_path / "whole", tie_word_embeddings=False)), tmp_path / "whole-taken")
