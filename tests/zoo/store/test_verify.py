"""Verifying a store: every kind of damage is found and named, with its mend, and hides no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.manifests import finished, partial_folder
from tests.helpers.requests import merge_request
from zoo.errors import ZooError
from zoo.store import (
    Artifact,
    artifact_folders,
    artifact_name,
    bytes_to_hash,
    check_files,
    leftovers,
    list_artifacts,
    locked,
    verify_artifacts,
)


def made(store: Path, content: str) -> Artifact:
    """An artifact of two files."""
    request = merge_request(store, fingerprint=content)
    folder = partial_folder(store, request)
    (folder / "model").mkdir()
    (folder / "model" / "weights").write_text(content * 1000)
    (folder / "work.txt").write_text("done")
    return finished(store, request)


def faults(store: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for fault in verify_artifacts(artifact_folders(store)):
        assert fault.verdict == "fail" and fault.mend
        found.setdefault(fault.artifact, []).append(fault.what)
    return found


def test_whole_artifacts_have_no_fault_and_every_byte_is_told(tmp_path: Path) -> None:
    first, second = made(tmp_path, "a"), made(tmp_path, "bc")
    read: list[int] = []
    assert list(verify_artifacts(artifact_folders(tmp_path), read=read.append)) == []
    assert sum(read) == bytes_to_hash([first.path, second.path]) == 1000 + 4 + 2000 + 4


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda folder: (folder / "model" / "weights").write_text("b" * 1000), "model/weights was changed: its SHA-256"),
        (lambda folder: (folder / "model" / "weights").write_text("a"), "model/weights has 1 bytes, not 1000"),
        (lambda folder: (folder / "work.txt").unlink(), "work.txt is missing"),
        (lambda folder: (folder / "extra").write_text(""), "extra is not of this artifact"),
        (lambda folder: (folder / "manifest.json").unlink(), "has no manifest"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "not a manifest"),
        (lambda folder: (folder / "manifest.json").write_text(""), "not a manifest"),
        (lambda folder: (folder / "manifest.json").write_text("[" * 10_000), "not a manifest"),
        (lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe"), "not a manifest"),
        (lambda folder: (folder / "manifest.json").write_text('{"schema_version": 99}'), "newer version"),
        (lambda folder: (folder / "manifest.json").write_text('{"schema_version": "x"}'), "not a manifest"),
    ],
)
def test_each_kind_of_damage_is_named_and_other_artifacts_are_still_listed(damage, what: str, tmp_path: Path) -> None:
    broken, whole = made(tmp_path, "a"), made(tmp_path, "b")
    damage(broken.path)
    found = faults(tmp_path)
    assert list(found) == [broken.path.name] and len(found[broken.path.name]) == 1
    assert what in found[broken.path.name][0]
    assert whole.path in [artifact.path for artifact in list_artifacts(tmp_path)]


def test_an_artifact_under_another_s_name_or_with_an_edited_request_is_found(tmp_path: Path) -> None:
    renamed, edited = made(tmp_path, "a"), made(tmp_path, "b")
    renamed.path.rename(tmp_path / "merge-0123456789abcdef")
    raw = json.loads((edited.path / "manifest.json").read_text())
    raw["request"]["spec"]["into"] = "original"
    (edited.path / "manifest.json").write_text(json.dumps(raw))
    found = faults(tmp_path)
    assert found.keys() == {"merge-0123456789abcdef", edited.path.name}
    assert all("renamed, or its manifest edited" in text for (text,) in found.values())


def test_what_a_stage_is_given_is_checked_by_size_and_small_files_by_hash(tmp_path: Path) -> None:
    artifact = made(tmp_path, "a")
    (artifact.path / "model" / "weights").write_text("b" * 1000)
    check_files(artifact, hash_below=1000)  # too large to be hashed each time
    with pytest.raises(ZooError, match=r"model/weights was changed.*`zoo rm merge-"):
        check_files(artifact, hash_below=1001)
    (artifact.path / "work.txt").write_text("longer")
    with pytest.raises(ZooError, match=r"work\.txt has 6 bytes, not 4"):
        check_files(artifact)


def test_unfinished_folders_are_left_over_unless_a_process_holds_them(tmp_path: Path) -> None:
    finished_one, running, killed = made(tmp_path, "a"), merge_request(tmp_path, fingerprint="r"), merge_request(tmp_path)
    for request in (running, killed):
        partial_folder(tmp_path, request)
    (tmp_path / ".partial" / finished_one.path.name).mkdir()
    with locked(tmp_path, artifact_name(running)):
        found = {fault.artifact: fault.what for fault in leftovers(tmp_path)}
    assert found == {
        f".partial/{finished_one.path.name}": "left over: its artifact is finished",
        f".partial/{artifact_name(killed)}": "unfinished, and no process works on it",
    }


def test_a_half_artifact_under_a_final_name_makes_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    request = merge_request(tmp_path, fingerprint="a")
    half = tmp_path / artifact_name(request)
    half.mkdir()
    (half / "work.txt").write_text("half")
    artifact = made(tmp_path, "a")
    assert (artifact.path / "work.txt").read_text() == "done" and faults(tmp_path) == {}
    (aside,) = (tmp_path / ".aside").iterdir()
    assert (aside / "work.txt").read_text() == "half" and "has no manifest" in caplog.text
    assert [fault.artifact for fault in leftovers(tmp_path)] == [f".aside/{aside.name}"]


def test_a_dangling_link_under_a_final_name_makes_room(tmp_path: Path) -> None:
    (tmp_path / artifact_name(merge_request(tmp_path, fingerprint="a"))).symlink_to(tmp_path / "nowhere")
    assert (made(tmp_path, "a").path / "work.txt").read_text() == "done"
    assert not (tmp_path / "nowhere").exists()
