"""The steps that bundles of a plan and of a training share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zoo.bundle
from zoo.bundle.contracts import BUNDLE, Bundle, BundledFile, BundleTarget, Image, Kind, Part
from zoo.bundle.lock import LOCK, REQUIREMENTS
from zoo.bundle.notebook_file import accelerator, kernel_of, push_command, write_notebook
from zoo.bundle.parts import copy_into, place, record, seal, slug_of, upload_command, write_metadata
from zoo.bundle.product import make_wheel
from zoo.bundle.wheels import LIGHT, Models, closure, wheel_at, wheels_for
from zoo.contracts import Manifest, Say
from zoo.errors import ZooError
from zoo.pipeline.provenance import PROJECT
from zoo.store import MANIFEST, Artifact, write_atomic
from zoo.targets import Target, load_target

WHEELS, JOB, NOTEBOOK = "wheels", "job", "notebook"  # folders of a bundle
NOTEBOOK_AGAIN = "notebook-again"  # of a training: the notebook for its next runs, which reads its own last output
SCRIPT = "script"  # in job/
DRIVER = 580  # the first that runs CUDA 13 (its release notes): what the wheels of vLLM 0.20 and later are made with
APACHE = "Apache-2.0"


@contextmanager
def making(output: Path) -> Iterator[Path]:
    """A folder to make a bundle in, which takes the place of `output` when the block ends well.

    ZooError where something lies there that is no bundle.
    """
    check_place(output)
    output = output.absolute()  # the folder `.` has a name then
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a run that was killed left there
    partial.mkdir(parents=True)
    yield partial
    replace_folder(partial, output)


def check_place(output: Path) -> None:
    """ZooError where something lies at `output` that is no bundle."""
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise ZooError(f"{output}: not a folder; give the name of a new one")
    if output.exists() and any(output.iterdir()) and not (output / JOB / BUNDLE).exists():
        raise ZooError(f"{output}: a folder that is no bundle lies there; give the name of a new one")


def replace_folder(partial: Path, output: Path) -> None:
    """Put a finished folder in its place; what lay there goes."""
    before = output.with_name(f".{output.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    if output.exists():
        output.rename(before)
    partial.rename(output)
    shutil.rmtree(before, ignore_errors=True)


def lent_target(name: str, *, with_engine: bool) -> Target:
    """A machine that notebooks are lent.

    ZooError where it is none, or names no engine that the bundle has to bring.
    """
    target = load_target(name)
    if target.gpus:
        accelerator(target.gpu, target.name)
    if with_engine and not target.engine:
        raise ZooError(f'target {target.name} names no engine, which the bundle brings: give it engine = "0.21.0", say')
    return target


def bundle_target(target: Target) -> BundleTarget:
    """The machine as the bundle states it."""
    return BundleTarget(
        name=target.name,
        gpus=target.gpus,
        gpu=target.gpu,
        compute_capability=target.compute_capability,
        usable_bytes=target.device_bytes,
        engine=target.engine,
    )


def add_wheels(bundle: Path, user: str, models: Models | None, image: Image, say: Say) -> tuple[Part, tuple[str, ...]]:
    """The part of wheels, and the files' names of those that need no engine."""
    pins, found = wheels_for(models, image, say)
    folder = bundle / WHEELS
    folder.mkdir()
    own = wheel_at(make_wheel(folder))
    files = [record(folder, own.path.name, origin=f"{own.name} {own.version}", licence=own.licence, sha256=own.sha256)]
    for wheel in found:
        place(wheel.path, folder / wheel.path.name)
        origin = f"{wheel.name} {wheel.version}"
        files.append(record(folder, wheel.path.name, origin=origin, licence=wheel.licence, sha256=wheel.sha256))
    lock = "".join(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in (*found, own))
    write_atomic(folder / LOCK, lock)
    write_atomic(folder / REQUIREMENTS, "".join(f"{line}\n" for line in pins.requirements))
    files += [record(folder, name, licence=APACHE) for name in (LOCK, REQUIREMENTS)]
    light = closure(LIGHT, found, image)
    part = _sealed(folder, user, "wheels", files, f"pz wheels {models.told}" if models else "pz wheels")
    return part, tuple(wheel.path.name for wheel in (own, *light))


def add_model(bundle: Path, user: str, number: int, artifact: Artifact, members: tuple[str, ...], licence: str) -> Part:
    """A part of one artifact: its folder of the store, as it lies there."""
    folder = bundle / f"model-{number}"
    files = lay_artifact(artifact, folder, Path(), licence)
    return _sealed(folder, user, "model", files, f"pz {artifact.path.name}", artifact=artifact.path.name, members=members)


def _sealed(
    folder: Path,
    user: str,
    kind: Kind,
    files: list[BundledFile],
    title: str,
    *,
    artifact: str | None = None,
    members: tuple[str, ...] = (),
) -> Part:
    """The part of a finished folder, whose marker and metadata are written now; its address has its digest."""
    digest = seal(folder, kind, files)
    title = f"{title} {digest[:8]}"
    write_metadata(folder, user, title)
    return Part(
        name=folder.name,
        kind=kind,
        slug=slug_of(title),
        digest=digest,
        artifact=artifact,
        members=members,
        files=tuple(files),
    )


def lay_artifact(artifact: Artifact, folder: Path, below: Path, licence: str) -> list[BundledFile]:
    """Lay an artifact's files into a folder; their records, hashes by its manifest.

    Without what tells of this machine's folders: logs, and places in the manifest, which are no part of an artifact's identity.
    """
    manifest = _without_places(artifact.manifest)
    for path in manifest.files:
        place(artifact.path / path, folder / below / path)
    write_atomic(folder / below / MANIFEST, manifest.model_dump_json(indent=1))
    files = []
    for path in (*manifest.files, MANIFEST):
        known = manifest.files.get(path)
        name = (below / path).as_posix()
        files.append(record(folder, name, origin=artifact.path.name, licence=licence, sha256=known.sha256 if known else None))
    return files


def _without_places(manifest: Manifest) -> Manifest:
    """A manifest as others may see it: no paths of inputs, no command line, no logs among its files."""
    data = _unplaced(manifest.model_dump(mode="json"))
    data["files"] = {path: file for path, file in data["files"].items() if not path.endswith(".log")}
    return Manifest.model_validate(data | {"argv": ()})


def _unplaced(value: Any) -> Any:
    """Nested plain data in which no input has a path: where a dictionary has a fingerprint, too."""
    if isinstance(value, dict):
        place_of = {"path": ""} if {"path", "fingerprint"} <= value.keys() else {}
        return {key: _unplaced(item) for key, item in value.items()} | place_of
    return [_unplaced(item) for item in value] if isinstance(value, list) else value


def lay_script(job: Path) -> list[BundledFile]:
    """Copy the script that runs in the notebook into the job; its records."""
    files = []
    for path in sorted((Path(zoo.bundle.__file__).parent / "notebook").glob("*.py")):
        copy_into(path, job / SCRIPT / path.name)
        files.append(record(job, f"{SCRIPT}/{path.name}", origin=PROJECT, licence=APACHE))
    return files


def run_commands(folder: Path, bundle: Bundle) -> list[str]:
    """Commands of the host's own program that upload a bundle and run its notebook.

    They are printed, never run. A data set that is there already need not be sent again.
    """
    kernel = kernel_of(bundle)
    uploads = [upload_command(folder / name) for name in (*(part.name for part in bundle.parts), JOB)]
    push = push_command(folder / NOTEBOOK, bundle)
    return [*uploads, push, f"kaggle kernels status {kernel}", f"kaggle kernels logs {kernel}"]


def finish(folder: Path, bundle: Bundle) -> None:
    """Write metadata and notebook, and `bundle.json` last."""
    title = f"pz job {bundle.name}"
    write_metadata(folder / JOB, bundle.owner, title)
    write_notebook(folder / NOTEBOOK, bundle, slug_of(title))
    if bundle.task == "train":
        write_notebook(folder / NOTEBOOK_AGAIN, bundle, slug_of(title), again=True)
    write_atomic(folder / JOB / BUNDLE, bundle.model_dump_json(indent=1) + "\n")
