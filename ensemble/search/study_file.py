"""Studies in a SQLite file, as Optuna keeps them: each trial goes there when it has ended."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.errors import ZooError

LOSS = "log loss"  # the value of a trial
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
                path.parent.mkdir(parents=True, exist_ok=True)
                self._study = _open(name, path, facts)

    def finished(self) -> list[Any]:
        """Trials that came to an end with a number, the first first."""
        if self._study is None:
            return []
        from optuna.trial import TrialState

        return list(self._study.get_trials(states=(TrialState.COMPLETE,)))

    def add(self, trial: Any) -> None:
        """Keep a trial that has ended."""
        if self._study is not None and self._path is not None:
            with plain_errors(self._path, "make room for it, or build with --trials 0"):
                self._study.add_trial(trial)


def load_study(name: str, path: Path) -> Any:
    """A kept study to read. ZooError where the file or the study is gone, or is not Optuna's."""
    mend = "build the plan again to have its study"
    if not path.is_file():
        raise ZooError(f"{path}: the study {name!r} is not there any more; {mend}")
    import optuna

    quiet()
    with plain_errors(path, mend):
        known = optuna.get_all_study_names(address(path))
        if name not in known:
            raise ZooError(f"{path}: has {len(known)} studies, and not {name!r}; {mend}")
        return optuna.load_study(study_name=name, storage=address(path))


def address(path: Path) -> str:
    """A SQLite file as Optuna and its dashboard name it."""
    return f"sqlite:///{path}"


@contextmanager
def plain_errors(path: Path, mend: str) -> Iterator[None]:
    """What a file that cannot be used says, in one line."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OptunaError, SQLAlchemyError, OSError) as error:
        first = str(error).strip().splitlines()[0][:200]
        raise ZooError(f"{path}: studies cannot be kept or read there ({first}); {mend}") from error


def _open(name: str, path: Path, facts: Callable[[], dict[str, Any]]) -> Any:
    import optuna

    quiet()
    try:
        study = optuna.create_study(study_name=name, storage=address(path), load_if_exists=True)
    except RuntimeError as error:  # its tables are of another version of Optuna
        raise optuna.exceptions.StorageInternalError(str(error)) from error
    if not study.user_attrs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of metric names, which are since 3.2
            study.set_metric_names([LOSS])
        for key, value in facts().items():
            study.set_user_attr(key, value)
    return study


def quiet() -> None:
    """Optuna says nothing by itself."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("optuna").propagate = False
