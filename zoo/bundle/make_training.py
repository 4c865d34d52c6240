"""Make a bundle that trains an entry's folds in a notebook."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.bundle.assemble import (
    DRIVER,
    JOB,
    NOTEBOOK_AGAIN,
    add_model,
    add_wheels,
    bundle_target,
    check_place,
    finish,
    lay_script,
    lent_target,
    making,
    run_commands,
)
from zoo.bundle.contracts import Bundle, Image
from zoo.bundle.lock import LOCK
from zoo.bundle.notebook_file import kernel_of, push_command
from zoo.bundle.parts import check_address, record
from zoo.bundle.trained import ARCHIVE
from zoo.bundle.training import TRAINING, Training
from zoo.bundle.wheels import Models
from zoo.contracts import Entry, FoldRule, Say
from zoo.errors import ZooError
from zoo.pipeline.weights import fetched
from zoo.store import Artifact, check_files, write_atomic
from zoo.targets import load_target


@dataclass(frozen=True)
class Asked:
    """What is to be trained, on whose files, and for whom.

    `data`: the address of a competition or a data set (OWNER/SLUG) with a train.csv. `folds`: those to train of `n_folds`.
    `hours`: of a notebook, installing included.
    """

    entry: Entry
    data: str
    user: str
    store: Path
    target: str
    n_folds: int
    folds: Sequence[int]
    rule: FoldRule | None
    hours: float


def make_training_bundle(asked: Asked, output: Path, say: Say) -> Bundle:
    """Make the folder `output`; an earlier bundle there is replaced.

    ZooError before anything is downloaded where the entry cannot be trained in a notebook, its base weights are not in the
    store, or something else lies at `output`.
    """
    check_address(asked.user, "--user")
    for part in asked.data.split("/", 1):
        check_address(part, "--data")
    check_place(output)
    if not load_target(asked.target).gpus:
        raise ZooError(f"--target {asked.target} has no GPU, which training in a notebook is for; give t4x2 or t4")
    encoders = asked.entry.kind == "encoder"
    target = lent_target(asked.target, with_engine=not encoders)
    training, base = training_of(asked)
    with making(output) as folder:
        image = Image(driver=DRIVER)
        wheels, light = add_wheels(folder, asked.user, Models(target.engine, encoders), image, say)
        say(f"model-1: {base.path.name}, the base weights of {asked.entry.name}")
        assert asked.entry.base
        weights = add_model(folder, asked.user, 1, base, (), asked.entry.base.licence)
        job, text = folder / JOB, training.model_dump_json(indent=1).encode()
        job.mkdir()
        write_atomic(job / TRAINING, text)
        sha256 = hashlib.sha256(text).hexdigest()
        bundle = Bundle(
            task="train",
            created_at=datetime.datetime.now(datetime.UTC),
            name=sha256[:12],
            owner=asked.user,
            competition=asked.data,
            target=bundle_target(target),
            image=image,
            budget_seconds=3600 * asked.hours,
            plan=TRAINING,
            plan_sha256=sha256,
            lock=LOCK,
            light=light,
            parts=(wheels, weights),
            files=(record(job, TRAINING), *lay_script(job)),
        )
        finish(folder, bundle)
        return bundle


def training_of(asked: Asked) -> tuple[Training, Artifact]:
    """What the notebook is told to train, and the base weights in the store."""
    entry = asked.entry
    if entry.elsewhere is not None:
        raise ZooError(f"{entry.name}: its weights were trained elsewhere, and are not trained here")
    if not entry.train or not entry.prompt:
        raise ZooError(f"{entry.name}: {entry.a_kind} is trained in seconds where it is used: zoo run {entry.name}")
    more = [name for name in ("teacher", "extra", "first", "start") if getattr(entry.train, name)]
    if more:
        raise ZooError(f"train.{more[0]}: a bundle brings nothing to learn from beside the data; leave it out")
    base = fetched(entry, asked.store)
    if base is None:
        raise ZooError(f"{entry.name}: its base weights are not in the store; get them by `zoo fetch {entry.name}`")
    check_files(base)
    return Training(entry=entry, base=base.path.name, n_folds=asked.n_folds, rule=asked.rule, folds=tuple(asked.folds)), base


def commands_of(bundle: Bundle, folder: Path) -> list[str]:
    """Upload, push, watch, fetch and take home; then the next run, while a fold is not finished."""
    return [
        *run_commands(folder, bundle),
        f"kaggle kernels output {kernel_of(bundle)} -p out",
        f"zoo unbundle out/{ARCHIVE}",
        push_command(folder / NOTEBOOK_AGAIN, bundle) + "  # where a fold is not finished: goes on from the last output",
    ]
