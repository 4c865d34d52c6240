"""Wheels for an image: locked once, downloaded once, and kept in the home for every bundle.

`ZOO_HOME/wheels/` holds the files of all sets and a lock a set, so that a second plan downloads nothing. A file has its own
name there only when it is whole and has the hash of its lock.
"""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from email.message import Message
from email.parser import Parser
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from pydantic import ValidationError

from zoo.bundle.contracts import Image, Sha256
from zoo.bundle.lock import Pin, Pins, environment_of_image, resolve
from zoo.bundle.tags import best_wheel, platforms
from zoo.contracts import Contract, Say
from zoo.errors import ZooError
from zoo.pipeline.provenance import PROJECT
from zoo.pipeline.runners.environment import ENVIRONMENT_PIP, SAFE_PATH, environment_of
from zoo.settings import home
from zoo.stages import progress
from zoo.store import file_sha256, locked, write_atomic

# What predicting imports (the lists of CHANGELOG.md and tests/ensemble/predict) of every plan.
LIGHT = ("numpy", "pandas", "pyarrow", "pydantic", "typer", "psutil", "scikit-learn", "scipy", "tqdm")
# And of models, to score and to train them: one set serves both. Without this package's own bound on transformers a
# resolver takes 4.57 beside vLLM 0.21, which reads no `rope_parameters`: it would serve models of 5 with other positions.
FOR_MODELS = (
    *("tokenizers", "safetensors", "transformers", "huggingface-hub"),
    *("peft", "bitsandbytes", "accelerate", "rensa", "jinja2"),
)
TORCH = "torch"  # of what no vLLM brings along; it has no bound of this package's own outside of extras with an engine
INSTALLER = "uv"
BATCH_FILES, BATCH_BYTES = 25, 50 * 10**6  # of one call of pip


@dataclass(frozen=True)
class Models:
    """The models that a bundle's environment runs, beside members that need none.

    `vllm`: the version that the target is served by; empty where it names none. `encoders`: nothing but encoders, which are
    scored and trained without it. They get the packages that would lie beside it, by version: a mixed plan's numbers are
    theirs, and its files.
    """

    vllm: str
    encoders: bool = False

    @property
    def told(self) -> str:
        """What the set of wheels is called."""
        return TORCH if self.encoders else f"vllm {self.vllm}"


class Wheel(Contract):
    """A wheel that is at hand: where it comes from, and what its maker says of it."""

    path: Path
    name: str
    version: str
    sha256: Sha256
    licence: str


def wheels_folder() -> Path:
    """Where the home keeps wheels."""
    return home() / "wheels"


def requirements_for(models: Models | None) -> list[str]:
    """What a bundle's environment needs beside this package, as requirements.

    This package's own bounds, an installer, and what runs models if there are any.
    """
    wanted = {*LIGHT, *(FOR_MODELS if models else ())}
    bounds = [Requirement(text) for text in requires(PROJECT) or ()]
    own = {f"{bound.name}{bound.specifier}" for bound in bounds if _counts(bound) and canonicalize_name(bound.name) in wanted}
    engine = [] if models is None else [TORCH] if models.encoders else [f"vllm=={models.vllm}"]
    return [*engine, INSTALLER, *sorted(own)]


def _counts(bound: Requirement) -> bool:
    """Whether this package's bound is one of its own, or of its model stages."""
    return bound.marker is None or bound.marker.evaluate({"extra": "models"})


def wheels_for(models: Models | None, image: Image, say: Say) -> tuple[Pins, list[Wheel]]:
    """Every wheel that the image installs to predict, this package's own excepted.

    `models`: what it runs beside members that need none; None: nothing.

    Resolved and downloaded where the home lacks it; a download that was cut short goes on where it stopped.
    """
    folder = wheels_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "wheels", on_wait=lambda: say("waiting for another command that downloads wheels")):
        pins = _pins_for(folder, models, image, say)
        missing = [pin for pin in pins.pins if kept(folder, pin, image) is None]
        if missing:
            size = sum(pin.bytes for pin in missing)
            say(f"wheels: {len(pins.pins)} packages, {len(missing)} to download, {size / 1e9:.2f} GB")
            with progress.bar(size, "download", "byte", unit_scale=True) as bar:
                for batch in batches(missing):
                    bar.set_postfix_str(batch[0].release, refresh=False)
                    download(batch, image, folder)
                    bar.update(sum(pin.bytes for pin in batch))
    return pins, [_wheel(folder, pin, image) for pin in pins.pins]


def _pins_for(folder: Path, models: Models | None, image: Image, say: Say) -> Pins:
    """The lock of a set: of encoders alone by the versions of the set that has their target's vLLM."""
    beside: Sequence[str] = ()
    if models is not None and models.encoders and models.vllm:
        whole = _locked_pins(folder, requirements_for(replace(models, encoders=False)), image, say)
        beside = [f"{pin.name}=={pin.version}" for pin in whole.pins]
    return _locked_pins(folder, requirements_for(models), image, say, beside)


def _locked_pins(folder: Path, requirements: Sequence[str], image: Image, say: Say, constraints: Sequence[str] = ()) -> Pins:
    """The lock of these requirements, made where there is none; to have newer packages one removes the file."""
    asked = json.dumps([list(requirements), image.python, image.glibc, *([list(constraints)] if constraints else [])])
    path = folder / f"lock-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json"
    try:
        return Pins.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        pass
    except ValidationError as error:
        raise ZooError(f"{path}: no lock of wheels; remove it, and it is made again") from error
    say(f"wheels: resolving {', '.join(requirements)} for Python {image.python}")
    pins = resolve(requirements, image, constraints)
    write_atomic(path, pins.model_dump_json(indent=1) + "\n")
    return pins


def kept(folder: Path, pin: Pin, image: Image) -> Path | None:
    """The file of a pin in the home, None where it lacks it.

    Of a package without a wheel on the index, one that was made of its source.
    """
    if pin.file is not None:
        path = folder / pin.file
        return path if path.is_file() and _is_whole(path, pin) else None
    prefix = f"{pin.name.replace('-', '_')}-{pin.version}-"
    found = best_wheel([path.name for path in folder.glob("*.whl") if path.name.lower().startswith(prefix)], image)
    return folder / found if found else None


def _is_whole(path: Path, pin: Pin) -> bool:
    """Whether a file that got its name when it was whole still is: by size, by hash where the index tells no size."""
    return path.stat().st_size == pin.bytes if pin.bytes else file_sha256(path) == pin.sha256


def batches(pins: Sequence[Pin]) -> list[list[Pin]]:
    """What pip fetches in one call: large wheels alone, small ones together.

    Each call takes a second to start.

    Largest first. A call that is cut short loses what it had fetched.
    """
    found: list[list[Pin]] = []
    for pin in sorted(pins, key=lambda pin: (pin.file is None, -pin.bytes)):
        room = bool(found) and found[-1][-1].file is not None and pin.file is not None
        if room and len(found[-1]) < BATCH_FILES and sum(other.bytes for other in found[-1]) + pin.bytes <= BATCH_BYTES:
            found[-1].append(pin)
        else:
            found.append([pin])
    return found


def download(pins: Sequence[Pin], image: Image, folder: Path) -> None:
    """Put the wheels of a batch into a folder, by pip, which checks their hashes.

    One is made of the source where the index has none.

    ZooError with pip's own words where that fails.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".incoming-") as scratch:
        asked = Path(scratch) / "asked.txt"
        asked.write_text("".join(f"{pin.name}=={pin.version} --hash=sha256:{pin.sha256}\n" for pin in pins))
        common = ("-q", "--no-deps", "--require-hashes", "--disable-pip-version-check", "-r", str(asked))
        if all(pin.file is not None for pin in pins):
            named = {tag for pin in pins for tag in (pin.file or "").removesuffix(".whl").rpartition("-")[2].split(".")}
            on = [word for tag in platforms(image.glibc) if tag in named for word in ("--platform", tag)]
            python = ("--python-version", image.python, "--implementation", "cp")
            _pip("download", *common, "--only-binary=:all:", "--no-cache-dir", *python, *on, "-d", scratch)
        else:
            _pip("wheel", *common, "--no-binary", ",".join(pin.name for pin in pins), "-w", scratch)
        for wheel in sorted(Path(scratch).glob("*.whl")):
            if pins[0].file is None and not wheel.name.endswith("-none-any.whl"):
                raise ZooError(
                    f"{pins[0].release} has no wheel for Python {image.python} and is not pure Python: make one on the image "
                    f"by `pip wheel {pins[0].name}=={pins[0].version}` and put it into {folder}",
                    exit_code=1,
                )
            wheel.replace(folder / wheel.name)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment_of(ENVIRONMENT_PIP) | SAFE_PATH, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        raise ZooError(f"pip {arguments[0]}: {reason}; the same command goes on from here", exit_code=1)


def _wheel(folder: Path, pin: Pin, image: Image) -> Wheel:
    path = kept(folder, pin, image)
    assert path is not None
    return wheel_at(path, None if pin.file is None else pin.sha256)


def wheel_at(path: Path, sha256: str | None = None) -> Wheel:
    """A wheel and what its metadata say; its hash is computed where it is not known."""
    name, version, *_ = parse_wheel_filename(path.name)
    return Wheel(
        path=path, name=name, version=str(version), sha256=sha256 or file_sha256(path), licence=_licence(wheel_metadata(path))
    )


@functools.cache
def wheel_metadata(path: Path) -> Message:
    """The core metadata of a wheel; ZooError where it has none, or is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA") and name.count("/") == 1)
            return Parser().parsestr(archive.read(name).decode("utf-8", "replace"), headersonly=True)
    except (OSError, zipfile.BadZipFile, StopIteration, EOFError) as error:
        raise ZooError(
            f"{path}: no wheel that can be read ({error or 'no METADATA'}); remove it, it is downloaded again"
        ) from error


def _licence(metadata: Message) -> str:
    """As the maker states it: by expression, by classifier, or in words whose first line is short."""
    expression = metadata.get("License-Expression")
    classifiers = [c.rpartition("::")[2].strip() for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
    words = (metadata.get("License") or "").strip().splitlines()
    return expression or ", ".join(classifiers) or (words[0][:80] if words and words[0].strip() else "unknown")


def closure(roots: Iterable[str], wheels: Sequence[Wheel], image: Image) -> list[Wheel]:
    """The wheels that some packages need of a set, these among them.

    By what each wheel requires on the image.
    """
    by_name = {wheel.name: wheel for wheel in wheels}
    found: dict[str, Wheel] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(root), "") for root in roots]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen or name not in by_name:
            continue
        seen.add((name, extra))
        found[name] = by_name[name]
        for text in wheel_metadata(found[name].path).get_all("Requires-Dist", []):
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({**environment_of_image(image), "extra": extra}):
                waiting += [(canonicalize_name(needed.name), more) for more in ("", *needed.extras)]
    return [found[name] for name in sorted(found)]
