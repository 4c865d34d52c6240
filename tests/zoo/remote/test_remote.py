"""A remote of artifacts: what is pushed comes back the same, half a thing is never seen, and nothing false is taken.

Each promise is checked on a folder, on a real OpenSSH server, and on moto's stand-in of S3, which is no real server of it.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.remotes import forked, made, made_of, pull, push, same_files, visible
from tests.helpers.sftp_server import SftpServer
from zoo.errors import ZooError
from zoo.remote import RemoteFiles, files, parse_address, pull_earlier, read_index, read_kept
from zoo.remote.contents import is_plain
from zoo.remote.faults import Unreachable, fault_of
from zoo.store import APART, INCOMING, MANIFEST, WRITTEN, Artifact, earlier, lineage, note_written

services = pytest.mark.services
KILLS = 20


@dataclass
class Remote:
    """A remote of one test: its address, and how the bytes of a file there are read and changed from outside."""

    address: str
    read: Callable[[str], bytes]
    write: Callable[[str, bytes], object]

    def files(self) -> RemoteFiles:
        return RemoteFiles(parse_address(self.address))

    def names(self, folder: str) -> set[str]:
        with self.files() as found:
            return set(found.names(folder))


@pytest.fixture(scope="module")
def sftp() -> Iterator[SftpServer]:
    folder = Path(f"/tmp/zoo-sshd-{os.getpid()}")  # that another user may enter
    folder.mkdir()
    try:
        server = SftpServer(folder)
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    server = pytest.importorskip("moto.server", reason="moto is not installed; it is in the `dev` extra").ThreadedMotoServer(
        port=0
    )
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture(params=["file", pytest.param("sftp", marks=services), pytest.param("s3", marks=services)])
def remote(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Remote:
    monkeypatch.setattr(files, "BLOCK", 1 << 14)  # many blocks of small files
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    if request.param == "s3":
        return on_s3(request.getfixturevalue("bucket"), tmp_path, monkeypatch)
    if request.param == "file":
        folder = tmp_path / "remote"
        address = folder.as_uri()
    else:
        server: SftpServer = request.getfixturevalue("sftp")
        server.write_client(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        folder, address = server.remote / tmp_path.name, f"{server.address}/{tmp_path.name}"
    return Remote(
        address, lambda name: (folder / name).read_bytes(), lambda name, content: (folder / name).write_bytes(content)
    )


def on_s3(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Remote:
    import fsspec

    name = f"b-{abs(hash(tmp_path)):x}"
    for key, value in {
        "ENDPOINT_URL": server,
        "ACCESS_KEY_ID": "id",
        "SECRET_ACCESS_KEY": "hunter2",
        "REGION": "eu-north-1",
    }.items():
        monkeypatch.setenv(f"AWS_{key}", value)
    client = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    client.mkdir(name)
    return Remote(
        f"s3://{name}/zoo",
        lambda key: client.cat_file(f"{name}/zoo/{key}"),
        lambda key, v: client.pipe_file(f"{name}/zoo/{key}", v),
    )


# --- there and back -----------------------------------------------------------------------------------------------------------


def test_what_is_pushed_comes_back_the_same_and_nothing_is_sent_twice(remote: Remote, tmp_path: Path) -> None:
    artifact = made(tmp_path / "a")
    sent: list[int] = []
    assert push(artifact, remote.address, bar=counting(sent))
    whole = sum(record.bytes for record in artifact.manifest.files.values())
    assert sum(sent) == 2 * (whole - len("alike 0")), "sent and read back, equal files once"
    sent.clear()
    assert not push(artifact, remote.address, bar=counting(sent)) and not sent
    back = pull(artifact.path.name, remote.address, tmp_path / "b")
    assert back and same_files(artifact, back) and visible(tmp_path / "b") == [artifact.path.name]
    assert {".manifest.json" not in name and ".part" not in name for name in remote.names(artifact.path.name)} == {True}
    assert pull("merge-" + "0" * 16, remote.address, tmp_path / "b") is None


def test_a_result_brings_the_manifests_of_what_it_was_made_from_and_not_their_files(remote: Remote, tmp_path: Path) -> None:
    store, other = tmp_path / "a", tmp_path / "b"
    base = made(store)
    table = made_of(base)
    note_written(store, ["e" * 16], tmp_path / "labelled.csv", [base])
    written = made_of(base.__class__(base.path, base.manifest.model_copy(update={"fingerprint": "e" * 16})), seed=2)
    for artifact in (table, written):
        push(artifact, remote.address)
        with remote.files() as found:
            kept = read_kept(found, artifact.path.name)
            assert kept and found.names(base.path.name) == {}
            pull_earlier(kept, found, other, read_index(found))
        assert pull(artifact.path.name, remote.address, other)
        assert list(earlier(other, artifact.manifest)) == [base.path.name]
    assert [p.name for p in (other / APART / base.path.name).iterdir()] == [MANIFEST], "no weights"
    assert (other / WRITTEN / f"{'e' * 16}.json").read_bytes() == (store / WRITTEN / f"{'e' * 16}.json").read_bytes()
    (given, *_) = [g for g in lineage(other, Artifact(other / table.path.name, table.manifest)).given if g.made_by]
    assert given.made_by[0].name == base.path.name


# --- kills --------------------------------------------------------------------------------------------------------------------


def test_pushes_that_are_killed_at_any_moment_leave_nothing_half_to_be_seen(remote: Remote, tmp_path: Path) -> None:
    artifact, rng = made(tmp_path / "a", size=300_000), random.Random(5)
    name, seconds = artifact.path.name, took(lambda: push(made(tmp_path / "x", size=300_000, fingerprint="x"), remote.address))
    killed = 0
    for number in range(KILLS):
        code = forked(lambda: push(artifact, remote.address), after=seconds * rng.uniform(0.02, 0.9))
        killed += code < 0
        with remote.files() as found:
            is_seen = read_kept(found, name) is not None
        if is_seen:
            back = pull(name, remote.address, tmp_path / f"b{number}")
            assert back and same_files(artifact, back)
    assert killed > 0
    push(artifact, remote.address)
    back = pull(name, remote.address, tmp_path / "b")
    assert back and same_files(artifact, back)
    wanted = {record.sha256 for record in artifact.manifest.files.values()} | {MANIFEST}
    assert remote.names(name) == wanted, "nothing doubled, nothing left over"


def test_pulls_that_are_killed_at_any_moment_go_on_and_the_store_sees_whole_artifacts_alone(
    remote: Remote, tmp_path: Path
) -> None:
    artifact, rng, store = made(tmp_path / "a", size=300_000), random.Random(6), tmp_path / "b"
    name = artifact.path.name
    push(artifact, remote.address)
    seconds = took(lambda: pull(name, remote.address, tmp_path / "x"))
    for _ in range(KILLS):
        forked(lambda: pull(name, remote.address, store), after=seconds * rng.uniform(0.02, 0.9))
        assert visible(store) in ([], [name])
        if visible(store):
            shutil.rmtree(store)
    fetched: list[int] = []
    back = pull(name, remote.address, store, bar=counting(fetched))
    assert back and same_files(artifact, back) and not list((store / INCOMING).iterdir())


def test_a_transfer_goes_on_where_it_was_killed(remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that were told as done before the first new one came are those that a killed transfer had left."""
    artifact, store = made(tmp_path / "a", size=300_000), tmp_path / "b"
    name, whole = artifact.path.name, sum(r.bytes for r in artifact.manifest.files.values())
    push(artifact, remote.address)
    assert forked(lambda: pull(name, remote.address, store, bar=dying(whole // 2))) != 0
    left = sum(path.stat().st_size for path in (store / INCOMING).rglob("*") if path.is_file())
    assert 0 < left < whole
    asked: list[int] = []
    real = RemoteFiles.blocks

    def blocks(self: RemoteFiles, name: str, begin: int, end: int) -> Iterator[bytes]:
        for block in real(self, name, begin, end):
            asked.append(len(block))
            yield block

    monkeypatch.setattr(RemoteFiles, "blocks", blocks)
    assert pull(name, remote.address, store)
    assert sum(asked) == whole - left, "nothing is fetched again"


# --- several at once, and what goes wrong -------------------------------------------------------------------------------------


def test_two_homes_that_push_other_bytes_for_one_request_leave_one_of_the_two_whole(remote: Remote, tmp_path: Path) -> None:
    for trial in range(3):
        both = [made(tmp_path / f"{home}{trial}", seed=home, fingerprint=f"t{trial}") for home in (1, 2)]
        children = [os.fork() for _ in [None]]
        if children[0] == 0:
            code = 1
            try:
                push(both[0], remote.address)
                code = 0
            finally:
                os._exit(code)
        push(both[1], remote.address)
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
        name = both[0].path.name
        back = pull(name, remote.address, tmp_path / f"back{trial}")
        assert back and [same_files(one, back) for one in both].count(True) == 1
        wanted = {record.sha256 for record in back.manifest.files.values()} | {MANIFEST}
        assert {file for file in remote.names(name) if ".part" not in file} == wanted


@pytest.mark.parametrize("how", ["changed", "cut", "grown"])
def test_a_file_that_was_tampered_with_is_refused_by_name_and_taken_once_it_is_mended(
    remote: Remote, tmp_path: Path, how: str
) -> None:
    artifact = made(tmp_path / "a")
    push(artifact, remote.address)
    name, sha256 = artifact.path.name, artifact.manifest.files["model/part-1.safetensors"].sha256
    good = remote.read(f"{name}/{sha256}")
    remote.write(f"{name}/{sha256}", {"changed": b"x" + good[1:], "cut": good[:-1], "grown": good + b"x"}[how])
    with pytest.raises(ZooError, match=r"part-1\.safetensors is not what the manifest says") as told:
        pull(name, remote.address, tmp_path / "b")
    assert "\n" not in str(told.value) and visible(tmp_path / "b") == []
    if how != "changed":
        with pytest.raises(ZooError, match=r"part-1\.safetensors of it is missing or cut"):
            push(artifact, remote.address)
    remote.write(f"{name}/{sha256}", good)
    assert pull(name, remote.address, tmp_path / "b")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m["files"].update({"../../evil": m["files"]["empty"]}), "`../../evil` is no file"),
        (lambda m: m["files"].update({"/etc/evil": m["files"]["empty"]}), "`/etc/evil` is no file"),
        (lambda m: m["files"].update({MANIFEST: m["files"]["empty"]}), "`manifest.json` is no file"),
        (lambda m: m["files"]["empty"].update(sha256="../" * 21 + "x"), "`empty` is no file"),
        (lambda m: m["files"]["empty"].update(bytes=-1), "`empty` is no file"),
        (lambda m: m["request"].update(entry="other"), "its request is that of merge-"),
        (lambda m: m["files"].update({"a\x1b[2J": m["files"]["empty"]}), r"`a\x1b[2J` is no file"),
        (lambda m: m.update(schema_version=99), "newer than"),
        (lambda m: m.clear(), "not a manifest"),
    ],
)
def test_a_manifest_that_was_edited_is_refused_before_a_byte_is_fetched(
    tmp_path: Path, change: Callable[[Any], object], told: str
) -> None:
    artifact, folder = made(tmp_path / "a"), tmp_path / "remote"
    push(artifact, folder.as_uri())
    path = folder / artifact.path.name / MANIFEST
    record = json.loads(path.read_bytes())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(ZooError, match=r"manifest\.json") as error:
        pull(artifact.path.name, folder.as_uri(), tmp_path / "b")
    assert told in str(error.value) and "\n" not in str(error.value) and not (tmp_path / "b" / INCOMING).exists()


@pytest.mark.parametrize("file", ["", ".", "..", "a/../b", "a//b", "./a", ".parts/x", "a\\b", "a\nb", "/a", "manifest.json/x"])
def test_names_that_leave_the_folder_or_hide_in_it_are_no_files(file: str) -> None:
    assert not is_plain(file) and is_plain("model/.gitattributes") and is_plain("ab/scores.parquet")


def test_a_full_disk_there_and_here_is_one_line(tmp_path: Path) -> None:
    """A process may write so many bytes a file and no more; or a manifest names more bytes than any disk has."""
    artifact, address, store = made(tmp_path / "a"), (tmp_path / "remote").as_uri(), tmp_path / "b"
    name = artifact.path.name

    def told(act: Callable[[], object]) -> str:
        def limited() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
            with pytest.raises(ZooError) as error:
                act()
            (tmp_path / "told").write_text(str(error.value))

        assert forked(limited) == 0
        return (tmp_path / "told").read_text()

    line = told(lambda: push(artifact, address))
    assert "no space is left there; make room, and the same command goes on" in line and "\n" not in line
    assert push(artifact, address)
    line = told(lambda: pull(name, address, store))
    assert f"{store}: no space is left; make room" in line and visible(store) == []
    assert pull(name, address, store)
    path = tmp_path / "remote" / name / MANIFEST
    huge = json.loads(path.read_bytes())
    huge["files"]["empty"]["bytes"] = 1 << 60
    path.write_text(json.dumps(huge))
    with pytest.raises(ZooError, match=r"no space for it at .*: [0-9,]+ MiB are missing; make room"):
        pull(name, address, tmp_path / "c")


def test_links_and_pipes_in_a_shared_folder_are_neither_followed_nor_waited_for(tmp_path: Path) -> None:
    artifact, folder = made(tmp_path / "a"), tmp_path / "remote"
    name, mine = artifact.path.name, tmp_path / "mine.txt"
    mine.write_text("mine")
    assert forked(lambda: push(artifact, folder.as_uri(), bar=dying(150_000))) != 0
    part = max((folder / name).glob(".*.part"), key=lambda path: path.stat().st_size)
    part.unlink()
    part.symlink_to(mine)
    with pytest.raises(ZooError, match="symbolic link"):
        push(artifact, folder.as_uri())
    assert mine.read_text() == "mine"
    part.unlink()
    assert push(artifact, folder.as_uri())
    (folder / name / MANIFEST).unlink()
    os.mkfifo(folder / name / MANIFEST)
    with pytest.raises(ZooError, match="no ordinary file"):
        pull(name, folder.as_uri(), tmp_path / "b")


@services
def test_a_server_that_goes_away_or_hangs_in_the_middle_costs_a_line_and_nothing_else(
    sftp: SftpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sftp.write_client(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(files, "BLOCK", 1 << 14)
    monkeypatch.setattr(files, "ANSWER_SECONDS", 3.0)
    artifact, address, store = made(tmp_path / "a", size=2_000_000), f"{sftp.address}/gone", tmp_path / "b"
    name = artifact.path.name

    def hang() -> None:
        for process in sftp.connections():
            process.suspend()

    def drop() -> None:
        for process in sftp.connections():
            process.kill()

    for break_it in (drop, hang):
        with pytest.raises(ZooError, match=r"cannot be reached, or no longer .*; the same command goes on") as told:
            push(artifact, address, bar=after(3_000_000, break_it))
        assert "\n" not in str(told.value)
        drop()
    assert push(artifact, address)
    for break_it in (drop, hang):
        with pytest.raises(ZooError, match="cannot be reached, or no longer"):
            pull(name, address, store, bar=after(3_000_000, break_it))
        drop()
        assert visible(store) == []
    back = pull(name, address, store)
    assert back and same_files(artifact, back)


def test_however_paramiko_says_that_its_connection_has_ended_the_remote_is_gone() -> None:
    import paramiko

    channel, file = paramiko.Channel(1), paramiko.file.BufferedFile()
    channel.closed = True
    file.close()
    for use in (lambda: channel.send(b"x"), lambda: file.write(b"x"), lambda: file.read(1)):
        with pytest.raises(OSError) as raised:
            use()
        told = fault_of(raised.value, "sftp://host/store")
        assert isinstance(told, Unreachable) and "cannot be reached, or no longer" in str(told)


@services
def test_hosts_and_keys_that_are_not_known_are_refused_with_the_place_to_mend(
    sftp: SftpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)

    def told() -> str:
        with pytest.raises(ZooError) as error:
            RemoteFiles(parse_address(sftp.address))
        assert "\n" not in str(error.value)
        return str(error.value)

    sftp.write_client(tmp_path, known=None)
    line = told()
    assert "a host that is not known, with the key ssh-ed25519" in line and f"add it to {tmp_path}/.ssh/known_hosts" in line
    assert (tmp_path / ".ssh" / "known_hosts").read_text() == "", "not by itself"
    sftp.write_client(tmp_path, known="wrong_key")
    assert "its key is not the one that is known" in told()
    sftp.write_client(tmp_path, key="wrong_key")
    assert "no key opens it; load one with `ssh-add`" in told()
    sftp.write_client(tmp_path)
    RemoteFiles(parse_address(sftp.address)).close()
    with (tmp_path / ".ssh" / "config").open("a") as config:
        config.write(" ProxyJump elsewhere\n")
    assert "is reached by proxyjump, which is not done here" in told()


@services
def test_no_credentials_and_no_bucket_are_one_line(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = on_s3(bucket, tmp_path, monkeypatch)
    artifact = made(tmp_path / "a")
    with pytest.raises(ZooError) as absent:
        push(artifact, "s3://no-such-bucket-anywhere/zoo")
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"AWS_{name}")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ZooError, match="AWS's settings have no credentials") as unknown:
        push(artifact, remote.address)
    for error in (absent, unknown):
        assert "\n" not in str(error.value) and "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sftp://me:hunter2@host/path", "a password in an address"),
        ("s3://key:hunter2@bucket/x", "a password in an address"),
        ("ftp://host/path", "`ftp` is no address"),
        ("/shared/folder", "is no address"),
        ("sftp:/me:hunter2@host/path", "names no host"),
        ("file://host/folder", "names no folder"),
        ("file:///", "has no path"),
        ("sftp://host", "has no path"),
        ("sftp:///path", "names no host"),
        ("s3:///prefix", "names no host or bucket"),
        ("sftp://host/a/../b", "`..` in the path"),
        ("sftp://host:99999/a", "not an address"),
        ("s3://bucket/a?versionId=1", "nothing may follow the path"),
    ],
)
def test_addresses_that_cannot_be_used_are_told_without_their_secrets(text: str, told: str) -> None:
    with pytest.raises(ZooError) as error:
        parse_address(text)
    assert told in str(error.value) and "hunter2" not in str(error.value)


def test_addresses_are_shown_as_they_were_given() -> None:
    for text in ("sftp://me@host:2222/srv/zoo", "s3://bucket/team/zoo", "file:///shared/zoo"):
        assert str(parse_address(text)) == text


# --- bars that look, break and die --------------------------------------------------------------------------------------------


def counting(counted: list[int]) -> Any:
    return with_update(lambda more: counted.append(more))


def after(count: int, act: Callable[[], object]) -> Any:
    """A bar that does something once so many bytes are done."""
    done = [0]

    def update(more: int) -> None:
        done[0] += more
        if done[0] >= count > done[0] - more:
            act()

    return with_update(update)


def dying(count: int) -> Any:
    return after(count, lambda: os.kill(os.getpid(), 9))


def with_update(update: Callable[[int], object]) -> Any:
    @contextmanager
    def bar(description: str, size: int) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(update=update)

    return bar


def took(work: Callable[[], object]) -> float:
    """Seconds that something takes in a process of its own."""
    began = time.monotonic()
    assert forked(work) == 0
    return time.monotonic() - began
