"""Studies in a SQLite file, as Optuna keeps them: each trial goes there when it has ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo.experiments.study import finished, open_study, plain_errors

PROPOSED_BY, SECONDS, MEMBERS, FEASIBLE, ERROR = "proposed by", "seconds", "members", "feasible", "standard error"
DIGEST = "data digest"  # among what a study is of
SOME_ROWS = " on some rows"  # follows the name of a member that does not see every row


class StudyFile:
    """The study of a name in a SQLite file, made where it is missing.

    Without a path it holds nothing. `facts` says what a new study is of. Optuna commits each parameter by itself, which takes
    longer than most trials: they run in memory, and `add` writes each whole.
    """

    def __init__(self, name: str, path: Path | None, facts: Callable[[], dict[str, Any]]) -> None:
        self._path, self._study = path, None
        if path is not None:
            with plain_errors(path, "move it away, or build with --trials 0"):
                self._study = open_study(name, path, facts)

    def finished(self) -> list[Any]:
        """Trials that came to an end with a number, the first first."""
        return [] if self._study is None else finished(self._study)

    def add(self, trial: Any) -> None:
        """Keep a trial that has ended."""
        if self._study is not None and self._path is not None:
            with plain_errors(self._path, "make room for it, or build with --trials 0"):
                self._study.add_trial(trial)
