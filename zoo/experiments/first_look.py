"""A first look at weights from elsewhere, by 200 labelled battles."""

from __future__ import annotations

from pathlib import Path

from zoo.contracts import Held, Say, Selection
from zoo.data.battles import read_battles
from zoo.entries.load import read_entry
from zoo.errors import ZooError
from zoo.experiments.run import run_chain
from zoo.pipeline.chain import battles_input, chain
from zoo.pipeline.first_look import Look, looks
from zoo.targets import visible_gpus

ROWS = 200


def first_look(path: Path, battles: Path, base: str | None, target: str, store: Path, *, say: Say) -> list[Look]:
    """Score a sample of labelled battles with an entry, and look at each variant's answers.

    On this machine's processors where it has no GPU, whatever the target. `base`: the model that its adapters are of, a folder
    or an id. The sample's tables are no member's.
    """
    entry, read = read_entry(path), read_battles(battles)
    if not read.labelled:
        raise ZooError(f"{battles}: has no winner columns; give labelled battles")
    made = entry.elsewhere
    folds = len(made.folders) if made is not None and made.by_fold else None
    held = Held(n_folds=folds or 5, rule="near-prompts-1")
    sample = Selection(rows="held_out" if folds else "all", max_rows=ROWS, diagnostic=True)
    source = base if base is not None and Path(base).is_dir() else None
    where = target if visible_gpus() else "cpu"
    requests = chain(entry, battles_input(battles, say=say), where, store, held=held, selection=sample, source=source)
    scored = run_chain(requests, entry, store, say=say, track=False)[-1]
    classes = made.classes if made is not None and entry.head == "classifier" else None
    return looks(scored, read, classes)
