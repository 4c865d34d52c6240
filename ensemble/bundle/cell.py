"""`python -m ensemble.bundle.cell SPEC.json`: run a command as a notebook's cell would.

Cut off from every network: it is started inside new namespaces, which it furnishes with the loopback up, inputs bound
read-only, and small disks where asked for.
When the command has ended it tells how often anything in the namespace tried to reach a network. With `--open` it is started in
none, and furnishes nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

OPEN = "--open"
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1  # linux/sockios.h, linux/if.h
NAMESERVER = "192.0.2.1"  # of a network for documentation (RFC 5737): asking it is an attempt that the kernel counts
SENT_NOWHERE, SENT_NOWHERE_6 = "OutNoRoutes", "Ip6OutNoRoutes"  # /proc/net/snmp and snmp6: what the kernel knew no way for


def loopback_up() -> None:
    """Without it even 127.0.0.1 is unreachable in a new network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        flags = struct.unpack("16sh", fcntl.ioctl(asked, SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))[1]
        fcntl.ioctl(asked, SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | IFF_UP))


def furnish(spec: dict[str, Any]) -> None:
    """Mount what the cell is to see.

    Folders read-only, small disks, and a name server that cannot be reached.
    """
    loopback_up()
    for source, target in spec["binds"]:
        _mount("--bind", source, target)
        _mount("-o", "remount,ro,bind", target)
    for target, size in spec["small_disks"]:
        _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", target)
    Path(spec["resolver"]).write_text(f"nameserver {NAMESERVER}\noptions timeout:1 attempts:1\n")
    if Path("/etc/resolv.conf").exists():
        _mount("--bind", spec["resolver"], "/etc/resolv.conf")


def attempts() -> int:
    """How often something in this network namespace tried to reach another machine."""
    rows = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines()]
    pairs = (pair for names, values in zip(rows[::2], rows[1::2], strict=True) for pair in zip(names, values, strict=True))
    found = {name: int(value) for name, value in pairs if not value.endswith(":")}
    six = (line.split() for line in Path("/proc/net/snmp6").read_text().splitlines())
    found |= {row[0]: int(row[1]) for row in six if row[0] == SENT_NOWHERE_6}
    return found[SENT_NOWHERE] + found.get(SENT_NOWHERE_6, 0)


def main(path: str, *, isolated: bool) -> int:
    """Run the command of a spec file, and write `code` and `attempts` to the file that it names.

    What lies in its folder at the end is copied: a small disk is gone with the namespace.
    """
    spec = json.loads(Path(path).read_text())
    if isolated:
        furnish(spec)
    before = attempts()
    with Path(spec["output"]).open("wb") as output:
        process = subprocess.Popen(
            spec["command"],
            env=spec["environment"],
            cwd=spec["folder"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            code = process.wait(spec["seconds"])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
    tried = attempts() - before if isolated else 0  # outside a namespace the counts are everybody's
    Path(spec["told"]).write_text(json.dumps({"code": code, "attempts": tried}))
    shutil.copytree(spec["folder"], spec["kept"])
    return 0


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True, text=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], isolated=OPEN not in sys.argv[2:]))
