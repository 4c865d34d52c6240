"""Wheels of a set: resolved for the image, downloaded by hash, kept, and complete without an index. No network."""

import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.wheels import PURE, use_index, write_source, write_wheel
from zoo.bundle.contracts import Image
from zoo.bundle.lock import Pin, releases_from, resolve
from zoo.bundle.product import make_wheel
from zoo.bundle.wheels import (
    BATCH_BYTES,
    BATCH_FILES,
    Models,
    batches,
    closure,
    download,
    kept,
    requirements_for,
    wheel_at,
    wheels_folder,
    wheels_for,
)
from zoo.errors import ZooError
from zoo.store import file_sha256

IMAGE = Image()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip and uv take for the index; the home is empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    use_index(folder, tmp_path, monkeypatch)
    return folder


def test_the_set_is_resolved_for_the_image_not_for_this_python(index: Path) -> None:
    write_wheel(index, "top", requires=["leaf>=1", "other; python_version < '3.12'", "elsewhere; sys_platform == 'win32'"])
    write_wheel(index, "leaf", "1.0", tag="cp311-cp311-manylinux_2_28_x86_64")
    write_wheel(index, "leaf", "1.0", tag="cp312-cp312-manylinux_2_28_x86_64")
    write_wheel(index, "leaf", "1.0", tag=PURE)
    write_wheel(index, "leaf", "0.9")
    pins = resolve(["top"], IMAGE)
    assert [(pin.name, pin.version, pin.file) for pin in pins.pins] == [
        ("leaf", "1.0", "leaf-1.0-cp312-cp312-manylinux_2_28_x86_64.whl"),
        ("top", "1.0", f"top-1.0-{PURE}.whl"),
    ]
    assert pins.pins[1].sha256 == file_sha256(index / f"top-1.0-{PURE}.whl")
    assert releases_from(index, ["top"], IMAGE) == {"leaf": "1.0", "top": "1.0"}


def test_what_is_missing_is_named(index: Path) -> None:
    write_wheel(index, "top", requires=["leaf>=2"])
    write_wheel(index, "leaf", "1.0")
    for resolving in (lambda: resolve(["top"], IMAGE), lambda: releases_from(index, ["top"], IMAGE)):
        with pytest.raises(ZooError, match="leaf"):
            resolving()


def test_a_set_is_downloaded_once(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packages and one that is a source archive alone: its wheel is made, once."""
    monkeypatch.setattr("zoo.bundle.wheels.requirements_for", lambda models: ["top"])
    write_wheel(index, "top", requires=["leaf", "only-source"], licence="Apache-2.0")
    write_wheel(index, "leaf")
    write_source(index, "only-source", "0.3")
    said: list[str] = []
    pins, wheels = wheels_for(None, IMAGE, said.append)
    assert [wheel.path.name for wheel in wheels] == [
        f"leaf-1.0-{PURE}.whl",
        f"only_source-0.3-{PURE}.whl",
        f"top-1.0-{PURE}.whl",
    ]
    assert [wheel.licence for wheel in wheels] == ["MIT", "unknown", "Apache-2.0"]
    assert all(wheel.sha256 == file_sha256(wheel.path) for wheel in wheels) and "3 to download" in said[-1]
    shutil.rmtree(index)
    assert wheels_for(None, IMAGE, said.append) == (pins, wheels), "the second time nothing is asked for"
    assert [path.name for path in wheels_folder().iterdir() if path.name.startswith(".incoming")] == []


def test_a_download_that_was_cut_short_goes_on(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.bundle.wheels.requirements_for", lambda models: ["top"])
    write_wheel(index, "top", requires=["leaf"])
    write_wheel(index, "leaf")
    wheels_for(None, IMAGE, print)
    whole = wheels_folder() / f"leaf-1.0-{PURE}.whl"
    data = whole.read_bytes()
    whole.write_bytes(data[:50])
    said: list[str] = []
    wheels_for(None, IMAGE, said.append)
    assert whole.read_bytes() == data and "1 to download" in said[-1]


@given(st.lists(st.tuples(st.integers(0, 10**8), st.booleans()), max_size=60))
def test_every_wheel_is_in_one_batch(sizes: list[tuple[int, bool]]) -> None:
    pins = [
        Pin(name=f"p{n}", version="1", file="p.whl" if has_wheel else None, sha256="0" * 64, bytes=size)
        for n, (size, has_wheel) in enumerate(sizes)
    ]
    found = batches(pins)
    assert sorted(pin.name for batch in found for pin in batch) == sorted(pin.name for pin in pins)
    for batch in found:
        together = len(batch) > 1
        assert len(batch) <= BATCH_FILES and not (together and any(pin.file is None for pin in batch))
        assert not together or sum(pin.bytes for pin in batch) <= BATCH_BYTES


def test_a_file_with_another_hash_is_refused(index: Path, tmp_path: Path) -> None:
    path = write_wheel(index, "top")
    pin = Pin(name="top", version="1.0", file=path.name, sha256="0" * 64, bytes=path.stat().st_size)
    with pytest.raises(ZooError, match=r"pip download: .*(?i:hash)"):
        download([pin], IMAGE, tmp_path)
    assert list(tmp_path.glob("*.whl")) == [] and kept(tmp_path, pin, IMAGE) is None


def test_a_source_that_is_not_pure_python_is_not_built_here(index: Path, tmp_path: Path) -> None:
    source = write_source(index, "native", tag="cp311-cp311-linux_x86_64")
    pin = Pin(name="native", version="1.0", file=None, sha256=file_sha256(source), bytes=1)
    with pytest.raises(ZooError, match="make one on the image"):
        download([pin], IMAGE, tmp_path)
    write_wheel(tmp_path, "native", tag="cp312-cp312-linux_x86_64")  # as the message says
    assert kept(tmp_path, pin, IMAGE) is not None


def test_the_closure_follows_what_the_image_requires(tmp_path: Path) -> None:
    paths = [
        write_wheel(tmp_path, "a", requires=["b[fast]", "c; python_version < '3.12'"]),
        write_wheel(tmp_path, "b", requires=["d; extra == 'fast'", "e; extra == 'slow'", "a"]),
        *(write_wheel(tmp_path, name) for name in "cde"),
    ]
    wheels = [wheel_at(path) for path in paths]
    assert [wheel.name for wheel in closure(["A", "not-there"], wheels, IMAGE)] == ["a", "b", "d"]


def test_requirements_are_this_package_s_own_bounds() -> None:
    light, heavy = requirements_for(None), requirements_for(Models("0.21.0"))
    assert heavy[0] == "vllm==0.21.0" and "uv" in light and not any("mlflow" in line or "optuna" in line for line in heavy)
    assert any(line.startswith("scikit-learn") and ">=1.7" in line for line in light)
    assert {line.partition("<")[0].partition(">")[0] for line in heavy} > {"tokenizers", "safetensors", "psutil", "scipy"}


def test_encoders_get_what_would_lie_beside_vllm_without_it(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By version: the newest torch, and what comes with it, is not the one that the target's vLLM is made for."""
    asked = {True: ["torch", "top"], False: ["vllm==0.21.0", "top"]}
    monkeypatch.setattr("zoo.bundle.wheels.requirements_for", lambda models: asked[models.encoders])
    write_wheel(index, "vllm", "0.21.0", requires=["torch==2.11.0", "leaf<2", "of-vllm-alone"])
    write_wheel(index, "of-vllm-alone")
    for version in ("1.0", "2.0"):
        write_wheel(index, "leaf", version)
    for version in ("2.11.0", "2.13.0"):
        write_wheel(index, "torch", version, requires=["leaf"])
    write_wheel(index, "top")
    pins, _ = wheels_for(Models("0.21.0", encoders=True), IMAGE, print)
    assert {pin.name: pin.version for pin in pins.pins} == {"torch": "2.11.0", "leaf": "1.0", "top": "1.0"}
    assert not list(wheels_folder().glob("vllm*")), "resolved beside it, not downloaded"
    whole, _ = wheels_for(Models("0.21.0"), IMAGE, print)
    assert set(pins.pins) < set(whole.pins)
    unbound, _ = wheels_for(Models("", encoders=True), IMAGE, print)
    assert {pin.version for pin in unbound.pins if pin.name == "torch"} == {"2.13.0"}


def test_what_encoders_are_trained_with_is_among_their_requirements() -> None:
    names = {line.partition("<")[0].partition(">")[0].partition("=")[0] for line in requirements_for(Models("", encoders=True))}
    assert {"torch", "transformers", "tokenizers", "peft", "bitsandbytes"} <= names and "vllm" not in names


def test_a_broken_lock_and_a_broken_wheel_are_named(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"x-1.0-{PURE}.whl").write_text("no zip")
    with pytest.raises(ZooError, match="remove it"):
        wheel_at(tmp_path / f"x-1.0-{PURE}.whl")
    monkeypatch.setattr("zoo.bundle.wheels.requirements_for", lambda models: ["nothing-of-that-name"])
    with pytest.raises(ZooError, match="no set of wheels meets nothing-of-that-name"):
        wheels_for(None, IMAGE, print)
    assert list(wheels_folder().glob("lock-*.json")) == []
    write_wheel(wheels_folder(), "nothing-of-that-name")
    write_wheel(index, "nothing-of-that-name")
    wheels_for(None, IMAGE, print)
    (lock,) = wheels_folder().glob("lock-*.json")
    lock.write_text("{")
    with pytest.raises(ZooError, match=f"{lock.name}: no lock of wheels; remove it"):
        wheels_for(None, IMAGE, print)


@pytest.mark.slow
def test_the_product_s_own_wheel(tmp_path: Path) -> None:
    """It has both packages with their data, installs anywhere, and the same tree makes the same file."""
    wheel = make_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"zoo/targets/t4x2.toml", "zoo/entries/lexical.toml", "ensemble/predict/run.py", "zoo/bundle/contracts.py"} <= names
    assert wheel.name.endswith(f"-{PURE}.whl") and not any("__pycache__" in name or "tests" in name for name in names)
    first = file_sha256(wheel)
    assert file_sha256(make_wheel(tmp_path)) == first
