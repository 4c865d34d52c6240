"""Make a bundle of a plan: a folder that appears only when it is whole."""

from __future__ import annotations

import datetime
import shutil
from dataclasses import dataclass
from pathlib import Path

import zoo.bundle
from ensemble.bundle.contents import Checkpoint, checkpoints_of, has_language_models, own_targets, requests_of
from ensemble.plan import Plan, load_plan
from zoo.bundle.contracts import BUNDLE, Bundle, BundledFile, BundleTarget, Image, Kind, Part
from zoo.bundle.lock import LOCK, REQUIREMENTS
from zoo.bundle.notebook_file import accelerator, write_notebook
from zoo.bundle.parts import check_address, copy_into, place, record, seal, slug_of, write_metadata
from zoo.bundle.product import make_wheel
from zoo.bundle.wheels import LIGHT, closure, wheel_at, wheels_for
from zoo.contracts import Say
from zoo.errors import ZooError
from zoo.pipeline.runner import PROJECT
from zoo.store import MANIFEST, write_atomic
from zoo.targets import Target, load_target

PLAN, STORE, SCRIPT, FLASHINFER, TARGETS = "plan.json", "store", "script", "flashinfer", "targets"  # in job/
WHEELS, JOB, NOTEBOOK = "wheels", "job", "notebook"  # folders of a bundle
DRIVER = 580  # the first that runs CUDA 13 (its release notes): what the wheels of vLLM 0.20 and later are made with
APACHE = "Apache-2.0"


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
    checkpoints = checkpoints_of(plan, asked.store)
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a run that was killed left there
    partial.mkdir(parents=True)
    bundle = _Maker(asked, plan, target, modules, partial, say).make(checkpoints)
    replace_folder(partial, output)
    return bundle


def target_of(plan: Plan, name: str | None) -> Target:
    """The machine that the bundle is for.

    ZooError unless notebooks are lent its cards, it has as many as the plan, and it names an engine.
    """
    target = load_target(name or plan.target.name)
    if target.gpus != plan.target.gpus:
        raise ZooError(
            f"the plan is for {plan.target.name} with {plan.target.gpus} GPUs, {target.name} has {target.gpus}; "
            f"build one for it: ensemble build --target {target.name}"
        )
    if target.gpus:
        accelerator(target.gpu, target.name)
    if has_language_models(plan) and not target.engine:
        raise ZooError(f'target {target.name} names no engine, which the bundle brings: give it engine = "0.21.0", say')
    return target


def check_place(output: Path) -> None:
    """ZooError where something lies at `output` that is no bundle."""
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise ZooError(f"{output}: not a folder; give the name of a new one")
    if output.exists() and any(output.iterdir()) and not (output / JOB / BUNDLE).exists():
        raise ZooError(f"{output}: a folder that is no bundle lies there; give the name of a new one")


def compiled_modules(folder: Path) -> list[Path]:
    """FlashInfer's modules below a folder, each NAME/NAME.so as its cache has them.

    ZooError where there are none.
    """
    found = sorted(path for path in folder.rglob("*.so") if path.parent.name == path.stem)
    if not found:
        raise ZooError(f"{folder}: no NAME/NAME.so in it; give the folder of FlashInfer's compiled modules")
    return found


def replace_folder(partial: Path, output: Path) -> None:
    """Put a finished folder in its place; what lay there goes."""
    before = output.with_name(f".{output.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    if output.exists():
        output.rename(before)
    partial.rename(output)
    shutil.rmtree(before, ignore_errors=True)


@dataclass(frozen=True)
class _Maker:
    """The steps of making a bundle, which share what was asked and where it is made."""

    asked: Asked
    plan: Plan
    target: Target
    modules: list[Path]
    folder: Path
    say: Say

    def make(self, checkpoints: list[Checkpoint]) -> Bundle:
        """All folders; the job's `bundle.json` last."""
        image = Image(driver=DRIVER if has_language_models(self.plan) else None)
        wheels, light = self._wheels(image)
        large = [checkpoint for checkpoint in checkpoints if not checkpoint.in_job]
        parts = [wheels, *(self._model(number, checkpoint) for number, checkpoint in enumerate(large, 1))]
        files = self._job([checkpoint for checkpoint in checkpoints if checkpoint.in_job])
        plan_sha256 = next(file.sha256 for file in files if file.path == PLAN)
        bundle = Bundle(
            task="predict",
            created_at=datetime.datetime.now(datetime.UTC),
            name=plan_sha256[:12],
            owner=self.asked.user,
            competition=self.asked.competition,
            target=self._bundle_target(),
            image=image,
            budget_seconds=self.plan.budget_seconds,
            prior=self.plan.prior,
            plan=PLAN,
            plan_sha256=plan_sha256,
            lock=LOCK,
            light=light,
            parts=tuple(parts),
            files=tuple(files),
        )
        title = f"pz job {bundle.name}"
        write_metadata(self.folder / JOB, self.asked.user, title)
        write_notebook(self.folder / NOTEBOOK, bundle, slug_of(title))
        write_atomic(self.folder / JOB / BUNDLE, bundle.model_dump_json(indent=1) + "\n")
        return bundle

    def _bundle_target(self) -> BundleTarget:
        target = self.target
        return BundleTarget(
            name=target.name,
            gpus=target.gpus,
            gpu=target.gpu,
            compute_capability=target.compute_capability,
            usable_bytes=target.device_bytes,
            engine=target.engine,
        )

    def _wheels(self, image: Image) -> tuple[Part, tuple[str, ...]]:
        """The part of wheels, and the files' names of those that a plan without language models needs."""
        engine = self.target.engine if has_language_models(self.plan) else None
        pins, found = wheels_for(engine, image, self.say)
        folder = self.folder / WHEELS
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
        part = self._part(WHEELS, "wheels", files, f"pz wheels vllm {engine}" if engine else "pz wheels")
        return part, tuple(wheel.path.name for wheel in (own, *light))

    def _model(self, number: int, checkpoint: Checkpoint) -> Part:
        """A part of one checkpoint: its folder of the store, as it lies there."""
        name = f"model-{number}"
        folder = self.folder / name
        self.say(f"{name}: {checkpoint.name} for {', '.join(checkpoint.members)}")
        files = self._artifact(checkpoint, folder, Path())
        return self._part(name, "model", files, f"pz {checkpoint.name}", checkpoint)

    def _part(self, name: str, kind: Kind, files: list[BundledFile], title: str, checkpoint: Checkpoint | None = None) -> Part:
        """The part of a finished folder, whose marker and metadata are written now; its address has its digest."""
        folder = self.folder / name
        digest = seal(folder, kind, files)
        title = f"{title} {digest[:8]}"
        write_metadata(folder, self.asked.user, title)
        return Part(
            name=name,
            kind=kind,
            slug=slug_of(title),
            digest=digest,
            artifact=checkpoint.name if checkpoint else None,
            members=checkpoint.members if checkpoint else (),
            files=tuple(files),
        )

    def _artifact(self, checkpoint: Checkpoint, folder: Path, below: Path) -> list[BundledFile]:
        """Lay an artifact's files into a folder; their records, hashes by its manifest."""
        source, manifest = checkpoint.artifact.path, checkpoint.artifact.manifest
        files = []
        for path in (*manifest.files, MANIFEST):
            place(source / path, folder / below / path)
            known = manifest.files.get(path)
            files.append(
                record(
                    folder,
                    (below / path).as_posix(),
                    origin=checkpoint.name,
                    licence=checkpoint.licence,
                    sha256=known.sha256 if known else None,
                )
            )
        return files

    def _job(self, checkpoints: list[Checkpoint]) -> list[BundledFile]:
        """The job's folder: plan, small checkpoints, the script, and what was given for the target."""
        folder = self.folder / JOB
        folder.mkdir()
        shutil.copyfile(self.asked.plan, folder / PLAN)
        files = [record(folder, PLAN)]
        for checkpoint in checkpoints:
            files += self._artifact(checkpoint, folder, Path(STORE) / checkpoint.name)
        script = Path(zoo.bundle.__file__).parent / "notebook"
        for path in sorted(script.glob("*.py")):
            copy_into(path, folder / SCRIPT / path.name)
            files.append(record(folder, f"{SCRIPT}/{path.name}", origin=PROJECT, licence=APACHE))
        for name, path in own_targets([request for _, request in requests_of(self.plan)]).items():
            copy_into(path, folder / TARGETS / f"{name}.toml")
            files.append(record(folder, f"{TARGETS}/{name}.toml"))
        for path in self.modules:
            name = f"{FLASHINFER}/{path.stem}/{path.name}"
            place(path, folder / name)
            files.append(record(folder, name, origin="FlashInfer", licence=APACHE))
        return files
