"""Parts: digests, metadata by the host's rules, and what of a folder is not as recorded."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.bundle.contracts import MARKER, METADATA, BundledFile, Part, digest_of
from zoo.bundle.parts import (
    check_address,
    file_faults,
    has_folders,
    listed,
    metadata_faults,
    place,
    record,
    seal,
    sealed_part,
    size_faults,
    slug_of,
    write_metadata,
)
from zoo.errors import ZooError

GOOD = {"title": "pz wheels 1a2b", "id": "me/pz-wheels-1a2b", "licenses": [{"name": "other"}]}


def test_metadata_that_we_write_has_no_fault(tmp_path: Path) -> None:
    write_metadata(tmp_path, "me", "pz wheels vllm 0.21.0 1a2b3c4d")
    found = json.loads((tmp_path / METADATA).read_text())
    assert metadata_faults(found, "pz-wheels-vllm-0-21-0-1a2b3c4d", "me") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"title": "short"}, "6 to 50"),
        ({"title": "x" * 51}, "6 to 50"),
        ({"title": 7}, "6 to 50"),
        ({"title": "another title"}, "another-title"),
        ({"id": "you/pz-wheels-1a2b"}, "me/pz-wheels-1a2b"),
        ({"licenses": []}, "exactly one"),
        ({"licenses": [{"name": "other"}] * 2}, "exactly one"),
        ({"licenses": ["other"]}, "exactly one"),
        ({"licences": []}, "unknown key `licences`"),
    ],
)
def test_metadata_that_the_host_refuses(change: dict[str, object], said: str) -> None:
    faults = metadata_faults({**GOOD, **change}, "pz-wheels-1a2b", "me")
    assert len(faults) == 1 and said in faults[0]
    assert metadata_faults(None, "pz-wheels-1a2b", "me")


@given(st.text(max_size=60))
def test_addresses_have_small_letters_digits_and_single_hyphens(title: str) -> None:
    slug = slug_of(title)
    assert slug == slug.strip("-") and "--" not in slug and set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert slug_of(slug) == slug


@pytest.mark.parametrize("name", ["", "Me", "me_too", "-me", "me/you", "https://host/me", "a--b"])
def test_names_that_stand_in_no_address(name: str) -> None:
    with pytest.raises(ZooError, match="--user"):
        check_address(name, "--user")


@pytest.fixture
def part(tmp_path: Path) -> tuple[Path, Part]:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "sub" / "b.txt").write_text("bb")
    files = tuple(record(tmp_path, path) for path in ("a.txt", "sub/b.txt"))
    digest = seal(tmp_path, "wheels", files)
    write_metadata(tmp_path, "me", "pz wheels")
    return tmp_path, Part(name="wheels", kind="wheels", slug="pz-wheels", digest=digest, files=files)


def test_a_part_as_it_was_made(part: tuple[Path, Part]) -> None:
    folder, made = part
    assert file_faults(folder, made.files) == [] == sealed_part(folder, made)
    assert listed(folder) == ["a.txt", "sub/b.txt"], "marker and metadata do not count"
    assert has_folders(folder) and not has_folders(folder / "sub")


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [("a.txt", "b", "SHA-256"), ("a.txt", "aa", "2 bytes, not 1"), ("a.txt", None, "missing"), ("more", "x", "not recorded")],
)
def test_a_part_that_was_changed(part: tuple[Path, Part], path: str, content: str | None, said: str) -> None:
    folder, made = part
    if content is None:
        (folder / path).unlink()
    else:
        (folder / path).write_text(content)
    (fault,) = file_faults(folder, made.files)
    assert path in fault and said in fault


@pytest.mark.parametrize("content", [None, "{", '{"schema_version": 1, "kind": "wheels", "digest": "%s"}' % ("0" * 64)])
def test_a_marker_of_another_part(part: tuple[Path, Part], content: str | None) -> None:
    folder, made = part
    (folder / MARKER).unlink()
    if content is not None:
        (folder / MARKER).write_text(content)
    assert len(sealed_part(folder, made)) == 1


def test_a_file_laid_into_a_part_is_that_file(tmp_path: Path) -> None:
    """Also through a link: what is uploaded is content."""
    (tmp_path / "source").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "source")
    place(tmp_path / "link", tmp_path / "deep" / "target")
    assert not (tmp_path / "deep" / "target").is_symlink() and (tmp_path / "deep" / "target").read_text() == "x"


def test_sizes_and_names(tmp_path: Path) -> None:
    (tmp_path / "torch-2.11.0+cu129.whl").touch()
    (tmp_path / ".hidden").touch()
    assert len(size_faults("wheels", tmp_path)) == 2
    for number in range(1001):
        (tmp_path / f"{number}.txt").touch()
    assert "loose files" in size_faults("wheels", tmp_path)[0]


def test_a_digest_says_what_files_are_not_where_they_come_from() -> None:
    one = BundledFile(path="a", bytes=1, sha256="0" * 64, origin="x 1", licence="MIT")
    assert digest_of([one]) == digest_of([one.model_copy(update={"origin": "y", "licence": "z"})])
    assert digest_of([one]) != digest_of([one.model_copy(update={"bytes": 2})])
