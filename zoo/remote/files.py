"""Files of a remote, whatever it is: the one module that knows fsspec, paramiko and s3fs.

What a server says is turned into one line. Hosts are those that ssh knows, keys those of ssh, its agent and AWS's own chain.
"""

from __future__ import annotations

import errno
import getpass
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.remote.address import Address
from zoo.remote.faults import fault_of

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

BLOCK = 1 << 22  # bytes that are read or written at a time
WINDOW = 8  # blocks of which sftp has asked before the first has arrived: one a round trip would crawl
ANSWER_SECONDS = 60.0  # after which a server that says nothing is gone
KEEPALIVE_SECONDS = 15
INSTALL = "pip install 'preference-zoo[remote]'"
ON_S3 = "s3"
SYSTEM_HOSTS = (Path("/etc/ssh/ssh_known_hosts"),)


class RemoteFiles:
    """The files below a remote's folder, by relative names with `/`.

    Every method raises ZooError, one line, for what the server refuses or where it is gone.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.renames = address.scheme != ON_S3  # an object of S3 appears whole, and is never written on
        self._root = f"{address.host}{address.path}".rstrip("/") if address.scheme == ON_S3 else address.path
        with self._told(""):
            self._fs = _file_system(address)

    def names(self, folder: str = "") -> dict[str, int | None]:
        """What lies in a folder: size of a file, None for a folder.

        Empty where there is no such folder.
        """
        with self._told(folder):
            self._fs.invalidate_cache()
            try:
                found = self._fs.ls(self._path(folder), detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
            kinds = {Path(one["name"].rstrip("/")).name: one for one in found}
            return {name: None if one["type"] == "directory" else int(one["size"]) for name, one in kinds.items() if name}

    def read(self, name: str, most: int) -> bytes | None:
        """A small file whole; None where there is none.

        ZooError where it has more than `most` bytes.
        """
        with self._told(name):
            try:
                self._check_plain(name)
                with self._fs.open(self._path(name), "rb") as file:
                    content: bytes = file.read(most + 1)
            except FileNotFoundError:
                return None
        if len(content) > most:
            raise ZooError(f"{self.where(name)}: has more than {most:,} bytes, which nothing of its kind has")
        return content

    def blocks(self, name: str, begin: int, end: int) -> Iterator[bytes]:
        """The bytes of a file from `begin` to `end`, or to its own end where that comes first."""
        self._check_plain(name)
        with self._told(name), self._fs.open(self._path(name), "rb") as file:
            if self.address.scheme == "sftp":
                yield from _many_at_once(file, begin, end)
                return
            file.seek(begin)
            while begin < end and (block := file.read(min(BLOCK, end - begin))):
                begin += len(block)
                yield block

    def write(self, name: str, blocks: Iterable[bytes], *, after: int = 0) -> None:
        """Write a file, or go on with one after that many bytes."""
        with self._told(name):
            self._make_folder(name)
            file = self._opened(self._path(name), after > 0)
            try:
                if self.address.scheme == "sftp":
                    file.set_pipelined(True)
                for block in blocks:
                    file.write(block)
            except BaseException:
                with suppress(Exception):  # an upload to S3 that is not ended leaves nothing under its name
                    getattr(file, "discard", file.close)()
                raise
            file.close()

    def _opened(self, path: str, append: bool) -> Any:
        """A file to write; in a folder that others write into, too, no link that lies there is followed."""
        if self.address.scheme != "file":
            return self._fs.open(path, "ab" if append else "wb")
        how = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | (os.O_APPEND if append else os.O_TRUNC)
        return os.fdopen(os.open(path, how, 0o666), "ab" if append else "wb")

    def settle(self, temporary: str, name: str) -> None:
        """Give a file that is whole its name; what has that name is the same, and gives way."""
        with self._told(name):
            self._fs.mv(self._path(temporary), self._path(name))

    def put_once(self, name: str, content: bytes, temporary: str) -> bool:
        """Put a small file under a name that is free, whole or not at all; whether it was."""
        if not self.renames:
            with self._told(name):
                try:
                    self._fs.pipe_file(self._path(name), content, mode="create")
                except FileExistsError:
                    return False
                return True
        self.write(temporary, [content])
        with self._told(name):
            is_first = self._rename_once(self._path(temporary), self._path(name))
        self.remove(temporary)
        return is_first

    def remove(self, name: str) -> None:
        """Remove a file; nothing where there is none."""
        with self._told(name), suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def close(self) -> None:
        """End the connection, where there is one."""
        if client := getattr(self._fs, "client", None):
            client.close()

    def __enter__(self) -> RemoteFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def where(self, name: str = "") -> str:
        """A place of the remote as people read it."""
        return f"{self.address}/{name}" if name else str(self.address)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _check_plain(self, name: str) -> None:
        """ZooError for what would be waited for without end: a FIFO or a device in a shared folder."""
        path = Path(self._path(name))
        if self.address.scheme == "file" and path.exists() and not path.is_file():
            raise ZooError(f"{self.where(name)}: no ordinary file; see who put it there", exit_code=1)

    def _make_folder(self, name: str) -> None:
        if self.renames:
            with suppress(FileExistsError):  # made meanwhile by another push
                self._fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)

    def _rename_once(self, old: str, new: str) -> bool:
        """Rename where nothing has the new name; whether nothing had."""
        try:
            if self.address.scheme == "file":
                _link(old, new)
            else:
                self._fs.ftp.rename(old, new)  # as the protocol has it: it takes no other file's place
        except OSError as error:
            if isinstance(error, FileExistsError) or self._fs.exists(new):
                return False
            raise
        return True

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """What goes wrong in a block, in one line."""
        try:
            yield
        except Exception as error:
            fault = fault_of(error, self.where(name))
            if fault is None:
                raise
            raise fault from error


def _link(old: str, new: str) -> None:
    """Give a file another name that is free; where the file system has no such thing, a name that seems free."""
    try:
        os.link(old, new)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS) or Path(new).exists():
            raise
        Path(old).rename(new)


def _many_at_once(file: Any, begin: int, end: int) -> Iterator[bytes]:
    """Blocks of a file over sftp; a window of them is asked for before the first has arrived."""
    while begin < end:
        last = min(end, begin + WINDOW * BLOCK)
        wanted = [(place, min(BLOCK, last - place)) for place in range(begin, last, BLOCK)]
        for (_, size), block in zip(wanted, file.readv(wanted), strict=True):
            yield block
            if len(block) < size:  # the file ends here
                return
        begin = last


def _file_system(address: Address) -> AbstractFileSystem:
    """The file system of an address; ZooError where its packages are missing."""
    try:
        import fsspec

        if address.scheme == "sftp":
            return _sftp()(address.host, port=address.port, username=address.user or None, skip_instance_cache=True)
        if address.scheme == ON_S3:
            return fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
        return fsspec.filesystem("file", skip_instance_cache=True)
    except ImportError as error:
        raise ZooError(f"{error.name} is not installed, which {address.scheme}:// needs: {INSTALL}") from error


def _hush_prefetching() -> None:
    """Keep paramiko's threads that ask for blocks from printing a traceback when a server goes: the reader tells of it."""
    before = threading.excepthook

    def hook(fault: threading.ExceptHookArgs) -> None:
        is_asking = fault.thread is not None and "_prefetch_thread" in fault.thread.name
        if not (is_asking and isinstance(fault.exc_value, OSError | EOFError)):
            before(fault)

    threading.excepthook = hook


@cache
def _sftp() -> Callable[..., AbstractFileSystem]:
    """fsspec's sftp, which by itself takes the key of any host: this one knows hosts as ssh does, and ssh's settings."""
    import paramiko
    from fsspec.implementations.sftp import SFTPFileSystem

    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # it prints tracebacks of what is told in a line
    _hush_prefetching()

    class Sftp(SFTPFileSystem):  # type: ignore[misc]
        def _connect(self) -> None:
            known = ssh_settings(self.host)
            port = self.ssh_kwargs["port"] or known.port
            self.client = paramiko.SSHClient()
            for file in known.host_files:
                if file.is_file():
                    self.client.load_system_host_keys(str(file))
            self.client.set_missing_host_key_policy(_Refuse(known.host_files[0], port))
            try:
                self.client.connect(
                    known.name,
                    port=port,
                    username=self.ssh_kwargs["username"] or known.user,
                    key_filename=[str(key) for key in known.keys] or None,
                    timeout=ANSWER_SECONDS,
                    banner_timeout=ANSWER_SECONDS,
                    auth_timeout=ANSWER_SECONDS,
                )
            except paramiko.BadHostKeyException as error:
                kind, prints = error.key.get_name(), error.key.fingerprint
                raise ZooError(
                    f"{self.host}: its key is not the one that is known: it shows {kind} {prints}; ask who runs it "
                    f"whether it was changed, and only then put the new one into {known.host_files[0]}",
                    exit_code=1,
                ) from error
            self.client.get_transport().set_keepalive(KEEPALIVE_SECONDS)
            self.ftp = self.client.open_sftp()
            self.ftp.get_channel().settimeout(ANSWER_SECONDS)

    class _Refuse(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
        def __init__(self, file: Path, port: int) -> None:
            self.file, self.port = file, port

        def missing_host_key(self, client: object, hostname: str, key: Any) -> None:
            raise ZooError(
                f"{hostname}: a host that is not known, with the key {key.get_name()} {key.fingerprint}; compare that with "
                f"what who runs it says, and add it to {self.file}, as the first `sftp` to it does",
                exit_code=1,
            )

    return Sftp


@dataclass(frozen=True)
class SshSettings:
    """What ssh's settings say of a host.

    Its name, port and user, keys to try, and files of known hosts.
    """

    name: str
    port: int
    user: str
    keys: tuple[Path, ...]
    host_files: tuple[Path, ...]


def ssh_settings(host: str) -> SshSettings:
    """What `~/.ssh/config` says of a host; ZooError where it is reached by way of another one."""
    import paramiko

    folder = Path.home() / ".ssh"
    try:
        config = paramiko.SSHConfig.from_path(str(folder / "config")) if (folder / "config").is_file() else paramiko.SSHConfig()
        said = config.lookup(host)
    except paramiko.SSHException as error:
        raise ZooError(f"{folder / 'config'}: {error}; mend it as `ssh -G {host}` says") from error
    for way in ("proxyjump", "proxycommand"):
        if said.get(way, "none") != "none":
            raise ZooError(f"{folder / 'config'}: {host} is reached by {way}, which is not done here; forward a port: ssh -L")
    hosts = [Path(file).expanduser() for file in said.get("userknownhostsfile", "").split()] or [folder / "known_hosts"]
    keys = tuple(path for file in said.get("identityfile", []) if (path := Path(file).expanduser()).is_file())
    user = said.get("user", getpass.getuser())
    return SshSettings(said["hostname"], int(said.get("port", 22)), user, keys, (*hosts, *SYSTEM_HOSTS))
