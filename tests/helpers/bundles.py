"""Bundles for tests: the real script and contract, with parts that are made in a moment."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.helpers.paths import ROOT
from zoo.bundle import Bundle, BundledFile, BundleTarget, Image, Marker, Part
from zoo.bundle.contracts import BUNDLE, MARKER, UNCOUNTED, digest_of
from zoo.bundle.training import TRAINING, Training

SCRIPT = ROOT / "zoo" / "bundle" / "notebook"
COMPETITION = "llm-classification-finetuning"
T4X2 = BundleTarget(name="t4x2", gpus=2, gpu="T4", compute_capability=(7, 5), usable_bytes=15636037632, engine="0.21.0")


def small_bundle(
    folder: Path,
    plan: Path,
    store: Path,
    *,
    in_job: Sequence[str],
    models: Mapping[str, Sequence[str]] | None = None,
    wheels: Path | None = None,
    light: Sequence[str] = (),
    image: Image | None = None,
    budget_seconds: float = 32400,
) -> Bundle:
    """A bundle of a plan and of artifacts of a store, by their folders' names.

    `in_job`: those that lie in the job; `models`: each a part of its own, with its members. `wheels`: a folder of wheels with
    `requirements.lock`.
    """
    data = plan.read_bytes()
    job = folder / "job"
    shutil.copytree(SCRIPT, job / "script", ignore=shutil.ignore_patterns("__pycache__"))
    (job / "plan.json").write_bytes(data)
    for name in in_job:
        shutil.copytree(store / name, job / "store" / name)
    parts = []
    if wheels is not None:
        shutil.copytree(wheels, folder / "wheels")
        parts.append(_part(folder / "wheels", Part, "wheels"))
    for number, (artifact, members) in enumerate((models or {}).items(), start=1):
        shutil.copytree(store / artifact, folder / f"model-{number}")
        parts.append(_part(folder / f"model-{number}", Part, "model", artifact=artifact, members=tuple(members)))
    sha256 = hashlib.sha256(data).hexdigest()
    bundle = Bundle(
        task="predict",
        created_at=datetime.now(UTC),
        name=sha256[:12],
        owner="somebody",
        competition=COMPETITION,
        target=T4X2,
        image=image or Image(driver=580),
        budget_seconds=budget_seconds,
        prior=tuple(json.loads(data)["prior"]),
        plan="plan.json",
        plan_sha256=sha256,
        lock="requirements.lock",
        light=tuple(light),
        parts=tuple(parts),
        files=records(job),
    )
    (job / BUNDLE).write_text(bundle.model_dump_json(indent=1))
    return bundle


def training_bundle(folder: Path, training: Training, base: Path) -> Bundle:
    """A bundle that trains, of base weights in a store's folder, without wheels."""
    job, data = folder / "job", training.model_dump_json().encode()
    shutil.copytree(SCRIPT, job / "script", ignore=shutil.ignore_patterns("__pycache__"))
    (job / TRAINING).write_bytes(data)
    shutil.copytree(base, folder / "model-1")
    sha256 = hashlib.sha256(data).hexdigest()
    bundle = Bundle(
        task="train",
        created_at=datetime.now(UTC),
        name=sha256[:12],
        owner="somebody",
        competition=COMPETITION,
        target=T4X2,
        image=Image(driver=580),
        budget_seconds=3600,
        plan=TRAINING,
        plan_sha256=sha256,
        lock="requirements.lock",
        light=(),
        parts=(_part(folder / "model-1", Part, "model", artifact=base.name, members=()),),
        files=records(job),
    )
    (job / BUNDLE).write_text(bundle.model_dump_json(indent=1))
    return bundle


def records(folder: Path) -> tuple[BundledFile, ...]:
    """Every file below a folder as a bundle records it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in UNCOUNTED)
    return tuple(
        BundledFile(
            path=path.relative_to(folder).as_posix(),
            bytes=path.stat().st_size,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            origin="made here",
            licence="none",
        )
        for path in files
    )


def _part(folder: Path, make: type[Part], kind: str, **fields: object) -> Part:
    files = records(folder)
    digest = digest_of(files)
    (folder / MARKER).write_text(Marker(kind=kind, digest=digest).model_dump_json())
    slug = f"{folder.name}-{digest[:8]}"
    return make(name=folder.name, kind=kind, slug=slug, digest=digest, files=files, **fields)


def attach(bundle: Bundle, folder: Path, inputs: Path, test: Path) -> Path:
    """Lay out inputs as a notebook mounts them today, by links; where the job is."""
    for name, slug in [("job", f"job-{bundle.name}"), *((part.name, part.slug) for part in bundle.parts)]:
        place = inputs / "datasets" / bundle.owner / slug
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to((folder / name).absolute())
    competition = inputs / "competitions" / bundle.competition
    competition.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(test, competition / "test.csv")
    return inputs / "datasets" / bundle.owner / f"job-{bundle.name}"


def cell_environment(folder: Path, inputs: Path, **more: str) -> dict[str, str]:
    """The variables of a notebook's cell whose places lie in a folder."""
    for name in ("working", "scratch", "home"):
        (folder / name).mkdir(exist_ok=True)
    usual = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "LANG": "C.UTF-8",
        "PZ_INPUT": str(inputs),
        "PZ_WORKING": str(folder / "working"),
        "PZ_SCRATCH": str(folder / "scratch"),
    }
    return usual | more
