"""Models that answer prompts: their names, their weights, and what is asked of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zoo.contracts import GenerateRequest, Input, MergeRequest, Sampling
from zoo.data.prompts import Prompts, choose
from zoo.entries.load import entry_names, load_entry
from zoo.errors import ZooError
from zoo.models.heads import head_of
from zoo.models.shapes import read_config
from zoo.pipeline.weights import fetched
from zoo.store import Artifact, list_artifacts, names_fingerprint

CHECKPOINTS = ("fetch", "merge", "quantize")  # stages whose artifacts hold a model that an engine can load


@dataclass(frozen=True)
class Generator:
    """A model under the name that its answers get, and its licence."""

    name: str
    artifact: Artifact
    licence: str


@dataclass(frozen=True)
class Asked:
    """What every model of a command is asked."""

    prompts: Prompts
    sampling: Sampling
    rows: int | None = None
    rows_seed: int = 0
    samples: int = 1
    seed: int = 0
    licence: str | None = None
    accept: int | None = None
    gpu_hours: float | None = None


def generators(names: list[str], store: Path) -> list[Generator]:
    """The models that people name.

    ZooError for what is none, is not in the store, or is named twice.
    """
    found = [generator(name, store) for name in names]
    for place, one in enumerate(found):
        if any(one.artifact.fingerprint == other.artifact.fingerprint for other in found[:place]):
            raise ZooError(f"--model {names[place]}: the same weights as an earlier --model; name each model once")
    return found


def generator(name: str, store: Path) -> Generator:
    """The model of a name.

    An entry's base weights by its name, its newest merged or quantized ones by NAME@merge or NAME@quantize; or an artifact.
    """
    entry_name, _, stage = name.partition("@")
    if entry_name in entry_names():
        entry = load_entry(entry_name)
        if entry.base is None:
            raise ZooError(f"--model {name}: {entry.a_kind} writes no answers; give a language model's entry")
        if stage not in ("", *CHECKPOINTS[1:]):
            raise ZooError(
                f"--model {name}: no stage {stage!r}; write {entry_name}, {entry_name}@merge or {entry_name}@quantize"
            )
        if not stage:
            artifact = fetched(entry, store)
            if artifact is None:
                raise ZooError(f"--model {name}: its weights are not in the store; run `zoo fetch {name}` first")
            return Generator(entry_name, artifact, entry.base.licence)
        made = [a for a in list_artifacts(store, stage) if a.manifest.request.entry == entry_name]
        if not made:
            raise ZooError(f"--model {name}: the store has none; `zoo {stage} {entry_name} --data BATTLES` makes one")
        return _named(made[-1])
    return _named(_artifact(name, store))


def _artifact(name: str, store: Path) -> Artifact:
    """An artifact by its folder's name, or by its fingerprint or enough of its beginning.

    In the place of an adapter comes what it was merged into.
    """
    stage, dash, digits = name.partition("-")
    wanted = digits if dash and stage in ("train", *CHECKPOINTS) else name
    found = [a for a in list_artifacts(store, "train", *CHECKPOINTS) if names_fingerprint(wanted, a.fingerprint)]
    if not found:
        raise ZooError(f"--model {name}: no entry and no artifact of that name; `zoo list` shows entries, `zoo du` artifacts")
    if len(found) > 1:
        raise ZooError(f"--model {name}: {', '.join(a.path.name for a in found)} begin so; give more of the name")
    if found[0].manifest.stage != "train":
        return found[0]
    for merged in reversed(list_artifacts(store, "merge")):
        request = merged.manifest.request
        if (
            isinstance(request, MergeRequest)
            and not request.more_adapters
            and request.adapter.fingerprint == found[0].fingerprint
        ):
            return merged
    raise ZooError(f"--model {name}: an adapter that is merged into no model of the store; run `zoo merge` with its settings")


def _named(artifact: Artifact) -> Generator:
    """Answers of a checkpoint are named by its artifact: an entry has many. ZooError where it has no vocabulary left."""
    entry, model = artifact.manifest.request.entry, artifact.path / "model"
    if (model / "config.json").is_file() and head_of(read_config(model)) == "classifier":
        raise ZooError(f"--model {artifact.path.name}: has a classifier head and writes no answers; give {entry}, its base")
    licence = ""
    if entry in entry_names():
        base = load_entry(entry).base
        licence = base.licence if base else ""
    name = entry if artifact.manifest.stage == "fetch" else f"{entry}.{artifact.path.name}"
    return Generator(name[-80:].lstrip("._-"), artifact, licence or "unknown")


def generate_request(model: Generator, asked: Asked) -> GenerateRequest:
    """What one model is asked. ZooError where prompts have no licence that is known."""
    chosen = choose(asked.prompts.prompts, asked.rows, asked.rows_seed)
    without = sum(not prompt.licence for prompt in chosen)
    if without and not asked.licence:
        raise ZooError(
            f"{asked.prompts.path}: {without:,} prompts name no licence (a column `licence`); say with --licence what it is"
        )
    return GenerateRequest(
        entry=model.name,
        model=Input(path=model.artifact.path, fingerprint=model.artifact.fingerprint),
        prompts=Input(path=asked.prompts.path.absolute(), fingerprint=asked.prompts.digest),
        rows=asked.rows,
        rows_seed=asked.rows_seed if asked.rows or asked.accept or asked.gpu_hours else 0,
        sampling=asked.sampling,
        samples=asked.samples,
        seed=asked.seed,
        licence=model.licence,
        source=asked.prompts.path.name[:200],
        prompt_licence=asked.licence if without else None,
        accept=asked.accept,
        gpu_hours=asked.gpu_hours,
    )
