"""The archive that a training notebook leaves: what goes into a store, and what is refused."""

from __future__ import annotations

import io
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.helpers.manifests import finished, partial_folder
from tests.helpers.requests import SPEC, train_request
from zoo.bundle.trained import Trained, TrainedFold, pack, read_contents, unpack
from zoo.contracts import Held, changed
from zoo.errors import ZooError
from zoo.store import PARTIAL, REQUEST, artifact_name, list_artifacts, verify_artifacts, write_atomic


@pytest.fixture
def left(tmp_path: Path) -> tuple[Path, Trained, Path]:
    """A store in which fold 0 is finished and fold 1 has a checkpoint; its contents, and their archive."""
    store = tmp_path / "there"
    requests = [changed(train_request(tmp_path, tmp_path, SPEC), held=Held(fold=fold)) for fold in range(2)]
    done, begun = (partial_folder(store, request) for request in requests)
    (done / "adapter").mkdir()
    (done / "adapter" / "adapter_model.safetensors").write_bytes(bytes(range(256)))
    finished(store, requests[0])
    (begun / "checkpoint").mkdir()
    write_atomic(begun / "checkpoint" / "state.json", json.dumps({"progress": {"step": 7}}))
    write_atomic(begun / REQUEST, requests[1].model_dump_json())
    folds = (
        TrainedFold(fold=0, artifact=artifact_name(requests[0]), finished=True),
        TrainedFold(fold=1, artifact=artifact_name(requests[1]), finished=False, steps=7),
    )
    trained = Trained(entry="tiny", created_at=datetime.now(UTC), folds=folds)
    pack(trained, store, tmp_path / "trained.tar")
    return store, trained, tmp_path / "trained.tar"


def rewritten(archive: Path, change: dict[str, bytes | None], *, added: dict[str, bytes] | None = None) -> None:
    """The archive with other content of some members; None leaves one out."""
    with tarfile.open(archive) as tar:
        files = {record.name: tar.extractfile(record).read() for record in tar}  # type: ignore[union-attr]
    with tarfile.open(archive, "w") as tar:
        for name, content in {**files, **change, **(added or {})}.items():
            if content is not None:
                record = tarfile.TarInfo(name)
                record.size = len(content)
                tar.addfile(record, io.BytesIO(content))


def member(archive: Path, ending: str) -> str:
    with tarfile.open(archive) as tar:
        return next(name for name in tar.getnames() if name.endswith(ending))


def test_what_was_finished_is_an_artifact_and_what_was_not_can_go_on(left: tuple[Path, Trained, Path], tmp_path: Path) -> None:
    there, trained, archive = left
    assert read_contents(archive) == trained
    here = tmp_path / "here"
    found, new = unpack(archive, here)
    assert found == trained and len(new) == 2
    (artifact,) = list_artifacts(here)
    assert artifact.path.name == trained.folds[0].artifact and not list(verify_artifacts([artifact.path]))
    assert (here / PARTIAL / trained.folds[1].artifact / "checkpoint" / "state.json").read_bytes() == (
        there / PARTIAL / trained.folds[1].artifact / "checkpoint" / "state.json"
    ).read_bytes()
    assert sorted(path.name for path in (here / PARTIAL).iterdir()) == [trained.folds[1].artifact]
    assert unpack(archive, here)[1] == [], "a second time adds nothing"


def test_a_checkpoint_here_is_not_replaced(left: tuple[Path, Trained, Path], tmp_path: Path) -> None:
    _, trained, archive = left
    own = tmp_path / "here" / PARTIAL / trained.folds[1].artifact
    own.mkdir(parents=True)
    (own / "mine").write_text("x")
    unpack(archive, tmp_path / "here")
    assert [path.name for path in own.iterdir()] == ["mine"]


def test_the_archive_names_nobody_and_no_place(left: tuple[Path, Trained, Path], tmp_path: Path) -> None:
    with tarfile.open(left[2]) as tar:
        assert {(r.uname, r.gname, r.uid, r.gid) for r in tar} == {("", "", 0, 0)}
        assert not any(r.name.startswith(("/", "..")) for r in tar)


@pytest.mark.parametrize("ending", ["adapter_model.safetensors", "manifest.json"])
def test_a_damaged_file_is_refused_whole(left: tuple[Path, Trained, Path], tmp_path: Path, ending: str) -> None:
    archive = left[2]
    rewritten(archive, {member(archive, ending): b"other"})
    with pytest.raises(ZooError, match=r"fold 0: .*; download"):
        unpack(archive, tmp_path / "here")
    assert not list_artifacts(tmp_path / "here") and not list((tmp_path / "here" / PARTIAL).iterdir())


@pytest.mark.parametrize(
    "name", ["train-0000000000000000/x.json", "evil.py", "{}/adapter/weights.pkl", "{}/../../out.json", "/etc/out.json"]
)
def test_what_the_archive_does_not_name_is_refused(left: tuple[Path, Trained, Path], tmp_path: Path, name: str) -> None:
    _, trained, archive = left
    rewritten(archive, {}, added={name.format(trained.folds[0].artifact): b"{}"})
    with pytest.raises(ZooError, match="trained"):
        unpack(archive, tmp_path / "here")
    assert not list_artifacts(tmp_path / "here") and not (tmp_path / "out.json").exists()


def test_a_link_is_refused(left: tuple[Path, Trained, Path], tmp_path: Path) -> None:
    _, trained, archive = left
    with tarfile.open(archive, "a") as tar:
        record = tarfile.TarInfo(f"{trained.folds[0].artifact}/link.json")
        record.type, record.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(record)
    with pytest.raises(ZooError, match="no file of a training"):
        unpack(archive, tmp_path / "here")


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"not a tar")
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    for name in ("x.tar", "empty.tar", "nowhere.tar"):
        with pytest.raises(ZooError, match=name):
            read_contents(tmp_path / name)


def test_a_cut_archive(left: tuple[Path, Trained, Path], tmp_path: Path) -> None:
    archive = left[2]
    archive.write_bytes(archive.read_bytes()[:2048])
    with pytest.raises(ZooError, match=r"trained\.tar"):
        unpack(archive, tmp_path / "here")
    assert not list_artifacts(tmp_path / "here")
