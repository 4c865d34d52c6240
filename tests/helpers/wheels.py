"""Tiny wheels and source archives: packages of one line, built by hand in no time."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from zoo.bundle.fatbins import CUBIN, ENTRY, HEADER, MAGIC, PTX

PURE = "py3-none-any"


def write_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    requires: Sequence[str] = (),
    tag: str = PURE,
    files: Mapping[str, bytes] | None = None,
    licence: str = "MIT",
) -> Path:
    """A wheel that pip and uv install: one module, core metadata, and what else is given."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", f"License-Expression: {licence}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    contents = {
        f"{name.replace('-', '_')}.py": b"x = 1\n",
        **(files or {}),
        f"{stem}.dist-info/METADATA": ("\n".join(lines) + "\n").encode(),
        f"{stem}.dist-info/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    contents[f"{stem}.dist-info/RECORD"] = "".join(f"{path},,\n" for path in contents).encode()
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for inside, data in contents.items():
            archive.writestr(zipfile.ZipInfo(inside), data)
    return path


def use_index(index: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on pip and uv take the files of a folder for all that there is, and no network."""
    settings = scratch / "uv.toml"
    settings.write_text(f"[pip]\nno-index = true\nfind-links = [{json.dumps(str(index))}]\n")
    values = {"UV_CONFIG_FILE": settings, "PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": index}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))


BACKEND = """
import zipfile
TAG = "{tag}"
META = "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
def get_requires_for_build_wheel(config_settings=None):
    return []
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    import pathlib
    info = pathlib.Path(folder, "{stem}.dist-info")
    info.mkdir()
    (info / "METADATA").write_text(META)
    (info / "WHEEL").write_text("Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: " + TAG + "\\n")
    return info.name
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "{stem}-" + TAG + ".whl"
    with zipfile.ZipFile(folder + "/" + name, "w") as archive:
        archive.writestr("{stem}.dist-info/METADATA", META)
        archive.writestr("{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: " + TAG + "\\n")
        archive.writestr("{stem}.dist-info/RECORD", "")
    return name
"""


def write_source(folder: Path, name: str, version: str = "1.0", *, tag: str = PURE) -> Path:
    """A source archive that brings its own way to be built, which needs nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    contents = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": BACKEND.format(name=name, version=version, stem=stem, tag=tag),
    }
    path = folder / f"{stem}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for inside, text in contents.items():
            member = tarfile.TarInfo(f"{stem}/{inside}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def fatbin(entries: Sequence[tuple[int, int, bytes]]) -> bytes:
    """Bytes of a fatbin of (kind, architecture, code) entries, as nvcc lays them into a library."""
    body = b""
    for kind, architecture, code in entries:
        header = ENTRY.pack(kind, 0x101, 64, len(code)).ljust(28, b"\0") + struct.pack("<I", architecture)
        body += header.ljust(64, b"\0") + code
    return HEADER.pack(struct.unpack("<I", MAGIC)[0], 1, HEADER.size, len(body)) + body


def library(*architectures: int, ptx: Sequence[int] = ()) -> bytes:
    """A library with one cubin for each architecture, and PTX."""
    entries = [(CUBIN, architecture, b"\x7fELF" * 3) for architecture in architectures]
    return b"\x7fELF" + b"\0" * 60 + fatbin([*entries, *((PTX, architecture, b".version 9") for architecture in ptx)])
