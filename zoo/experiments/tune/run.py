"""`zoo tune`: a study of an entry's training settings, from battles to the report."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from pathlib import Path

from zoo.contracts import Entry, Say, changed
from zoo.errors import ZooError, amount
from zoo.experiments.run import run_chain
from zoo.experiments.study import STUDIES, shared_storage
from zoo.experiments.tune.judging import judged_on
from zoo.experiments.tune.rows import split_held, with_eval_rows, write_ids
from zoo.experiments.tune.space import Space, default_space, own_values
from zoo.experiments.tune.study import FINGERPRINT, Study, best_of, importance_of
from zoo.experiments.tune.trials import Setting, TuneOptions, Tuner
from zoo.pipeline.chain import battles_input, output_of
from zoo.pipeline.weights import fetch_request
from zoo.scores.metrics import uniform_loss
from zoo.scores.tuned import TuneReport
from zoo.settings import home
from zoo.store import find, fingerprint, locked


def tune(entry: Entry, options: TuneOptions, store: Path, *, say: Say) -> TuneReport:
    """Run a study to its end, or go on with it, and judge the best.

    ZooError where there is nothing to tune, the held-out fold has too few prompts, or the budget ends before a training.
    """
    if entry.elsewhere is not None:
        raise ZooError(f"{entry.name}: its weights were trained elsewhere: there is no [train] to tune")
    if entry.train is None or entry.prompt is None:
        raise ZooError(f"{entry.name}: {entry.a_kind} has no [train] to tune; zoo tune is for language models and encoders")
    place = shared_storage() or home() / STUDIES
    space = options.space or default_space(entry.train)
    battles = battles_input(options.battles, say=say)
    rows = split_held(options.battles, options.held, entry.train.eval_rows)
    own = changed(entry, train=with_eval_rows(entry.train, rows))
    fetch = fetch_request(entry, store, source=options.source)
    shared = Setting(own, rows, battles, options.held, output_of(fetch, store), store)
    name = _name(shared, space, options)
    run_chain([fetch], entry, store, say=say)
    alone = locked(home(), f"tune-{name[-8:]}", on_wait=lambda: say(f"another process runs the study {name!r}; waiting"))
    with alone if isinstance(place, Path) else nullcontext():
        assert own.train is not None
        facts = {"kind": "tune", "entry": entry.name, "data": options.battles.name, "fold": options.held.fold}
        study = Study(name, place, space, own_values(space, own.train), seed=options.seed, facts=facts)
        tuner = Tuner(shared, study, options, say)
        try:
            tuner.run()
        finally:
            study.spend(tuner.spent())
        report = _report(shared, study, options, tuner)
        if report.winner.is_default:
            return report
        if study.together and find(store, shared.requests(tuner.entry_of(report.winner))[-1]) is None:
            say(f"trial {report.best} is the best, and lies in the store of the process that trained it, which judges it")
            return report
        return _judged(shared, study, tuner, report, say=say)


def _report(shared: Setting, study: Study, options: TuneOptions, tuner: Tuner) -> TuneReport:
    """What the trials left, before the best is judged."""
    trials, rows = study.trials(), shared.rows
    return TuneReport(
        entry=shared.entry.name,
        data=options.battles.name,
        dataset_digest=shared.battles.fingerprint,
        fold=options.held.fold,
        n_folds=options.held.n_folds,
        study=study.name,
        storage=str(study.path),
        trials=trials,
        best=best_of(trials).number,
        rows_to_choose=len(rows.choosing),
        prompts_to_choose=rows.prompts(rows.choosing),
        rows_to_judge=len(rows.judging),
        prompts_to_judge=rows.prompts(rows.judging),
        importance=importance_of(trials),
        guessing=uniform_loss(ties=rows.labels.ties),
        ended_by=tuner.ended_by,
        spent_seconds=tuner.spent(),
    )


def _judged(shared: Setting, study: Study, tuner: Tuner, report: TuneReport, *, say: Say) -> TuneReport:
    """The report with the best trial judged against the entry's own settings."""
    others = amount(report.rows_to_judge, "other row")
    say(f"judging trial {report.best} against the entry's own settings on {others}")
    ids = write_ids(shared.rows, results_folder(report) / "held-out.txt")
    own, best = shared.entry, tuner.entry_of(report.winner)
    choosing, judging = judged_on(shared, (own, best), ids, tuner.cards, say=say)
    judged = study.note_judged(study.facts_of(report.best)[FINGERPRINT])
    return changed(report, choosing=choosing, judging=judging, judged=judged)


def results_folder(report: TuneReport) -> Path:
    """Where a study's tables and pictures are, in the home."""
    return home() / "experiments" / f"tune-{report.entry}-{report.study[-8:]}"


def _name(shared: Setting, space: Space, options: TuneOptions) -> str:
    """The study's name, the same for the same question.

    Entry, data and fold for people, and a digest of all there is to it.
    """
    request = shared.requests(shared.entry)[-1]
    # The file's name, too: what is shown and logged of a study says it, and must not change.
    told = (
        fingerprint(request),
        options.battles.name,
        space.model_dump_json(),
        *shared.rows.choosing,
        "",
        *shared.rows.judging,
    )
    digest = hashlib.sha256("\n".join(told).encode()).hexdigest()[:8]
    return f"tune {shared.entry.name} {options.battles.name.split('.')[0]} fold {options.held.fold} {digest}"
