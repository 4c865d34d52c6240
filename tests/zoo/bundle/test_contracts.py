"""The contract that the notebook's script reads: what is refused, and digests that depend on content alone."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from zoo.bundle.contracts import BundledFile, Part, digest_of


def file(path: str, size: int = 1, sha256: str = "a" * 64) -> BundledFile:
    return BundledFile(path=path, bytes=size, sha256=sha256, origin="made here", licence="unknown")


@given(st.lists(st.tuples(st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8})?", fullmatch=True), st.integers(0, 2**40)), unique=True))
def test_a_digest_is_that_of_the_sorted_list(pairs: list[tuple[str, int]]) -> None:
    files = [file(path, size) for path, size in pairs]
    text = "[" + ",".join(f'["{f.path}",{f.bytes},"{f.sha256}"]' for f in sorted(files, key=lambda f: (f.path, f.bytes))) + "]"
    assert digest_of(files) == digest_of(files[::-1]) == hashlib.sha256(text.encode()).hexdigest()
    assert json.loads(text) == sorted([f.path, f.bytes, f.sha256] for f in files)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../up", "a/../b", "a//b", "a/", ".", "a\\b", "./a", "a\0b"])
def test_paths_stay_below_their_part(path: str) -> None:
    with pytest.raises(ValidationError):
        file(path)


@pytest.mark.parametrize("path", ["a", "a/b", "..a", "a..", ".hidden", "x-1.0+cu129-py3-none-any.whl"])
def test_ordinary_names_are_taken(path: str) -> None:
    assert file(path).path == path


def test_a_part_has_the_digest_of_its_files() -> None:
    files = (file("a.whl"),)
    part = Part(name="wheels", kind="wheels", slug="pz-wheels-1", digest=digest_of(files), files=files)
    with pytest.raises(ValidationError, match="not that of its files"):
        Part.model_validate({**part.model_dump(), "digest": "0" * 64})
    with pytest.raises(ValidationError, match="names its artifact"):
        Part.model_validate({**part.model_dump(), "kind": "model"})
