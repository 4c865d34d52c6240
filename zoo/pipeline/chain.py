"""The chain of an entry: its stage requests in order.

A request's fingerprint follows from what is asked alone, so the whole chain is known before anything runs: each request points
to the folder that the one before will leave. Every finished stage is mirrored to MLflow; a stage that is already in the store
costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zoo.checks import check_head
from zoo.contracts import (
    AdoptRequest,
    Entry,
    ExtraBattles,
    FetchRequest,
    FoldRule,
    Held,
    Input,
    LadderForm,
    LadderRequest,
    LexicalScoreRequest,
    LexicalTrainRequest,
    MergeRequest,
    PromptSpec,
    QuantizeRequest,
    Request,
    Say,
    Scheme,
    ScoreRequest,
    Selection,
    ServeSpec,
    TrainRequest,
    TrainSpec,
    Variant,
    changed,
    entry_of_form,
    forms_of,
    spec_of_form,
)
from zoo.contracts.training import Targets
from zoo.errors import ZooError
from zoo.pipeline.adopted import adopted_chain
from zoo.pipeline.fold_rules import check_teacher
from zoo.pipeline.starts import check_start, start_input
from zoo.pipeline.weights import fetch_request
from zoo.store import artifact_name, file_sha256, fingerprint
from zoo.targets import load_target, visible_gpus

EXTRA, TEACHER = "a file of labelled battles", "a scores.parquet of out-of-fold rows"
_SOURCES: dict[str, type[Request]] = {
    "base": FetchRequest,
    "merged": MergeRequest,
}


def battles_input(path: Path, *, say: Say = lambda _: None, most_bad: float | None = None) -> Input:
    """A battles file as a stage's input, identified by its content and not by where it lies.

    `say` and `most_bad` (None: the default) as `zoo.data.usable.usable_battles` takes them.
    """
    from zoo.data.battles import dataset_digest
    from zoo.data.usable import MOST_BAD, unusable_digest, usable_battles

    if not path.exists():
        raise ZooError(f"{path}: no such file; give a file of battles (`zoo data sample {path} --rows 500` makes one)")
    battles = usable_battles(path, say=say, most_bad=MOST_BAD if most_bad is None else most_bad)
    return Input(path=path.absolute(), fingerprint=dataset_digest(battles), unusable=unusable_digest(battles))


def output_of(request: Request, store: Path) -> Input:
    """What a request leaves, as the next one's input."""
    return Input(path=store / artifact_name(request), fingerprint=fingerprint(request))


def chain(
    entry: Entry, battles: Input, target: str, store: Path, *, held: Held, selection: Selection, source: str | None = None
) -> list[Request]:
    """Every stage of an entry in order, from its weights to its scores on `battles`.

    ZooError where there is no such target: it is needed last, and would be missed after hours.
    """
    machine = load_target(target)
    if entry.kind == "lexical":
        return lexical_chain(entry, battles, target, store, selection, held.rule)
    if not (entry.prompt and entry.score) or (entry.kind == "causal_lm" and not entry.quantize):
        raise ZooError(f"{entry.name}: a causal_lm entry needs [prompt], [train], [quantize] and [score]")
    if entry.elsewhere is not None:
        needs_base = entry.elsewhere.kind == "adapter"
        fetch = fetch_request(entry, store, source=source) if needs_base else None
        before = adopted_chain(entry, entry.elsewhere, store, fold=held.fold, n_folds=held.n_folds, fetch=fetch)
    else:
        fetched = fetch_request(entry, store, source=source)
        base = output_of(fetched, store)
        trains = train_requests(entry, store, base=base, battles=battles, held=held)
        merge = MergeRequest(entry=entry.name, base=base, adapter=output_of(trains[-1], store), spec=entry.merge)
        before = [fetched, *trains, merge]
    whole = output_of(before[-1], store)
    quantizes: dict[Scheme, QuantizeRequest] = {
        form: QuantizeRequest(
            entry=entry.name,
            model=whole,
            battles=battles,
            held=held,
            prompt=entry.prompt,
            spec=spec_of_form(entry.quantize, form),
        )
        for form in forms_of(entry)
        if entry.quantize and not (entry.elsewhere and entry.elsewhere.quantized)
    }
    served = {form: output_of(quantizes[form], store) if form in quantizes else whole for form in forms_of(entry)}
    # An encoder is served as it is merged.
    models = [(model, entry_of_form(entry, form).score) for form, model in served.items()] or [(whole, entry.score)]
    scores = [
        ScoreRequest(
            entry=entry.name,
            model=model,
            battles=battles,
            held=held,
            selection=selection,
            prompt=entry.prompt,
            spec=spec or entry.score,
            serve=entry.serve.get(machine.name, ServeSpec()),
            target=target,
            unusable=battles.unusable,
        )
        for model, spec in models
    ]
    return [*before, *quantizes.values(), *scores]


def emulating(requests: list[Request], entry: Entry, target: str) -> list[Request]:
    """The chain whose scoring emulates a smaller target and serves as on it.

    It keeps to the target's memory, number formats and kernels.
    """
    scores = [request for request in requests if isinstance(request, ScoreRequest)]
    name = _emulated(target, entry, scores)
    serve = entry.serve.get(name, ServeSpec())
    emulated = [score.model_copy(update={"emulates": name, "serve": serve}) for score in scores]
    return [*requests[: -len(scores)], *emulated]


def emulating_training(requests: list[Request], entry: Entry, target: str, store: Path) -> list[Request]:
    """The chain up to its training, which emulates a smaller target.

    It keeps to the target's memory and number formats. What comes after it in the whole chain goes on from another adapter.
    """
    trains = [request for request in requests if isinstance(request, TrainRequest)]
    name = _emulated(target, entry, trains)
    made: list[TrainRequest] = []
    for train in trains:
        start = {"start": output_of(made[-1], store)} if made else {}  # an earlier training is emulated, too
        made.append(train.model_copy(update={"emulates": name, **start}))
    return [*(request for request in requests if isinstance(request, FetchRequest)), *made]


def _emulated(target: str, entry: Entry, requests: Sequence[Request]) -> str:
    """The name of a target that can be stood in for here; ZooError where it cannot."""
    if not requests:
        raise ZooError(f"--as {target}: {entry.a_kind} needs no GPU; leave it out")
    if not load_target(target).gpus:
        raise ZooError(f"--as {target}: it has no GPU to stand in for; --as is for targets with GPUs")
    if not visible_gpus():
        raise ZooError(f"--as {target}: needs an NVIDIA GPU, and none is visible here; leave it out")
    return load_target(target).name


def train_requests(entry: Entry, store: Path, *, base: Input, battles: Input, held: Held) -> list[TrainRequest]:
    """The trainings of an entry: its own, and before it an earlier one where it has one.

    ZooError where it has none, or a head that its architecture cannot have.
    """
    if entry.elsewhere is not None:
        raise ZooError(f"{entry.name}: its weights were trained elsewhere, and are not trained here")
    if not (entry.prompt and entry.train and entry.base):
        raise ZooError(f"{entry.name}: {entry.a_kind} needs [base], [prompt] and [train]")
    finding = check_head(entry.head, entry.base.architecture)
    if finding.verdict == "fail":
        raise ZooError(f"{entry.name}: {finding.what}; {finding.mend}")
    spec = entry.train
    start = start_input(spec.start, store) if spec.start else None
    requests: list[TrainRequest] = []
    for section, one in (("train.first", spec.earlier()), ("train", changed(spec, first=None))):
        if one is None:
            continue
        request = _train_request(entry, entry.prompt, one, section, base=base, battles=battles, held=held, start=start)
        check_start(request)
        requests.append(request)
        start = output_of(request, store)
    return requests


def _train_request(
    entry: Entry,
    prompt: PromptSpec,
    spec: TrainSpec,
    section: str,
    *,
    base: Input,
    battles: Input,
    held: Held,
    start: Input | None,
) -> TrainRequest:
    if spec.teacher is not None:
        check_teacher(spec.teacher, held.rule)
    extra = tuple(
        ExtraBattles(battles=_file_input(f"{section}.extra", one.file, EXTRA), weight=spec.extra_weight * one.weight)
        for one in spec.extra
    )
    return TrainRequest(
        entry=entry.name,
        base=base,
        battles=battles,
        held=held,
        prompt=prompt,
        # A path is no part of identity; the inputs below are.
        spec=changed(spec, teacher=None, extra=(), start=None, extra_weight=extra[0].weight if extra else spec.extra_weight),
        teacher=_file_input(f"{section}.teacher", spec.teacher, TEACHER) if spec.teacher else None,
        extra=extra[0].battles if extra else None,
        more_extra=extra[1:],
        extra_rule="near-prompts-1" if extra else None,  # whatever the rule of the folds
        start=start,
        teaches_extra=bool(extra and spec.teacher),
        votes_digest=None if spec.only_extra else _votes_digest(spec.targets, battles),
        head=entry.head,
    )


def _file_input(key: str, path: Path, wanted: str) -> Input:
    """A file that an entry's setting names as a stage's input, identified by its content."""
    if not path.is_file():
        raise ZooError(f"{key}: {path}: no such file; give {wanted}")
    return Input(path=path.absolute(), fingerprint=file_sha256(path)[:16])


def _votes_digest(targets: Targets, battles: Input) -> str | None:
    """What identifies the votes that are learned from; None where none are."""
    from zoo.data.battles import read_battles
    from zoo.data.votes import VOTES, votes_digest

    return votes_digest(read_battles(battles.path, keep=VOTES)) if targets == "votes" else None


def lexical_chain(
    entry: Entry, battles: Input, target: str, store: Path, selection: Selection, rule: FoldRule | None = None
) -> list[Request]:
    if entry.lexical is None:
        raise ZooError(f"{entry.name}: a lexical entry needs [lexical]")
    # It scores every row out of fold in seconds; a sample would only leave fewer rows to blend on.
    selection = selection.model_copy(update={"max_rows": None})
    spec = entry.lexical
    train = LexicalTrainRequest(
        entry=entry.name,
        battles=battles,
        spec=changed(spec, extra=()),  # a path is no part of identity; the inputs below are
        rule=rule,
        extra_files=tuple(
            ExtraBattles(battles=_file_input("lexical.extra", one.file, EXTRA), weight=one.weight) for one in spec.extra
        ),
        extra_rule="near-prompts-1" if spec.extra else None,  # whatever the rule of the folds
        votes_digest=_votes_digest(spec.targets, battles),
    )
    model = output_of(train, store)
    score = LexicalScoreRequest(
        entry=entry.name,
        model=model,
        battles=battles,
        selection=selection,
        target=target,
        unusable=battles.unusable,
        rule=rule,
    )
    return [train, score]


def ladder_request(entry: Entry, requests: Sequence[Request], store: Path) -> LadderRequest:
    """The ladder of a chain's own artifacts, every form that it is quantized in.

    Of each form it takes the rows of the variant that is scored as the first form's first in the battle's own order.
    """
    by_type = {type(request): request for request in requests}
    quantizes = [request for request in requests if isinstance(request, QuantizeRequest)]
    scores = [request for request in requests if isinstance(request, ScoreRequest)]
    if entry.elsewhere and entry.elsewhere.kind == "checkpoint":
        raise ZooError(f"{entry.name}: a checkpoint from elsewhere has no ladder: its base and adapter are not here")
    train = by_type.get(TrainRequest) or by_type.get(AdoptRequest)
    if train is None or not scores or not quantizes:
        raise ZooError(f"{entry.name}: {entry.a_kind} has no ladder; it is for language models")
    shown = min(map(_scored_as, scores[0].spec.variants), key=lambda scored_as: scored_as[0] != "ab")
    # A ladder is of one cap and order, the first form's. Forms that are not scored so have no place on it.
    forms = [
        LadderForm(
            scheme=quantize.spec.scheme,
            quantized=output_of(quantize, store),
            scored=output_of(score, store),
            variant=variant,
        )
        for quantize, score in zip(quantizes, scores, strict=True)
        for variant in score.spec.variants
        if _scored_as(variant) == shown
    ]
    first, score = forms[0], scores[0]
    made = {name: output_of(by_type[kind], store) for name, kind in _SOURCES.items()} | {"trained": output_of(train, store)}
    method = train.spec.method if isinstance(train, TrainRequest) else "qlora" if entry.merge.into == "trained" else "lora"
    return LadderRequest(
        entry=entry.name,
        **made,
        battles=score.battles,
        held=score.held,
        prompt=score.prompt,
        quantized=first.quantized,
        scored=first.scored,
        variant=first.variant,
        method=method,
        max_rows=entry.ladder.rows,
        scheme=first.scheme,
        more_forms=tuple(forms[1:]),
    )


def _scored_as(variant: Variant) -> tuple[str, object]:
    return variant.order, variant.reads
