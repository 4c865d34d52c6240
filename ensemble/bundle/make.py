"""Make a bundle of a plan: a folder that appears only when it is whole."""

from __future__ import annotations

import datetime
import shutil
from dataclasses import dataclass
from pathlib import Path

from ensemble.bundle.contents import Checkpoint, checkpoints_of, engines_of, models_of, own_targets, requests_of
from ensemble.plan import Plan, load_plan
from zoo.bundle.assemble import (
    APACHE,
    DRIVER,
    JOB,
    add_model,
    add_wheels,
    bundle_target,
    check_place,
    finish,
    lay_artifact,
    lay_script,
    lent_target,
    making,
)
from zoo.bundle.contracts import Bundle, BundledFile, Image
from zoo.bundle.lock import LOCK
from zoo.bundle.parts import check_address, copy_into, place, record
from zoo.contracts import Say
from zoo.errors import ZooError
from zoo.targets import Target, load_target

PLAN, STORE, FLASHINFER, TARGETS = "plan.json", "store", "flashinfer", "targets"  # in job/


@dataclass(frozen=True)
class Asked:
    """What a bundle is made of, and for whom.

    `target` None: the plan's; `modules`: FlashInfer's, compiled for the card.
    """

    plan: Path
    competition: str
    user: str
    store: Path
    target: str | None = None
    modules: Path | None = None


def make_bundle(asked: Asked, output: Path, say: Say) -> Bundle:
    """Make the folder `output`; an earlier bundle there is replaced.

    It is made beside its place and moved there when it is whole. ZooError before anything is downloaded where the plan cannot
    run in a notebook, or where something else lies at `output`.
    """
    check_address(asked.user, "--user")
    check_address(asked.competition, "--competition")
    check_place(output)
    modules = compiled_modules(asked.modules) if asked.modules is not None else []
    plan = load_plan(asked.plan)
    target = target_of(plan, asked.target)
    checkpoints_of(plan, asked.store)  # what is not there is told before gigabytes are downloaded
    with making(output) as folder:
        return _made(asked, plan, target, modules, folder, say)


def target_of(plan: Plan, name: str | None) -> Target:
    """The machine that the bundle is for.

    ZooError unless notebooks are lent its cards, it has as many as the plan, and it names an engine where language models
    need it.
    """
    target = load_target(name or plan.target.name)
    if target.gpus != plan.target.gpus:
        raise ZooError(
            f"the plan is for {plan.target.name} with {plan.target.gpus} GPUs, {target.name} has {target.gpus}; "
            f"build one for it: ensemble build --target {target.name}"
        )
    return lent_target(target.name, with_engine="vllm" in engines_of(plan))


def compiled_modules(folder: Path) -> list[Path]:
    """FlashInfer's modules below a folder, each NAME/NAME.so as its cache has them.

    ZooError where there are none.
    """
    found = sorted(path for path in folder.rglob("*.so") if path.parent.name == path.stem)
    if not found:
        raise ZooError(f"{folder}: no NAME/NAME.so in it; give the folder of FlashInfer's compiled modules")
    return found


def _made(asked: Asked, plan: Plan, target: Target, modules: list[Path], folder: Path, say: Say) -> Bundle:
    """All folders of the bundle; the job's `bundle.json` last."""
    models = models_of(plan, target)
    image = Image(driver=DRIVER if models else None)
    wheels, light = add_wheels(folder, asked.user, models, image, say)
    checkpoints = checkpoints_of(plan, asked.store)
    parts = [wheels]
    for number, one in enumerate((one for one in checkpoints if not one.in_job), 1):
        say(f"model-{number}: {one.name} for {', '.join(one.members)}")
        parts.append(add_model(folder, asked.user, number, one.artifact, one.members, one.licence))
    files = _job(folder / JOB, asked.plan, plan, [one for one in checkpoints if one.in_job], modules)
    plan_sha256 = next(file.sha256 for file in files if file.path == PLAN)
    bundle = Bundle(
        task="predict",
        created_at=datetime.datetime.now(datetime.UTC),
        name=plan_sha256[:12],
        owner=asked.user,
        competition=asked.competition,
        target=bundle_target(target),
        image=image,
        budget_seconds=plan.budget_seconds,
        prior=plan.prior,
        plan=PLAN,
        plan_sha256=plan_sha256,
        lock=LOCK,
        light=light,
        parts=tuple(parts),
        files=tuple(files),
    )
    finish(folder, bundle)
    return bundle


def _job(job: Path, file: Path, plan: Plan, checkpoints: list[Checkpoint], modules: list[Path]) -> list[BundledFile]:
    """The job's folder: plan, small checkpoints, the script, and what was given for the target."""
    job.mkdir()
    shutil.copyfile(file, job / PLAN)
    files = [record(job, PLAN)]
    for one in checkpoints:
        files += lay_artifact(one.artifact, job, Path(STORE) / one.name, one.licence)
    files += lay_script(job)
    for name, path in own_targets([request for _, request in requests_of(plan)]).items():
        copy_into(path, job / TARGETS / f"{name}.toml")
        files.append(record(job, f"{TARGETS}/{name}.toml"))
    for path in modules:
        name = f"{FLASHINFER}/{path.stem}/{path.name}"
        place(path, job / name)
        files.append(record(job, name, origin="FlashInfer", licence=APACHE))
    return files
