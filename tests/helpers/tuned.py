"""A study of training settings as `zoo tune` leaves it, of six trials."""

from __future__ import annotations

from zoo.scores.tuned import ComparedOn, TriedSettings, TuneReport


def report_of(difference: float, error: float) -> TuneReport:
    trials = tuple(
        TriedSettings(
            number=number,
            state="pruned" if number == 3 else "complete",
            settings={} if number == 0 else {"learning_rate": 1e-3 * number, "rank": 4 * number},
            drawn={} if number == 0 else {"learning_rate": 1e-3 * number, "rank": 4 * number},
            log_loss=1.0 - 0.01 * number,
            curve=((0.5, 1.02), (1.0, 1.0 - 0.01 * number)),
            seconds=60.0,
        )
        for number in range(6)
    )
    judged = ComparedOn(rows=90, prompts=80, own=1.01, best=1.01 + difference, difference=difference, error=error)
    chosen = ComparedOn(rows=40, prompts=40, own=1.0, best=0.95, difference=-0.05, error=0.01)
    return TuneReport(
        entry="tiny",
        data="<b>.csv",
        dataset_digest="0" * 16,
        fold=0,
        n_folds=5,
        study="tune tiny b fold 0 01234567",
        storage="/home/somebody/private/mlruns/studies.db",
        trials=trials,
        best=5,
        rows_to_choose=40,
        prompts_to_choose=40,
        rows_to_judge=90,
        prompts_to_judge=80,
        choosing=chosen,
        judging=judged,
        judged=1,
        importance={"learning_rate": 0.8, "rank": 0.2},
        guessing=1.0986,
        ended_by="trials",
        spent_seconds=360.0,
    )
