"""Checks of the image and the cards: what they are, what that takes away, and the mend."""

from __future__ import annotations

import csv
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .places import Places

UNPACKED = 2.5  # an environment takes so many times its wheels' bytes: CUDA's libraries are packed to less than half
HOST_BYTES = 8 << 30  # memory for the notebook, the script and the engines' processes beside one model's file
ROW_BYTES = 96  # of a submission: an id, three numbers of 17 digits, and what stands between them
MIB = 1 << 20
WHEELS, ENGINE = "wheels", "engine"  # what a failed check takes away


@dataclass(frozen=True)
class Check:
    """One line: what was looked at and how it is; where not as expected, the mend.

    `takes`: WHEELS where nothing of the bundle's can be installed, ENGINE where no engine can serve.
    """

    name: str
    what: str
    state: str = "ok"  # or "warn", "fail"
    mend: str = ""
    takes: str = ""

    def line(self) -> str:
        """As the notebook shows it."""
        return f"{self.state:<4}  {self.name}: {self.what}" + (f"; {self.mend}" if self.mend else "")


@dataclass(frozen=True)
class Card:
    """One GPU, as the driver tells it."""

    name: str
    bytes: int
    capability: tuple[int, int] | None
    driver: str


def cards_at_hand() -> list[Card]:
    """The GPUs that `nvidia-smi` names; none where there is no driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=name,memory.total,compute_cap,driver_version", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in row] for row in csv.reader(told.splitlines()) if len(row) == 4]
    return [Card(row[0], _number(row[1]) * MIB, _version(row[2]), row[3]) for row in rows]


def check_cards(bundle: dict[str, Any], cards: list[Card]) -> list[Check]:
    """Names, count, capability, memory and driver of the cards, against the bundle's target."""
    target, image = bundle["target"], bundle["image"]
    if not target["gpus"]:
        return [Check("cards", f"{target['name']} needs none")]
    wanted = f"{target['gpus']} x {target['gpu']}"
    if not cards:
        mend = f"choose the accelerator {wanted} in the notebook's settings; language models and encoders are left out"
        return [Check("cards", f"no GPU, {wanted} wanted", "fail", mend, ENGINE)]
    return [*_check_count(target, cards, wanted), *_check_kind(target, cards), *_check_driver(image, cards)]


def _check_count(target: dict[str, Any], cards: list[Card], wanted: str) -> list[Check]:
    names = " + ".join(card.name for card in cards)
    if len(cards) >= target["gpus"]:
        return [Check("cards", names)]
    mend = f"choose {wanted}; members are dealt over {len(cards)}, a model split over {target['gpus']} is left out"
    return [Check("cards", f"{names}, {wanted} wanted", "warn", mend)]


def _check_kind(target: dict[str, Any], cards: list[Card]) -> list[Check]:
    """Capability and memory of the weakest card."""
    wanted = tuple(target["compute_capability"] or (0, 0))
    weakest = min(card.capability or (0, 0) for card in cards)
    told = f"capability {weakest[0]}.{weakest[1]}, {wanted[0]}.{wanted[1]} wanted"
    found = [Check("capability", f"{weakest[0]}.{weakest[1]}")]
    if weakest < wanted:
        mend = f"choose {target['gpu']}; language models and encoders are left out"
        found = [Check("capability", told, "fail", mend, ENGINE)]
    elif weakest > wanted:
        found = [Check("capability", told, "warn", "the engine has code for it, attention is the engine's own choice")]
    least, usable = min(card.bytes for card in cards), target["usable_bytes"] or 0
    memory = f"{least / 2**30:.2f} GiB a card"
    if least < usable:
        mend = f"{usable / 2**30:.2f} GiB are wanted: models that do not fit are cut when they load"
        return [*found, Check("memory", memory, "warn", mend)]
    return [*found, Check("memory", memory)]


def _check_driver(image: dict[str, Any], cards: list[Card]) -> list[Check]:
    driver, wanted = cards[0].driver, image.get("driver")
    if wanted and _number(driver.partition(".")[0]) < wanted:
        mend = "pin an image with a newer one in kernel-metadata.json (docker_image); language models and encoders are left out"
        return [Check("driver", f"{driver}, {wanted} or newer wanted", "fail", mend, ENGINE)]
    return [Check("driver", driver)]


def check_image(bundle: dict[str, Any], places: Places) -> list[Check]:
    """Python and C library against those of the wheels, memory, loopback, and room for these."""
    image = bundle["image"]
    pin = f"pin the image in kernel-metadata.json (docker_image{_named(image)}), or make the bundle for this one"
    python = platform.python_version()
    found = [Check("Python", python)]
    if ".".join(python.split(".")[:2]) != image["python"]:
        found = [Check("Python", f"{python}, the wheels are for {image['python']}", "fail", pin, WHEELS)]
    libc = _glibc()
    if libc < (_version(image["glibc"]) or (0, 0)):
        told = f"{libc[0]}.{libc[1]}, the wheels need {image['glibc']}"
        found.append(Check("glibc", told, "fail", pin, WHEELS))
    else:
        found.append(Check("glibc", f"{libc[0]}.{libc[1]}"))
    return [*found, _check_memory(bundle), _check_scratch(bundle, places), _check_loopback()]


def _check_memory(bundle: dict[str, Any]) -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    largest = max((file["bytes"] for part in bundle["parts"] if part["kind"] == "model" for file in part["files"]), default=0)
    told = f"{total / 2**30:.1f} GiB"
    if largest and total < largest + HOST_BYTES:
        wanted = f"{(largest + HOST_BYTES) / 2**30:.1f} GiB wanted for its largest file"
        return Check("RAM", told, "warn", f"{wanted}: smaller files load better (safetensors of 5 GB)")
    return Check("RAM", told)


def _check_scratch(bundle: dict[str, Any], places: Places) -> Check:
    """Room for the environment, outside of what the notebook keeps."""
    wheels = sum(file["bytes"] for part in bundle["parts"] if part["kind"] == WHEELS for file in part["files"])
    wanted = 0 if places.environment else int(wheels * UNPACKED)
    free = free_bytes(places.scratch)
    told = f"{free / 1e9:.1f} GB free at {places.scratch}"
    if free < wanted:
        return Check("disk", told, "fail", f"{wanted / 1e9:.1f} GB wanted: set PZ_SCRATCH to a larger disk", WHEELS)
    return Check("disk", told)


def check_working(places: Places, rows: int) -> Check:
    """Room for the submission twice, so that it is replaced at once, the log and predict.json."""
    wanted, free = 2 * rows * ROW_BYTES + 4 * MIB, free_bytes(places.working)
    told = f"{free / 1e6:.0f} MB free at {places.working}"
    if free < wanted:
        mend = f"{wanted / 1e6:.0f} MB wanted: the submission is made elsewhere and copied at the end; remove what lies there"
        return Check("working", told, "warn", mend)
    return Check("working", told)


def _check_loopback() -> Check:
    """Whether a process can speak to another on this machine: engines over several cards do."""
    try:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(1)
            with socket.create_connection(server.getsockname(), timeout=5):
                return Check("loopback", "up")
    except OSError as error:
        mend = "engines need it: ip link set lo up; language models and encoders are left out"
        return Check("loopback", f"127.0.0.1: {error.strerror or error}", "fail", mend, ENGINE)


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk that a folder is on, or would be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def left(checks: Iterable[Check]) -> tuple[bool, bool, str]:
    """Whether the wheels can be installed, whether the engine can serve, and why not."""
    failed = [check for check in checks if check.takes]
    why = "; ".join(f"{check.name} {check.what}" for check in failed)
    return not any(check.takes == WHEELS for check in failed), not failed, why


def _named(image: dict[str, Any]) -> str:
    return f": {image['docker_image']}" if image.get("docker_image") else ""


def _glibc() -> tuple[int, int]:
    """The C library's version; (0, 0) where it is not GNU's."""
    try:
        told = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        told = ""
    return _version(told.rpartition(" ")[2]) or (0, 0)


def _version(text: str) -> tuple[int, int] | None:
    parts = text.split(".")
    return (int(parts[0]), int(parts[1])) if len(parts) > 1 and parts[0].isdigit() and parts[1].isdigit() else None


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
