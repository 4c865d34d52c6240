"""The steps of making a bundle: what is laid into it, and where it appears."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.manifests import finished, partial_folder
from zoo.bundle.assemble import lay_artifact, making
from zoo.contracts import Input, LexicalSpec, LexicalTrainRequest
from zoo.store import Artifact, check_files, fingerprint, read_manifest


def test_an_artifact_tells_no_folder_of_the_machine_that_made_it(tmp_path: Path) -> None:
    battles = Input(path=tmp_path / "private" / "train.csv", fingerprint="any")
    train = LexicalTrainRequest(entry="lexical", battles=battles, spec=LexicalSpec())
    (partial_folder(tmp_path / "store", train) / "fold-0.npz").write_bytes(b"fold")
    (partial_folder(tmp_path / "store", train) / "stage.log").write_text(f"warning in {tmp_path}")
    artifact = finished(tmp_path / "store", train, argv=("zoo", "run", "lexical", "--data", str(battles.path)))
    before = (artifact.path / "manifest.json").read_bytes()
    laid = tmp_path / "bundle" / "model-1"
    records = lay_artifact(artifact, laid, Path(), "unknown")
    assert {record.path for record in records} == {"fold-0.npz", "manifest.json"} == {path.name for path in laid.iterdir()}
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in laid.iterdir())
    found = read_manifest(laid)
    assert fingerprint(found.request) == found.fingerprint == artifact.fingerprint
    check_files(Artifact(laid, found))
    assert (artifact.path / "manifest.json").read_bytes() == before, "the store's own stays"


def test_the_folder_at_hand_can_become_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with making(Path()) as folder:
        (folder / "x").touch()
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["x"] and len(list(tmp_path.iterdir())) == 1
