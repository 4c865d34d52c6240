"""A first look at weights from elsewhere, by 200 labelled battles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from zoo.contracts import Entry, Held, Input, Say, ScoreRequest, Selection, Variant, changed
from zoo.data.battles import read_battles
from zoo.entries.load import read_entry
from zoo.entries.public_prompts import PUBLIC_PROMPTS, public_prompt
from zoo.errors import ZooError
from zoo.experiments.run import run_chain
from zoo.models.prompts import bounded_label_ids
from zoo.pipeline.chain import battles_input, chain
from zoo.pipeline.first_look import Look, better_prompt, looks
from zoo.store import Artifact
from zoo.targets import visible_gpus

ROWS = 200


def first_look(path: Path, battles: Path, base: str | None, target: str, store: Path, *, say: Say) -> list[Look]:
    """Score a sample of labelled battles with an entry, and look at each variant's answers.

    By the entry's own prompt, and in one order of the answers by public ones: where one of those fits better, the first look
    says so. On this machine's processors where it has no GPU, whatever the target. `base`: the model that its adapters are of,
    a folder or an id. The sample's tables are no member's.
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
    taken = battles_input(battles, say=say)

    def scored(asked: Entry) -> Artifact:
        requests = chain(asked, taken, where, store, held=held, selection=sample, source=source)
        return run_chain(requests, asked, store, say=say, track=False)[-1]

    given = scored(entry)
    classes = made.classes if made is not None and entry.head == "classifier" else None
    found = looks(given, read, classes)
    request = given.manifest.request
    assert isinstance(request, ScoreRequest)
    others = _other_prompts(entry, request.model, request.spec.variants[0])
    if others and entry.score:
        other = scored(changed(entry, score=changed(entry.score, variants=tuple(others))))
        told = better_prompt(given, other, {variant.slug: name for variant, name in others.items()}, read)
        found[0] = replace(found[0], warnings=(*found[0].warnings, *([told] if told else [])))
    return found


def _other_prompts(entry: Entry, model: Input, first: Variant) -> dict[Variant, str]:
    """Variants by public prompts other than the entry's own, with their names: those with its label tokens."""
    if entry.prompt is None:
        return {}
    prompt, folder = first.prompt(entry.prompt), model.path / "model"
    found: dict[Variant, str] = {}
    for name in PUBLIC_PROMPTS:
        try:
            spec, _ = public_prompt(folder, name, classifier=entry.head == "classifier")
            same = bounded_label_ids(folder, prompt) == bounded_label_ids(folder, changed(prompt, template=spec.template))
        except ZooError:  # its tokenizer has no such parts
            continue
        if same and spec.template not in (prompt.template, *(variant.template for variant in found)):
            found[changed(first, template=spec.template)] = name
    return found
