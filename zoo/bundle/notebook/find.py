"""Find the job, its parts and the competition's file, wherever they are mounted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .places import Refused

BUNDLE, MARKER, SAMPLE, GATEWAY = "bundle.json", "part.json", "sample_submission.csv", "kaggle_evaluation"
BATTLES = {"predict": "test.csv", "train": "train.csv"}  # by task: the competition's file that is read
OTHER_FORMATS = ("parquet", "jsonl", "json", "tsv", "csv.gz", "csv.zip")  # which the zoo reads, and this script does not
TRAINED = "trained.tar"  # what an earlier run of a training notebook left
SCRIPT = "script"  # beside the job's file
DEEPEST = 7  # levels below the inputs: models are mounted at /models/OWNER/SLUG/FRAMEWORK/VARIATION/VERSION


@dataclass(frozen=True)
class Found:
    """What is attached to the notebook.

    `parts`: where each part of the bundle lies, by its name; `battles`: the competition's file; `told`: what is missing,
    doubled or of no use, a line each; `earlier`: what earlier runs of a training left.
    """

    job: Path
    bundle: dict[str, Any]
    parts: dict[str, Path]
    battles: Path
    sample: Path | None
    told: tuple[str, ...]
    earlier: tuple[Path, ...] = ()


def find(inputs: Path) -> Found:
    """Walk the inputs for the job, its parts and the competition's file.

    Refused where there is no job or two different ones, no such file or several, or where the competition asks row by row.
    """
    walked = list(_walk(inputs))
    job, bundle, told = _the_job([folder for folder, names in walked if BUNDLE in names], inputs)
    if bundle["task"] not in BATTLES:
        raise Refused(f"{job / BUNDLE}: task {bundle['task']!r}; upload script and job together")
    parts, more = _the_parts(bundle, [folder for folder, names in walked if MARKER in names])
    gateways = [folder for folder, _ in walked if folder.name == GATEWAY]
    if gateways and bundle["task"] == "predict":
        raise Refused(
            f"{gateways[0]}: this competition asks for rows one by one through a server, and a bundle writes a file: "
            "it cannot be entered with one"
        )
    name = BATTLES[bundle["task"]]
    folders = [folder for folder, names in walked if name in names]
    if not folders and (other := _in_another_format(name, walked)):
        raise Refused(f"{other}: only {name} is read here; write it as CSV into a data set and attach that in its place")
    battles = _the_battles(name, folders, bundle["competition"], inputs)
    sample = battles.with_name(SAMPLE)
    earlier = tuple(folder / TRAINED for folder, names in walked if TRAINED in names)
    return Found(job, bundle, parts, battles, sample if sample.is_file() else None, (*told, *more), earlier)


def lies(folder: Path, path: str) -> Path:
    """Where a file of a mounted part lies.

    That is its path; or one folder deeper, where an archive of a folder was unpacked into a folder of its name once more: how
    the host does that is not documented.
    """
    again = folder / path.partition("/")[0] / path
    return again if "/" in path and not (folder / path).exists() and again.exists() else folder / path


def _walk(inputs: Path) -> Iterator[tuple[Path, set[str]]]:
    """Folders below the inputs and their files' names, in the order of their paths.

    Not what lies below a job or a part, and each folder once, by whatever links it is reached.
    """
    seen = set()
    for place, folders, files in os.walk(inputs, followlinks=True):
        folder, names = Path(place), set(files)
        real = os.path.realpath(place)
        depth = len(folder.relative_to(inputs).parts)
        if real in seen or depth >= DEEPEST or names & {BUNDLE, MARKER}:
            folders.clear()
        folders.sort()
        if real not in seen:
            seen.add(real)
            yield folder, names


def _the_job(jobs: list[Path], inputs: Path) -> tuple[Path, dict[str, Any], list[str]]:
    """The job: other people's data sets may have a file of that name, too, but not with a script beside it."""
    texts = {folder: (folder / BUNDLE).read_bytes() for folder in jobs if (folder / SCRIPT).is_dir()}
    jobs = list(texts)
    if not jobs:
        raise Refused(f"no {BUNDLE} below {inputs} with a {SCRIPT} beside it: attach the bundle's data set `job`")
    if len(set(texts.values())) > 1:
        raise Refused(f"two different jobs: {' and '.join(map(str, jobs))}; detach all but one")
    try:
        bundle = json.loads(texts[jobs[0]])
    except ValueError as error:
        raise Refused(f"{jobs[0] / BUNDLE}: not JSON ({error}); upload the data set `job` again") from error
    if bundle.get("schema_version") != 1:
        raise Refused(f"{jobs[0] / BUNDLE}: schema_version {bundle.get('schema_version')}; upload script and job together")
    twice = [f"the job is mounted {len(jobs)} times, {jobs[0]} is used: detach the others"] if len(jobs) > 1 else []
    return jobs[0], bundle, twice


def _the_parts(bundle: dict[str, Any], markers: list[Path]) -> tuple[dict[str, Path], list[str]]:
    """Where each part lies, by the digest in its marker, and what is to be said of it."""
    by_digest: dict[str, list[Path]] = {}
    told = []
    for folder in markers:
        try:
            by_digest.setdefault(str(json.loads((folder / MARKER).read_bytes())["digest"]), []).append(folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            told.append(f"{folder / MARKER}: cannot be read ({error}); upload that data set again")
    parts = {}
    for part in bundle["parts"]:
        folders = by_digest.pop(part["digest"], [])
        if not folders:
            told.append(f"{part['name']} is not mounted: attach {bundle['owner']}/{part['slug']}, in its newest version")
            continue
        parts[part["name"]] = folders[0]
        if len(folders) > 1:
            others = ", ".join(map(str, folders[1:]))
            told.append(f"{part['name']} is mounted {len(folders)} times, {folders[0]} is used: detach {others}")
    told += [f"{folder}: no part of this job, it is left alone" for folders in by_digest.values() for folder in folders]
    return parts, told


def _in_another_format(name: str, walked: list[tuple[Path, set[str]]]) -> Path | None:
    """The first file called as the competition's that is no plain CSV."""
    others = [f"{name.partition('.')[0]}.{ending}" for ending in OTHER_FORMATS]
    return next((folder / other for folder, names in walked for other in others if other in names), None)


def _the_battles(name: str, folders: list[Path], source: str, inputs: Path) -> Path:
    """The file of the competition, or of a data set OWNER/SLUG: the one below a folder of its name, else the only one."""
    slug = source.rpartition("/")[2]
    found = [folder / name for folder in folders if slug in folder.relative_to(inputs).parts] or [f / name for f in folders]
    if not found:
        raise Refused(f"no {name} below {inputs}: attach {source} to the notebook")
    if len(found) > 1:
        raise Refused(f"several files {name}: {', '.join(map(str, found))}; detach all but that of {source}")
    return found[0]
