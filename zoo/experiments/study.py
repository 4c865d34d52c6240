"""What studies of builds and of trainings share: their file, and what mattered.

Both are Optuna's, in one SQLite file of the home, so that one dashboard shows them side by side.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from zoo.errors import ZooError
from zoo.settings import load_settings

STUDIES = "studies.db"  # in the home: every study
LOSS = "log loss"  # the value of a trial
MOST_LINE = 1 << 16  # bytes, more than the first line of a journal has
TABLES_SECONDS = 2.0  # in which another process has made Optuna's tables
LEAST_TRIALS = 4  # below them nothing is said of what mattered


def shared_storage() -> str:
    """The storage of studies that processes share, or an empty text.

    `ZOO_STUDY_STORAGE`, else `study_storage` of the settings. Where there is none, a SQLite file of the home has them. ZooError
    where it is neither a file's absolute path, which is a journal of Optuna's, nor a PostgreSQL address; or has a password.
    """
    text = os.environ.get("ZOO_STUDY_STORAGE", "") or load_settings().study_storage
    parts = urlsplit(text)
    if parts.password is not None:
        raise ZooError("ZOO_STUDY_STORAGE: a password in an address ends up in logs; take it out, and put it into ~/.pgpass")
    is_file = text.startswith("/") and not text.endswith("/") and not Path(text).is_dir()
    if text and not is_file and (parts.scheme != "postgresql" or not parts.path.strip("/")):
        raise ZooError(
            f"ZOO_STUDY_STORAGE: {text!r} is no storage; give the absolute path of a file on a folder that all hosts see, or "
            "postgresql://user@host/database"
        )
    return text


def storage_of(place: Path | str) -> Any:
    """A storage of Optuna's: a SQLite file, a journal in a shared folder, or PostgreSQL."""
    import optuna

    if isinstance(place, Path):
        return address(place)
    if "://" not in place:
        _check_journal(Path(place))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(place))
    driver = next((name for name in ("psycopg", "psycopg2") if importlib.util.find_spec(name)), None)
    if driver is None:
        raise ZooError("psycopg is not installed, which a study in PostgreSQL needs: pip install 'psycopg[binary]'")
    return _database(place.replace("postgresql://", f"postgresql+{driver}://", 1))


def _database(url: str) -> Any:
    """Optuna's tables in a database.

    Two processes that make them at once get in each other's way; the second time they are there.
    """
    import optuna
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    try:
        return optuna.storages.RDBStorage(url)
    except (IntegrityError, ProgrammingError):
        time.sleep(TABLES_SECONDS)
        return optuna.storages.RDBStorage(url)


def _check_journal(path: Path) -> None:
    """ZooError where a file is there that is no journal of Optuna's: it would be written on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return
    with path.open("rb") as file:
        first = file.readline(MOST_LINE)
    try:
        is_journal = not first or "op_code" in json.loads(first)
    except (ValueError, TypeError):
        is_journal = False
    if not is_journal:
        raise ZooError(f"{path}: is no journal of Optuna's; give ZOO_STUDY_STORAGE a file of its own")


def dashboard(storage: str) -> str:
    """The command that shows a storage's studies in a browser."""
    known = address(Path(storage)) if Path(storage).name == STUDIES else storage
    return f"optuna-dashboard {known}"


def open_study(name: str, path: Path | str, facts: Callable[[], dict[str, Any]], **parts: Any) -> Any:
    """The study of a name in a SQLite file or a shared storage, made where it is missing.

    `facts` says what a new one is of.

    `parts`: a sampler and a pruner of Optuna's. Raises what `plain_errors` turns into one line.
    """
    import optuna

    quiet()
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        study = optuna.create_study(study_name=name, storage=storage_of(path), load_if_exists=True, **parts)
    except RuntimeError as error:  # its tables are of another version of Optuna
        raise optuna.exceptions.StorageInternalError(str(error)) from error
    if not study.user_attrs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of metric names, which are since 3.2
            study.set_metric_names([LOSS])
        for key, value in facts().items():
            study.set_user_attr(key, value)
    return study


def load_study(name: str, path: Path, mend: str) -> Any:
    """A kept study to read.

    ZooError with the `mend` where the file or the study is gone, or is not Optuna's.
    """
    if not path.is_file():
        raise ZooError(f"{path}: the study {name!r} is not there any more; {mend}")
    import optuna

    quiet()
    with plain_errors(path, mend):
        known = optuna.get_all_study_names(address(path))
        if name not in known:
            raise ZooError(f"{path}: has {len(known)} studies, and not {name!r}; {mend}")
        return optuna.load_study(study_name=name, storage=address(path))


def finished(study: Any) -> list[Any]:
    """Trials that came to an end with a number, the first first."""
    from optuna.trial import TrialState

    return list(study.get_trials(states=(TrialState.COMPLETE,)))


def importance(choices: Mapping[str, Sequence[Any]], losses: Sequence[float], *, seed: int = 0) -> dict[str, float]:
    """Shares of the variance of log loss that each choice explains, the largest first.

    Empty where too few trials tell.

    `choices`: by name, the value that each trial had; texts and truths are categories, numbers lie on a scale, a logarithmic
    one where they span a decade or more. By functional ANOVA of a random forest: Hutter, Hoos and Leyton-Brown, ICML 2014, as
    in Optuna.
    """
    import optuna

    quiet()
    varied = {name: list(values) for name, values in choices.items() if len(set(values)) > 1}
    if len(losses) < LEAST_TRIALS or not varied:
        return {}
    distributions = {name: _distribution(values) for name, values in varied.items()}
    study = optuna.create_study()
    for place, loss in enumerate(losses):
        parameters = {name: values[place] for name, values in varied.items()}
        study.add_trial(optuna.trial.create_trial(params=parameters, distributions=distributions, value=loss))
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=32, seed=seed)
    return {name: float(share) for name, share in optuna.importance.get_param_importances(study, evaluator=evaluator).items()}


def _distribution(values: Sequence[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if any(isinstance(value, bool | str) for value in values):
        return CategoricalDistribution(sorted(set(values)))
    low, high = min(values), max(values)
    return FloatDistribution(low, high, log=low > 0 and high >= 10 * low)


def address(path: Path) -> str:
    """A SQLite file as Optuna and its dashboard name it."""
    return f"sqlite:///{path}"


@contextmanager
def plain_errors(path: Path | str, mend: str) -> Iterator[None]:
    """What a file that cannot be used says, in one line."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OptunaError, SQLAlchemyError, OSError) as error:
        first = str(error).strip().splitlines()[0][:200]
        raise ZooError(f"{path}: studies cannot be kept or read there ({first}); {mend}") from error


def quiet() -> None:
    """Optuna says nothing by itself."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("optuna").propagate = False
