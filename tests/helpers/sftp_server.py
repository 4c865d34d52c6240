"""A real OpenSSH server for tests: an ordinary user's, on a loopback port, with a host key of its own, and sftp alone."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers.waiting import wait_until

CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM yes
MaxStartups 100
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowTcpForwarding no
PermitTTY no
Subsystem sftp internal-sftp
ForceCommand internal-sftp
"""
PATIENT = "PerSourcePenalties no\n"


class SftpServer:
    """`sshd` as whoever runs the tests, or as `nobody` where that is root; `remote` is the folder that it serves."""

    def __init__(self, folder: Path) -> None:
        self.sshd = shutil.which("sshd") or "/usr/sbin/sshd"
        if not Path(self.sshd).exists() or not shutil.which("ssh-keygen"):
            pytest.skip("no OpenSSH server: sshd is not installed; `sh scripts/install_services.sh` gets it as root")
        self.folder, self.user = folder, "nobody" if os.geteuid() == 0 else getpass.getuser()
        self.remote, self.process = folder / "remote", None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        (folder / "remote").mkdir(parents=True)
        for name in ("host_key", "user_key", "wrong_key"):
            make_key(folder / name)
        shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
        config = CONFIG.format(port=self.port, folder=folder)
        # OpenSSH 9.8 and later make a host wait whose connections end early, as those of killed processes do.
        (folder / "sshd_config").write_text(config + PATIENT)
        if subprocess.run([self.sshd, "-t", "-f", folder / "sshd_config"], capture_output=True).returncode:
            (folder / "sshd_config").write_text(config)
        if os.geteuid() == 0:
            for path in (folder, *folder.rglob("*")):
                shutil.chown(path, self.user)
        self.start()

    @property
    def address(self) -> str:
        return f"sftp://zoo-test/{str(self.remote).lstrip('/')}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        own = pwd.getpwnam(self.user)
        as_user = {"user": own.pw_uid, "group": own.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        with (self.folder / "sshd.log").open("ab") as log:
            command = [self.sshd, "-D", "-e", "-f", str(self.folder / "sshd_config")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **as_user)
        try:
            wait_until(self._answers, "the server's greeting", self.process)
        except AssertionError as error:
            raise AssertionError((self.folder / "sshd.log").read_text()[-2000:]) from error

    def stop(self) -> None:
        """End it with every connection, at once."""
        for process in [*self.connections(), psutil.Process(self.process.pid)]:
            process.kill()
        self.process.wait()

    def connections(self) -> list[psutil.Process]:
        """Processes that serve clients."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def write_client(self, home: Path, *, key: str = "user_key", known: str | None = "host_key") -> None:
        """Write what ssh needs into a home: the host `zoo-test`, the key to it, and the host's key where that is known."""
        ssh = home / ".ssh"
        ssh.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.folder / key, ssh / "id_test")
        (ssh / "id_test").chmod(0o600)
        host = f"Host zoo-test\n HostName 127.0.0.1\n Port {self.port}\n User {self.user}\n IdentityFile {ssh}/id_test\n"
        (ssh / "config").write_text(host)
        line = "" if known is None else f"[127.0.0.1]:{self.port} {(self.folder / f'{known}.pub').read_text()}"
        (ssh / "known_hosts").write_text(line)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
                return client.recv(4) == b"SSH-"
        except OSError:
            time.sleep(0.05)
            return False


def make_key(path: Path) -> None:
    """Make a key without a passphrase, as people do for machines."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
