"""What can be proven of a bundle's folder before it is uploaded: findings with their mends.

What the plan asks of the target is checked by `ensemble.bundle.check`.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name, parse_wheel_filename
from pydantic import ValidationError

from zoo.bundle.assemble import JOB, NOTEBOOK_AGAIN, WHEELS
from zoo.bundle.assemble import NOTEBOOK as NOTEBOOK_FIRST
from zoo.bundle.contracts import BUNDLE, METADATA, Bundle, Part
from zoo.bundle.fatbins import NEVER_LAUNCHED, GpuLibrary, gpu_libraries, lacking
from zoo.bundle.lock import LOCK, REQUIREMENTS, releases_from
from zoo.bundle.notebook_file import KERNEL, NOTEBOOK, cell_sources, kernel_faults, kernel_metadata, notebook_faults
from zoo.bundle.parts import file_faults, metadata_faults, sealed_part, size_faults
from zoo.bundle.tags import tag_fault
from zoo.bundle.undefined import undefined_names
from zoo.checks.finding import Finding, fail, info, ok
from zoo.contracts import first_fault
from zoo.errors import ZooError
from zoo.stages import progress

MOST_FAULTS = 3  # of one kind that are told; the number of the others is
AGAIN = "make the bundle again"


def read_bundle(folder: Path) -> Bundle:
    """What a bundle's folder holds.

    ZooError where it is no bundle, or one that was not finished.
    """
    path = folder / JOB / BUNDLE
    try:
        return Bundle.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ZooError(f"{folder} is no bundle, or was not finished: it has no {JOB}/{BUNDLE}; {AGAIN}") from error
    except ValidationError as error:
        raise ZooError(f"{path}: {first_fault(error)}; {AGAIN}") from error


def check_folder(folder: Path, bundle: Bundle) -> Iterator[Finding]:
    """Every finding about the folder itself, cheap ones first."""
    for name in (NOTEBOOK_FIRST, NOTEBOOK_AGAIN) if bundle.task == "train" else (NOTEBOOK_FIRST,):
        yield check_notebook(folder / name, bundle)
        yield check_kernel(folder / name, bundle, job_slug(folder))
    yield check_metadata(folder, bundle)
    yield check_sizes(folder, bundle)
    yield check_script(folder)
    if any(part.kind == "wheels" for part in bundle.parts):
        wheels = sorted((folder / WHEELS).glob("*.whl"))
        yield check_tags(wheels, bundle)
        yield check_lock(folder / WHEELS, wheels, bundle)
        yield check_gpu_code(wheels, bundle)
    yield check_files(folder, bundle)
    yield licences(bundle)


def job_slug(folder: Path) -> str:
    """The address of the job's data set, as its metadata say; empty where they say nothing."""
    metadata = _json(folder / JOB / METADATA)
    name = metadata.get("id") if isinstance(metadata, dict) else None
    return name.partition("/")[2] if isinstance(name, str) else ""


def check_notebook(folder: Path, bundle: Bundle) -> Finding:
    """Whether the notebook opens, and every name in it is defined where it is read."""
    path = folder / NOTEBOOK
    found = _json(path)
    faults = notebook_faults(found)
    if not faults:
        sources = cell_sources(found)
        try:
            faults = [f"`{name}` is not defined where it is read" for name in undefined_names(sources)]
        except SyntaxError as error:
            faults = [f"no Python: {error}"]
        if not any(f'"{bundle.name}"' in source for source in sources):
            faults.append(f"does not ask for job {bundle.name}")
    what = f"{len(found['cells'])} cells, nbformat 4.{found['nbformat_minor']}, names resolve" if not faults else ""
    return _judged(folder.name, what, [f"{path.name}: {fault}" for fault in faults], AGAIN)


def check_kernel(folder: Path, bundle: Bundle, slug: str) -> Finding:
    """Whether the notebook's metadata are what the host knows and the bundle needs.

    Private, no network, the accelerator, sources that exist. `slug`: of the job's data set.
    """
    metadata = _json(folder / KERNEL)
    wanted = kernel_metadata(bundle, slug, again=folder.name == NOTEBOOK_AGAIN)
    faults = kernel_faults(metadata, wanted)
    sources = metadata.get("dataset_sources", []) if isinstance(metadata, dict) else []
    faults += [f"reads {source}, which no folder here makes" for source in sources if source not in wanted["dataset_sources"]]
    accelerator = metadata.get("machine_shape", "no GPU") if isinstance(metadata, dict) else ""
    what = f"internet off, {accelerator}, {len(sources)} data sets, private"
    return _judged(f"{folder.name}'s metadata", what, [f"{KERNEL}: {fault}" for fault in faults], AGAIN)


def check_metadata(folder: Path, bundle: Bundle) -> Finding:
    """Titles, addresses and licences of the data sets, and the markers of the parts."""
    faults = []
    for name, slug in [(JOB, job_slug(folder)), *((part.name, part.slug) for part in bundle.parts)]:
        found = metadata_faults(_json(folder / name / METADATA), slug, bundle.owner)
        faults += [f"{name}/{METADATA} {fault}" for fault in found]
    for part in bundle.parts:
        faults += sealed_part(folder / part.name, part)
    return _judged("data sets", f"{len(bundle.parts) + 1}, by {bundle.owner}", faults, AGAIN)


def check_sizes(folder: Path, bundle: Bundle) -> Finding:
    """Bytes and number of files of each data set, and names that the host keeps."""
    names = [JOB, *(part.name for part in bundle.parts)]
    faults = [fault for name in names for fault in size_faults(name, folder / name)]
    sizes = {name: sum(path.stat().st_size for path in (folder / name).rglob("*") if path.is_file()) for name in names}
    what = (
        ", ".join(f"{name} {size / 1e9:.2f}" for name, size in sizes.items()) + f"; {sum(sizes.values()) / 1e9:.2f} GB in all"
    )
    return _judged("sizes", what, faults, "leave members out of the plan, or rename the files")


def check_script(folder: Path) -> Finding:
    """Whether every name in the script that runs in the notebook is defined where it is read."""
    faults, files = [], sorted((folder / JOB / "script").glob("*.py"))
    for path in files:
        try:
            faults += [f"{path.name}: `{name}` is not defined where it is read" for name in undefined_names([path.read_text()])]
        except (SyntaxError, UnicodeDecodeError) as error:
            faults.append(f"{path.name}: no Python: {error}")
    if not any(path.name == "__main__.py" for path in files):
        faults.append("job/script has no __main__.py")
    return _judged("script", f"{len(files)} files, names resolve", faults, AGAIN)


def check_tags(wheels: list[Path], bundle: Bundle) -> Finding:
    """Whether the image can install every wheel."""
    faults = [fault for wheel in wheels if (fault := tag_fault(wheel.name, bundle.image))]
    what = f"{len(wheels)} wheels for Python {bundle.image.python}, glibc {bundle.image.glibc}, x86-64"
    return _judged("tags", what, faults, "remove them from ZOO_HOME/wheels; " + AGAIN)


def check_lock(folder: Path, wheels: list[Path], bundle: Bundle) -> Finding:
    """Whether the lock names every wheel, and the folder alone meets what was asked for."""
    mend = "remove ZOO_HOME/wheels/lock-*.json; " + AGAIN
    try:
        locked = locked_releases((folder / LOCK).read_text())
        asked = (folder / REQUIREMENTS).read_text().split("\n")
        resolved = releases_from(folder, [line for line in asked if line], bundle.image)
    except (OSError, ValueError, ZooError) as error:
        return fail("lock", str(error), mend)
    there = {str(parse_wheel_filename(wheel.name)[0]) for wheel in wheels}
    recorded = {file.path: file.sha256 for part in bundle.parts if part.kind == "wheels" for file in part.files}
    hashes = {str(parse_wheel_filename(path)[0]): sha for path, sha in recorded.items() if path.endswith(".whl")}
    faults = [f"{name} is locked and not there" for name in locked if name not in there]
    faults += [f"{name} is there and not locked" for name in there if name not in locked]
    faults += [f"{name} is locked by another hash" for name, (_, sha) in locked.items() if hashes.get(name, sha) != sha]
    faults += [
        f"without an index {name} resolves to {version}, not {locked.get(name, ('nothing', ''))[0]}"
        for name, version in resolved.items()
        if locked.get(name, ("", ""))[0] != version
    ]
    return _judged("lock", f"{len(locked)} packages with hashes; resolves from the folder alone", faults, mend)


def locked_releases(text: str) -> dict[str, tuple[str, str]]:
    """Version and hash by name of a lock's lines `NAME==VERSION --hash=sha256:HASH`.

    ValueError for any other line.
    """
    found = {}
    for line in filter(None, text.splitlines()):
        release, mark, sha256 = line.partition(" --hash=sha256:")
        name, equals, version = release.partition("==")
        if not (mark and equals and len(sha256) == 64):
            raise ValueError(f"{LOCK}: {line!r} is not NAME==VERSION --hash=sha256:HASH")
        found[str(canonicalize_name(name))] = version, sha256
    return found


def check_gpu_code(wheels: list[Path], bundle: Bundle) -> Finding:
    """Whether every library that scoring may use has code that the target's cards run."""
    capability = bundle.target.compute_capability
    if capability is None:
        return info("GPU code", "not looked for: the target has no GPUs")
    name = f"sm_{capability[0]}{capability[1]}"
    try:
        libraries = scan(wheels)
    except (OSError, zipfile.BadZipFile) as error:
        return fail("GPU code", f"a wheel cannot be read: {error}", AGAIN)
    without = lacking(libraries, capability)
    faults = [f"{library.wheel}: {library.path} has none for {name}" for library in without]
    unused = sorted({library.file for library in libraries if library.file in NEVER_LAUNCHED})
    what = f"{name} in {len(libraries) - len(unused)} libraries" + (
        f"; never launched there: {', '.join(unused)}" if unused else ""
    )
    return _judged("GPU code", what, faults, "name another engine in the target")


def scan(wheels: list[Path]) -> list[GpuLibrary]:
    """The libraries with GPU code of all wheels, with progress."""
    size = sum(wheel.stat().st_size for wheel in wheels)
    with progress.bar(size, "look for GPU code", "byte", unit_scale=True) as bar:
        return [library for wheel in wheels for library in gpu_libraries(wheel, read=bar.update)]


def check_files(folder: Path, bundle: Bundle) -> Finding:
    """Whether every file is there with its hash, and no other."""
    parts = [(JOB, bundle.files), *((part.name, part.files) for part in bundle.parts)]
    size = sum(file.bytes for _, files in parts for file in files)
    with progress.bar(size, "verify", "byte", unit_scale=True) as bar:
        faults = [fault for name, files in parts for fault in file_faults(folder / name, files, read=bar.update)]
    return _judged("files", f"{sum(len(files) for _, files in parts)} as recorded, by SHA-256", faults, AGAIN)


def licences(bundle: Bundle) -> Finding:
    """The terms of the weights and packages: told, not judged."""
    weights = [f"{part.name} {_licence_of(part)}" for part in bundle.parts if part.kind == "model"]
    packages = Counter(f.licence for p in bundle.parts if p.kind == "wheels" for f in p.files if f.path.endswith(".whl"))
    told = f"{sum(packages.values())} packages: {', '.join(f'{n} x {name}' for name, n in packages.most_common(4))}, ..."
    return info("licences", "; ".join([*weights, told]) + " (bundle.json has each); data sets are private")


def _licence_of(part: Part) -> str:
    return ", ".join(sorted({file.licence for file in part.files}))


def _judged(check: str, what: str, faults: list[str], mend: str) -> Finding:
    """The finding of a check by the faults that it found."""
    if not faults:
        return ok(check, what)
    more = f" and {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
    return fail(check, "; ".join(faults[:MOST_FAULTS]) + more, mend)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
