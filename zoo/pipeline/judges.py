"""Entries as judges: their models of all folds in a store, and how these score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zoo.contracts import (
    Entry,
    Held,
    Input,
    LexicalScoreRequest,
    LexicalTrainRequest,
    Manifest,
    MergeRequest,
    QuantizeRequest,
    Request,
    ScoreRequest,
    ScoreSpec,
    ScoringRequest,
    Selection,
    ServeSpec,
    TrainRequest,
    Variant,
    changed,
    entry_of_form,
    forms_of,
    variants_of,
)
from zoo.entries.load import entry_names, load_entry
from zoo.errors import ZooError
from zoo.store import Artifact, list_artifacts, names_fingerprint, recipe_of, source_of
from zoo.targets import load_target

CHECKPOINTS = ("quantize", "merge")  # what serves first; where an entry has both, the first one judges
LEXICAL = "lexical-train"
CPU = "cpu"


@dataclass(frozen=True)
class FoldModel:
    """One fold's model.

    What it has not seen, the artifact of its training, and the checkpoint that scores.
    """

    held: Held
    trained: Artifact
    checkpoint: Artifact


@dataclass(frozen=True)
class Judge:
    """An entry whose models of all folds are in the store.

    `human`: the request that scores each fold's own human battles.
    """

    name: str
    models: tuple[FoldModel, ...]
    human: tuple[ScoringRequest, ...]
    variants: tuple[Variant, ...]


@dataclass
class _Family:
    """Checkpoints of one recipe, by fold; of two of one fold the newer."""

    stage: str
    n_folds: int
    models: dict[int, FoldModel] = field(default_factory=dict)

    @property
    def missing(self) -> list[int]:
        return [fold for fold in range(self.n_folds) if fold not in self.models]


def judges_named(names: Sequence[str], human: Input, store: Path, target: str | None) -> list[Judge]:
    """The judges that people name, each once.

    ZooError for what is none, is of other battles than `human`, or lacks a fold.
    """
    if target is not None:
        load_target(target)
    found = [_judge(name, human, store, target) for name in names]
    for place, one in enumerate(found):
        checkpoints = {model.checkpoint.fingerprint for model in one.models}
        if any(checkpoints & {model.checkpoint.fingerprint for model in other.models} for other in found[:place]):
            raise ZooError(f"--judge {names[place]}: the same models as an earlier --judge; name each judge once")
    return found


def _judge(name: str, human: Input, store: Path, target: str | None) -> Judge:
    """The judge of a name: ENTRY, ENTRY@merge, ENTRY@quantize, or an artifact of one of its folds."""
    entry, _, stage = name.partition("@")
    families = _families(store, human)
    named = ""
    if not any(one.manifest.request.entry == entry for one in _checkpoints(store)) and entry not in entry_names():
        entry, families = _with_artifact(name, families)
        named = name
    elif stage not in ("", *CHECKPOINTS):
        raise ZooError(f"--judge {name}: no stage {stage!r}; write {entry}, {entry}@merge or {entry}@quantize")
    own = [one for one in families if next(iter(one.models.values())).checkpoint.manifest.request.entry == entry]
    if stage:
        own = [one for one in own if one.stage == stage]
    whole = [one for one in own if not one.missing]
    if not whole:
        raise ZooError(f"--judge {name}: {_lacking(entry, own, human, store)}")
    family = min(reversed(whole), key=lambda one: (*CHECKPOINTS, LEXICAL).index(one.stage))  # the newest of the first kind
    models = tuple(family.models[fold] for fold in range(family.n_folds))
    scored = list_artifacts(store, "score", "lexical-score")
    requests = tuple(_human_request(model, human, scored, target) for model in models)
    suffix = f".{models[0].checkpoint.path.name}" if named else f".{stage}" if stage else ""
    return Judge(f"{entry}{suffix}"[-80:].lstrip("._-"), models, requests, _asked(variants_of(requests[0])))


def _checkpoints(store: Path) -> list[Artifact]:
    return list_artifacts(store, *CHECKPOINTS, LEXICAL)


def _families(store: Path, human: Input) -> list[_Family]:
    """Checkpoints that were trained on folds of the human battles, by recipe; those made last come last."""
    found: dict[tuple[str, str], _Family] = {}
    for artifact in _checkpoints(store):
        if isinstance(artifact.manifest.request, LexicalTrainRequest):
            found |= _lexical(artifact, human)
            continue
        trained = source_of(artifact.manifest, artifact.path, "train")
        recipe = recipe_of(artifact.manifest, artifact.path)
        if trained is None or not recipe or _averages(artifact):
            continue
        request = trained.manifest.request
        if not isinstance(request, TrainRequest) or request.battles.fingerprint != human.fingerprint:
            continue
        key = (artifact.manifest.stage, recipe)
        family = found.pop(key, None) or _Family(artifact.manifest.stage, request.held.n_folds)
        family.models[request.held.fold] = FoldModel(request.held, trained, artifact)
        found[key] = family
    return list(found.values())


def _lexical(artifact: Artifact, human: Input) -> dict[tuple[str, str], _Family]:
    """A lexical checkpoint, which has the models of all folds."""
    request = artifact.manifest.request
    if not isinstance(request, LexicalTrainRequest) or request.battles.fingerprint != human.fingerprint:
        return {}
    family = _Family(LEXICAL, request.spec.folds)
    for fold in range(request.spec.folds):
        held = Held(n_folds=request.spec.folds, fold=fold, rule=request.rule)
        family.models[fold] = FoldModel(held, artifact, artifact)
    return {(LEXICAL, artifact.fingerprint): family}


def _averages(artifact: Artifact) -> bool:
    """Whether a checkpoint holds several folds' adapters: it has seen every prompt."""
    merge = artifact if artifact.manifest.stage == "merge" else source_of(artifact.manifest, artifact.path, "merge")
    request = merge.manifest.request if merge else None
    return isinstance(request, MergeRequest) and bool(request.more_adapters)


def _with_artifact(name: str, families: Sequence[_Family]) -> tuple[str, list[_Family]]:
    """The entry and the family of an artifact's name, or of enough of its fingerprint."""
    stage, dash, digits = name.partition("-")
    wanted = digits if dash and stage in ("train", *CHECKPOINTS) else name.removeprefix(f"{LEXICAL}-")
    found = [
        one
        for one in families
        for model in one.models.values()
        if any(names_fingerprint(wanted, artifact.fingerprint) for artifact in (model.trained, model.checkpoint))
    ]
    if not found:
        raise ZooError(
            f"--judge {name}: no entry, and no checkpoint of these human battles, has that name; `zoo list` shows entries, "
            "`zoo du` artifacts"
        )
    return next(iter(found[0].models.values())).checkpoint.manifest.request.entry, [found[0]]


def _lacking(entry: str, own: Sequence[_Family], human: Input, store: Path) -> str:
    """Why an entry cannot judge, and how it can."""
    mend = f"run `zoo run {entry} --data {human.path.name} --folds {own[-1].n_folds if own else 5}`"
    if own:
        family = min(own, key=lambda one: len(one.missing))
        has, lacks = (", ".join(map(str, some)) for some in (sorted(family.models), family.missing))
        folds = f"of {family.n_folds} folds of {human.path.name} the store has {has} and lacks {lacks}"
        return f"{folds}; {mend} with the same settings"
    others = [one for one in _checkpoints(store) if one.manifest.request.entry == entry]
    if others:
        return f"its {len(others)} checkpoints in the store were not trained on folds of {human.path.name}; {mend}"
    return f"the store has no checkpoint of it; {mend}"


def _asked(variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """The variants that judge: of one way to read rows, that of the largest cap that has both orders, else the largest."""
    by_cap: dict[object, list[Variant]] = {}
    for variant in variants:
        by_cap.setdefault(variant.reads, []).append(variant)
    largest: list[Variant] = max(by_cap.values(), key=lambda own: (len(own), own[0].max_tokens or 0))
    return tuple(largest)


def _human_request(model: FoldModel, human: Input, scored: Sequence[Artifact], target: str | None) -> ScoringRequest:
    """What scores the human battles of a model's own fold.

    As the store's newest score stage of this checkpoint did it, which then is taken, else as the entry says.
    """
    known = _scored(model, human, scored, target)
    where = target or (known.target if known else CPU)
    checkpoint = Input(path=model.checkpoint.path, fingerprint=model.checkpoint.fingerprint)
    request = model.trained.manifest.request
    if not isinstance(request, TrainRequest):
        return LexicalScoreRequest(
            entry=request.entry, model=checkpoint, battles=human, target=where, unusable=human.unusable, rule=model.held.rule
        )
    if isinstance(known, ScoreRequest):
        spec, serve = known.spec, known.serve
    else:
        spec, serve = as_declared(load_entry(request.entry), where, model.checkpoint.manifest.request)
    return ScoreRequest(
        entry=request.entry,
        model=checkpoint,
        battles=human,
        held=model.held,
        selection=_whole(model.checkpoint.manifest),
        prompt=request.prompt,
        spec=spec,
        serve=serve,
        target=where,
        unusable=human.unusable,
    )


def _whole(checkpoint: Manifest) -> Selection:
    """All held-out rows; of a merged checkpoint no member's table, whose quantized one serves."""
    return Selection(diagnostic=checkpoint.stage == "merge")


def as_declared(entry: Entry, target: str, checkpoint: Request) -> tuple[ScoreSpec, ServeSpec]:
    """How an entry scores with one of its checkpoints: by the variants of its form alone.

    A merged model, and a checkpoint in a form that no variant asks for, has every variant once, without its form.
    """
    if entry.score is None or entry.quantize is None:
        raise ZooError(f"--judge {entry.name}: a causal_lm entry needs [score] to judge")
    serve = entry.serve.get(load_target(target).name, ServeSpec())
    if isinstance(checkpoint, QuantizeRequest) and checkpoint.spec.scheme in forms_of(entry):
        return entry_of_form(entry, checkpoint.spec.scheme).score or entry.score, serve
    variants = dict.fromkeys(changed(variant, form=None) for variant in entry.score.variants)
    return changed(entry.score, variants=tuple(variants)), serve


def _scored(model: FoldModel, human: Input, scored: Sequence[Artifact], target: str | None) -> ScoringRequest | None:
    """The newest request that scored all held-out human battles with this checkpoint, for `target` where one is named."""
    for artifact in reversed(scored):
        request = artifact.manifest.request
        if (
            isinstance(request, ScoringRequest)
            and request.model.fingerprint == model.checkpoint.fingerprint
            and request.battles.fingerprint == human.fingerprint
            and request.selection == _whole(model.checkpoint.manifest)
            and target in (None, request.target)
            and not (isinstance(request, ScoreRequest) and request.emulates)
        ):
            return request
    return None


def pairs_request(judge: Judge, fold: int, pairs: Input, ids: Input) -> ScoringRequest:
    """What scores listed pairs with the model of one fold, as it scores the human battles."""
    human, selection = judge.human[fold], Selection(rows="listed", ids=ids)
    same = {"battles": pairs, "selection": selection, "unusable": None}
    if isinstance(human, LexicalScoreRequest):
        return human.model_copy(update={**same, "rule": None, "fold": fold})
    spec = human.spec.model_copy(update={"variants": judge.variants})
    return human.model_copy(update={**same, "spec": spec})
