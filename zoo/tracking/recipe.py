"""The settings behind a run, of all stages before it, and which are not the entry's.

A scored run carries what it was trained, merged and quantized with, so that MLflow's Compare, its charts and its filters answer
which setting helped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo.contracts import Entry, Manifest, QuantizeRequest, TrainRequest, spec_of_form
from zoo.entries.load import load_entry
from zoo.errors import ZooError
from zoo.pipeline.stage_table import stage_of
from zoo.store import identity, source_of
from zoo.tracking.home import public

# Template: pages of text in a table cell; variants: each has a run of its own; the rest is in tags or never changes.
LEFT_OUT = (
    *("prompt.template", "prompt.turn_separator", "prompt.empty_text", "score.variants", "priced"),
    *("stage", "schema_version", "revision", "entry", "target", "battles"),
)
TELLING = ("head", *(f"train.{name}" for name in ("learning_rate", "epochs", "label_smoothing", "targets", "extra", "method")))
EARLIER = ("train", "merge", "quantize", "lexical-train")  # stages whose settings a later one's run has, too
OF_EARLIER = ("head", "train", "merge", "quantize", "lexical", "held")  # the sections of theirs that it has


def stage_params(manifest: Manifest) -> dict[str, str]:
    """The request's settings, flattened: `train.learning_rate`, `prompt.max_tokens`.

    Inputs count by fingerprint only.
    """
    request = identity(manifest.request)
    if section := stage_of(manifest.stage).section:
        request[section] = request.pop("spec")
    return flatten(request)


def chain_params(manifest: Manifest, folder: Path) -> dict[str, str]:
    """What runs are compared by: the settings of a stage and of those it was made from.

    As far as the store still has what it was made from.
    """
    params = {"entry": manifest.request.entry, **stage_params(manifest)}
    for earlier in _earlier(manifest, folder):
        theirs = stage_params(earlier)
        params |= {name: theirs[name] for name in theirs.keys() - params.keys() if name.partition(".")[0] in OF_EARLIER}
    return params


def _earlier(manifest: Manifest, folder: Path) -> Iterator[Manifest]:
    for stage in EARLIER:
        if found := source_of(manifest, folder, stage):
            yield found.manifest


def entry_params(entry: Entry) -> dict[str, str]:
    """An entry's settings, flattened, for the run that stands for the entry."""
    return flatten(entry.model_dump(mode="json", exclude={"name", "version", "description", "serve"}))


def changes_of(manifest: Manifest, folder: Path) -> dict[str, tuple[str, str]]:
    """Settings that are not the entry's today: dotted name -> (here, in the entry).

    An empty text stands for a setting that one of them does not have. Nothing where there is no such entry any more.
    """
    try:
        entry = load_entry(manifest.request.entry)
    except ZooError:
        return {}
    chain = [manifest, *_earlier(manifest, folder)]
    here: dict[str, str] = {}
    for link in reversed(chain):
        section = stage_of(link.stage).section
        here |= {
            name: value for name, value in stage_params(link).items() if name.partition(".")[0] in (section, "prompt", "head")
        }
    theirs = entry_params(_as_asked(entry, chain))
    sections = {name.partition(".")[0] for name in here}
    names = here.keys() | {name for name in theirs if name.partition(".")[0] in sections}
    ordered = sorted(names, key=lambda name: (name not in TELLING, name.partition(".")[0] not in OF_EARLIER, name))
    both = {name: (public(here.get(name, "")), public(theirs.get(name, ""))) for name in ordered}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1] and not name.startswith("train.first.")}


def _as_asked(entry: Entry, chain: list[Manifest]) -> Entry:
    """The entry as its stages are asked: what says nothing of the form of a checkpoint has its default."""
    forms = [link.request.spec.scheme for link in chain if isinstance(link.request, QuantizeRequest)]
    earlier = any(isinstance(link.request, TrainRequest) and link.request.spec.only_extra for link in chain)
    changed: dict[str, Any] = {}
    if forms and entry.quantize:
        changed["quantize"] = spec_of_form(entry.quantize, forms[0])
    if earlier and entry.train and entry.train.first and (first := entry.train.earlier()):
        changed["train"] = first
    return entry.model_copy(update=changed)


def flatten(settings: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings as dotted names.

    Nothing for None, for empty values and for what is left out.
    """

    def walk(value: Any, name: str) -> Iterator[tuple[str, str]]:
        if name in LEFT_OUT or value is None or value in ("", [], {}):
            return
        if isinstance(value, dict):
            for key, item in value.items():
                yield from walk(item, f"{name}.{key}" if name else key)
        elif isinstance(value, list | tuple):
            yield name, ", ".join(map(str, value))[:6000]
        else:
            yield name, str(value)[:6000]

    return dict(walk(dict(settings), ""))
