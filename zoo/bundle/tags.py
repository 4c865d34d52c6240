"""Which wheels an image can install, by the tags in their names."""

from __future__ import annotations

import functools

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from zoo.bundle.contracts import Image

OLDEST_GLIBC = 5  # manylinux1; PEP 600 names the later ones by glibc's minor version
LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}  # PEP 571, 599: other names of the same


def tag_fault(wheel: str, image: Image) -> str:
    """Why a wheel of this file name cannot be installed on the image; empty where it can."""
    try:
        tags = parse_wheel_filename(wheel)[3]
    except InvalidWheelFilename as error:
        return str(error)
    if tags & _ranks(image.python, image.glibc).keys():
        return ""
    named = ".".join(sorted(map(str, tags)))
    return f"{wheel} is for {named}, not for Python {image.python} with glibc {image.glibc} on x86-64"


def best_wheel(wheels: list[str], image: Image) -> str | None:
    """The wheel of these that an installer takes on the image; None where none fits.

    Closest tags first, then the highest build number.
    """
    ranks = _ranks(image.python, image.glibc)

    def closeness(wheel: str) -> tuple[int, tuple[int, str] | tuple[()]]:
        _, _, build, tags = parse_wheel_filename(wheel)
        return -min(ranks.get(tag, len(ranks)) for tag in tags), build

    fitting = [wheel for wheel in wheels if not tag_fault(wheel, image)]
    return max(fitting, key=closeness) if fitting else None


def platforms(glibc: str) -> list[str]:
    """Names of x86-64 Linux with that glibc, the newest first."""
    newest = int(glibc.partition(".")[2])
    found = []
    for minor in range(newest, OLDEST_GLIBC - 1, -1):
        found.append(f"manylinux_2_{minor}_x86_64")
        found += [f"{LEGACY[minor]}_x86_64"] if minor in LEGACY else []
    return [*found, "linux_x86_64"]


@functools.cache
def _ranks(python: str, glibc: str) -> dict[Tag, int]:
    """Every tag that the image takes, with its place: 0 is the closest."""
    major, minor = map(int, python.split("."))
    interpreter, known = f"cp{major}{minor}", platforms(glibc)
    own = cpython_tags((major, minor), abis=[interpreter], platforms=known)
    pure = compatible_tags((major, minor), interpreter, platforms=known)
    return {tag: rank for rank, tag in enumerate(dict.fromkeys([*own, *pure]))}
