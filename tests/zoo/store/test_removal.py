"""Removing artifacts: nothing loses what it was made from unasked, nothing in use goes, and nothing goes by half."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.helpers.manifests import finished, input_of, partial_folder
from zoo.contracts import Input, MergeRequest, MergeSpec
from zoo.errors import ZooError
from zoo.store import Artifact, collect, find_garbage, list_artifacts, note_needed, plan_removal, remove_artifact, write_atomic


def merge(store: Path, base: Input, *more: Input) -> Artifact:
    """An artifact made from others, also from adapters beyond the first."""
    partial_folder(store, request := MergeRequest(entry="tiny", base=base, adapter=base, more_adapters=more, spec=MergeSpec()))
    return finished(store, request)


@pytest.fixture
def chain(tmp_path: Path) -> list[Artifact]:
    """A base, what was made from it, what was made from that and the base, and one that stands apart."""
    store = tmp_path / "store"
    base = merge(store, Input(fingerprint="b"))
    middle = merge(store, input_of(base))
    last = merge(store, Input(fingerprint="o"), input_of(base), input_of(middle))
    return [base, middle, last, merge(store, Input(fingerprint="apart"))]


def test_what_others_are_made_from_stands_until_they_go_too(chain: list[Artifact], tmp_path: Path) -> None:
    base, middle, last, _ = (artifact.path for artifact in chain)
    refused = plan_removal(tmp_path / "store", [base], with_dependents=False)
    assert set(refused.kept[base.name]) == {middle.name, last.name}
    whole = plan_removal(tmp_path / "store", [base], with_dependents=True)
    assert whole.folders == [last, middle, base] and not whole.kept
    assert whole.why.keys() == {middle.name, last.name}
    named = plan_removal(tmp_path / "store", [base, last, middle], with_dependents=False)
    assert named.folders == [last, middle, base] and not named.kept and not named.why


def test_an_artifact_goes_whole_after_what_comes_before(chain: list[Artifact], tmp_path: Path) -> None:
    last = chain[2].path
    seen = []
    remove_artifact(last, tmp_path, before=lambda: seen.append(last.exists()))
    assert seen == [True] and last not in [artifact.path for artifact in list_artifacts(tmp_path / "store")]
    assert list((tmp_path / "store" / ".trash").iterdir()) == []


def test_a_removal_that_was_cut_short_leaves_no_half_artifact(
    chain: list[Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_artifact(chain[2].path, tmp_path)
    assert not chain[2].path.exists()
    (item,) = find_garbage(tmp_path)
    assert item.path.parent.name == ".trash" and "cut short" in item.why


def test_a_store_on_another_disk_lets_go_and_its_trash_is_found(
    chain: list[Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Path("/dev/shm")
    if not disk.is_dir() or disk.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    with tempfile.TemporaryDirectory(dir=disk) as other:
        shutil.move(tmp_path / "store", Path(other) / "store")
        (tmp_path / "store").symlink_to(Path(other) / "store")
        remove_artifact(chain[2].path, tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
            remove_artifact(chain[1].path, tmp_path)
        assert {a.path for a in list_artifacts(tmp_path / "store")} == {chain[0].path, chain[3].path}
        (item,) = find_garbage(tmp_path)
        assert "cut short" in item.why and item.path.name.startswith(chain[1].path.name)
        assert collect(item, tmp_path) and not item.path.exists() and find_garbage(tmp_path) == []


@pytest.mark.parametrize("reader", ["stage", "prediction", "waiting prediction", "itself"])
def test_what_a_running_process_reads_or_makes_is_refused(reader: str, chain: list[Artifact], tmp_path: Path) -> None:
    """Another process holds the lock: `flock` tells apart open files, and this test asks as another command would."""
    base = chain[0].path
    lock = {
        "stage": tmp_path / "store" / ".locks" / "merge-running.lock",
        "prediction": tmp_path / "predict" / "p" / "lock",
        "waiting prediction": tmp_path / "predict" / "p" / "lock",
        "itself": tmp_path / "store" / ".locks" / f"{base.name}.lock",
    }[reader]
    lock.parent.mkdir(parents=True, exist_ok=True)
    work = {"stage": tmp_path / "store" / ".partial" / "merge-running", "prediction": lock.parent / "job" / "attempt-00"}
    if reader in work:
        work[reader].mkdir(parents=True)
        request = MergeRequest(entry="tiny", base=input_of(chain[0]), adapter=Input(fingerprint="a"), spec=MergeSpec())
        write_atomic(work[reader] / "request.json", request.model_dump_json())
    if reader == "waiting prediction":  # no member has started
        note_needed(lock.parent, [chain[0].fingerprint])
    take = f"file = open({str(lock)!r}, 'w'); fcntl.flock(file, fcntl.LOCK_EX)"
    program = f"import fcntl, sys; {take}; print(1, flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout and holder.stdout.readline()
    try:
        with pytest.raises(ZooError, match=f"{base.name} is in use"):
            remove_artifact(base, tmp_path, before=lambda: pytest.fail("nothing is noted of what stays"))
    finally:
        holder.communicate()
    assert base.exists()
    remove_artifact(base, tmp_path)
    assert not base.exists()


def test_of_a_linked_artifact_the_link_alone_goes(chain: list[Artifact], tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    chain[3].path.rename(elsewhere)
    chain[3].path.symlink_to(elsewhere)
    remove_artifact(chain[3].path, tmp_path)
    assert not chain[3].path.is_symlink() and (elsewhere / "manifest.json").exists()
