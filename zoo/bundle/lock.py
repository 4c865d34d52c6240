"""The lock of a set of wheels: what an image installs, by name, version and hash."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.utils import canonicalize_name

from zoo.bundle.contracts import Image, Sha256
from zoo.bundle.tags import best_wheel
from zoo.contracts import SCHEMA_VERSION, Contract
from zoo.errors import ZooError

REQUIREMENTS, LOCK = "requirements.in", "requirements.lock"  # in wheels/: what was asked for, and what that comes to


class Pin(Contract):
    """A package of the set, by the one file that is installed.

    `file` None: the index has no wheel that the image takes, so one is made of the source archive with this hash.
    """

    name: str
    version: str
    file: str | None
    sha256: Sha256
    bytes: int

    @property
    def release(self) -> str:
        """Name and version as people write them."""
        return f"{self.name} {self.version}"


class Pins(Contract):
    """What some requirements come to on an image."""

    schema_version: int = SCHEMA_VERSION
    image: Image
    requirements: tuple[str, ...]
    pins: tuple[Pin, ...]


def resolve(requirements: Sequence[str], image: Image, constraints: Sequence[str] = ()) -> Pins:
    """The newest packages that meet the requirements together on the image, by the index.

    `constraints`: versions of those packages that they need, if they need them. ZooError with the resolver's own words where
    there are none, or no uv.
    """
    with tempfile.TemporaryDirectory() as scratch:
        found, bounds = Path(scratch) / "pylock.toml", Path(scratch) / "constraints.txt"
        bounds.write_text("".join(f"{line}\n" for line in constraints))
        options = ("-c", str(bounds), "--format", "pylock.toml", "-o", str(found))
        _compile(requirements, image, Path(scratch), *options)
        packages = tomllib.loads(found.read_text())["packages"]
    pins = [_pin(package, image) for package in packages if _is_wanted(package, image)]
    return Pins(image=image, requirements=tuple(requirements), pins=tuple(sorted(pins, key=lambda pin: pin.name)))


def releases_from(folder: Path, requirements: Sequence[str], image: Image) -> dict[str, str]:
    """Versions by name that requirements come to with the wheels of a folder alone.

    ZooError with the resolver's own words where something is missing.
    """
    with tempfile.TemporaryDirectory() as scratch:
        options = ("--no-index", "--find-links", str(folder.absolute()), "--no-header", "--no-annotate", "--offline")
        text = _compile(requirements, image, Path(scratch), *options)
    lines = (line.partition(";")[0].strip() for line in text.splitlines())
    return {canonicalize_name(name): version for line in lines if "==" in line for name, version in [line.split("==")]}


def _compile(requirements: Sequence[str], image: Image, scratch: Path, *options: str) -> str:
    asked = scratch / REQUIREMENTS
    asked.write_text("".join(f"{line}\n" for line in requirements))
    platform = f"x86_64-manylinux_{image.glibc.replace('.', '_')}"
    command = [uv(), "pip", "compile", str(asked), "--python-version", image.python, "--python-platform", platform, *options]
    done = subprocess.run(
        [*command, "--no-progress", "--color", "never"],
        capture_output=True,
        text=True,
        cwd=scratch,
        check=False,
        env=_settings(),
    )
    if done.returncode:
        reason = " ".join(re.sub(r"[│├╰─▶×]+", " ", done.stderr).split())
        raise ZooError(f"no set of wheels meets {', '.join(requirements)} on Python {image.python}: {reason}", exit_code=1)
    return done.stdout


def _settings() -> dict[str, str]:
    """The user's environment without what would make the resolver look at this machine's Python in the image's place."""
    return {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "UV_PYTHON")}


def uv() -> str:
    """The resolver's program: beside this Python, or on the path."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise ZooError("uv is not installed, which locks the wheels: pip install 'uv>=0.9,<1'")
    return found


def _is_wanted(package: dict[str, Any], image: Image) -> bool:
    marker = package.get("marker")
    return marker is None or Marker(marker).evaluate(environment_of_image(image))


def environment_of_image(image: Image) -> dict[str, str]:
    """What markers of requirements read on the image (PEP 508)."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{image.python}.0",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{image.python}.0",
        "python_version": image.python,
        "sys_platform": "linux",
        "extra": "",
    }


def _pin(package: dict[str, Any], image: Image) -> Pin:
    """The file of a package that an installer takes on the image; its source archive where there is no such wheel."""
    by_file = {_file_of(wheel): wheel for wheel in package.get("wheels", [])}
    file = best_wheel(list(by_file), image)
    chosen = by_file[file] if file is not None else package.get("sdist")
    name, version = canonicalize_name(package["name"]), package.get("version", "")
    if chosen is None:
        raise ZooError(f"{name} {version} has no wheel for Python {image.python} on x86-64 and no source archive", exit_code=1)
    return Pin(name=name, version=version, file=file, sha256=chosen["hashes"]["sha256"], bytes=chosen.get("size", 0))


def _file_of(archive: dict[str, Any]) -> str:
    """A wheel's file name, as the resolver's lock tells it: by name, or by where it lies."""
    place = archive.get("name") or archive.get("url") or archive["path"]
    return urllib.parse.unquote(place.rpartition("/")[2])
