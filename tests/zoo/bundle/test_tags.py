"""Which wheels Kaggle's Python 3.12 with glibc 2.35 takes: pip's own verdict on the same names is the oracle."""

import itertools
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import parse_wheel_filename

from zoo.bundle.contracts import Image
from zoo.bundle.tags import best_wheel, platforms, tag_fault

IMAGE = Image()


@pytest.mark.parametrize(
    "tag",
    [
        *("py3-none-any", "py2.py3-none-any", "cp312-none-any", "cp312-cp312-manylinux_2_28_x86_64", "cp312-abi3-linux_x86_64"),
        *("cp38-abi3-manylinux_2_24_x86_64", "cp312-cp312-manylinux2014_x86_64.manylinux_2_17_x86_64"),
        *("py3-none-manylinux_2_27_x86_64", "cp312-cp312-manylinux_2_35_x86_64", "cp36-abi3-manylinux1_x86_64"),
    ],
)
def test_wheels_that_the_image_takes(tag: str) -> None:
    assert tag_fault(f"thing-1.0-{tag}.whl", IMAGE) == ""


@pytest.mark.parametrize(
    "tag",
    [
        *("cp311-cp311-manylinux_2_17_x86_64", "cp313-cp313-manylinux_2_28_x86_64", "cp312-cp312t-manylinux_2_28_x86_64"),
        *("cp312-cp312-manylinux_2_36_x86_64", "cp312-cp312-manylinux_2_28_aarch64", "cp312-cp312-musllinux_1_2_x86_64"),
        *("cp312-cp312-win_amd64", "cp313-abi3-manylinux_2_17_x86_64", "py2-none-any", "cp312-cp312-macosx_14_0_arm64"),
    ],
)
def test_wheels_that_it_does_not(tag: str) -> None:
    fault = tag_fault(f"thing-1.0-{tag}.whl", IMAGE)
    assert fault.startswith(f"thing-1.0-{tag}.whl is for ") and "Python 3.12" in fault and "glibc 2.35" in fault


def test_what_is_no_wheel() -> None:
    assert "thing.zip" in tag_fault("thing.zip", IMAGE) and tag_fault("thing-1.0.whl", IMAGE)


def test_pip_agrees() -> None:
    """Every tag that pip lists for that Python and these platforms, and no other, among thousands."""
    names = [word for platform in platforms("2.35") for word in ("--platform", platform)]
    options = ["--python-version", "3.12", "--implementation", "cp", "-v"]
    told = subprocess.run(
        [sys.executable, "-m", "pip", "debug", *options, *names], capture_output=True, text=True, check=True
    ).stdout
    accepted = {line.strip() for line in told.splitlines() if line.count("-") == 2 and line.startswith("  ")}
    assert len(accepted) > 500
    interpreters = ("cp37", "cp311", "cp312", "cp313", "py3", "py311", "py312", "py313", "py2", "pp310")
    abis = ("none", "abi3", "cp311", "cp312", "cp313")
    systems = ("any", "linux_x86_64", "linux_aarch64", "manylinux_2_36_x86_64", "win_amd64", *platforms("2.35")[::4])
    ours = {
        tag for tag in map("-".join, itertools.product(interpreters, abis, systems)) if not tag_fault(f"a-1-{tag}.whl", IMAGE)
    }
    theirs = {tag for tag in map("-".join, itertools.product(interpreters, abis, systems)) if tag in accepted}
    assert ours == theirs


@given(st.permutations(["a-1-py3-none-any.whl", "a-1-cp312-cp312-manylinux_2_28_x86_64.whl", "a-1-cp313-cp313-win_amd64.whl"]))
def test_the_closest_wheel_wins_in_any_order(wheels: list[str]) -> None:
    assert best_wheel(wheels, IMAGE) == "a-1-cp312-cp312-manylinux_2_28_x86_64.whl"


def test_of_equal_tags_the_higher_build_wins() -> None:
    wheels = ["v-1-cp38-abi3-manylinux_2_24_x86_64.whl", "v-1-2-cp38-abi3-manylinux_2_24_x86_64.whl"]
    assert best_wheel(wheels, IMAGE) == best_wheel(wheels[::-1], IMAGE) == wheels[1]
    assert parse_wheel_filename(wheels[1])[2] == (2, "")


def test_nothing_fits() -> None:
    assert best_wheel(["a-1-cp313-cp313-win_amd64.whl"], IMAGE) is None and best_wheel([], IMAGE) is None
