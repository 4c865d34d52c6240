"""Settings: home and entry folders, how TOML is read, interpreters of single stages."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from zoo.contracts import AnyContract, Contract, explain
from zoo.errors import ZooError
from zoo.reading import read_bytes

logger = logging.getLogger("zoo")
ENTRY_POINTS = "preference_zoo.entries"  # the group: `my-models = "my_package.entries"` in another package's pyproject.toml

MOST_TOML_BYTES = 4 << 20  # nobody writes more by hand


class SlurmSettings(Contract):
    """How arrays are submitted where `--runner slurm` is used.

    `options` go to sbatch as they are: `["--partition=gpu", "--gres=gpu:1", "--time=04:00:00"]`.
    """

    tasks: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=4, description="of an array: shares of a scoring's chunks, or workers of a job"
    )
    options: tuple[str, ...] = Field(default=(), description="of sbatch, for every task")


class Settings(Contract):
    """The user's settings file.

    `[environments]` maps a stage, or a quantization backend, to its Python interpreter, where it cannot share vLLM's. `remote`
    as `ZOO_REMOTE`, `study_storage` as `ZOO_STUDY_STORAGE`; `runner` is where stages run that nobody says otherwise of.
    """

    environments: dict[str, Path] = Field(default={})
    study_storage: str = Field("", description="where `zoo tune` keeps studies that processes share, as `ZOO_STUDY_STORAGE`")
    remote: str = Field("", description="where `zoo push` and `zoo pull` keep artifacts, as `ZOO_REMOTE`, which comes first")
    runner: Literal["local", "ray", "slurm"] = Field(default="local", description="where stages run")
    slurm: SlurmSettings = Field(default=SlurmSettings(), description="the arrays of `--runner slurm`")


def read_toml(path: Path, kind: type[AnyContract]) -> AnyContract:
    """A TOML file that people write, read and checked; a byte-order mark is no harm.

    Raises ZooError, which names the file and the key, for whatever is wrong with it: callers that read many files go on with
    the next.
    """
    try:
        text = read_bytes(path, MOST_TOML_BYTES, mend="give a TOML file").decode("utf-8-sig")
        return kind.model_validate(tomllib.loads(text))
    except ValidationError as error:
        raise ZooError(f"{path}: {explain(error, kind)}") from error
    except RecursionError as error:
        raise ZooError(f"{path}: not TOML that can be read: nested too deeply; write fewer brackets") from error
    except ValueError as error:  # tomllib's own, bytes that are not UTF-8, and numbers of thousands of digits
        raise ZooError(f"{path}: not TOML: {error}") from error


def home() -> Path:
    """The folder of everything machines write (`ZOO_HOME`, default `./mlruns`).

    Store, mlflow.db, artifacts.
    """
    return Path(os.environ.get("ZOO_HOME", "mlruns")).absolute()


def entry_folders() -> tuple[Path, ...]:
    """Folders searched for NAME.toml, later ones first.

    The package's own, those of other packages by the name of their entry point, then each of `ZOO_ENTRIES` (colon separated).
    """
    own = Path(__file__).parent / "entries"
    return (own, *_package_folders(), *user_entry_folders())


def user_entry_folders() -> tuple[Path, ...]:
    """The user's own folders of entries: `ZOO_ENTRIES`, of which the last is searched first."""
    return tuple(Path(p) for p in os.environ.get("ZOO_ENTRIES", "").split(os.pathsep) if p)


def new_entries_folder() -> Path:
    """Where commands write an entry: the first of `ZOO_ENTRIES`, else ./entries."""
    return next(iter(user_entry_folders()), Path("entries"))


def _package_folders() -> Iterator[Path]:
    """Folders of installed packages that bring entries.

    Each entry point of the group names a package that holds *.toml. Only the folder is looked up: no code of the package runs,
    but that of the packages around it. One that is broken is told and does not hide the others.
    """
    for point in sorted(importlib.metadata.entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        try:
            spec = importlib.util.find_spec(point.module)
        except Exception as error:
            logger.warning("entries of %s cannot be used: %s: %s", point.value, type(error).__name__, error)
            continue
        if spec is None or not spec.submodule_search_locations:
            logger.warning("entries of %s cannot be used: there is no package of that name", point.value)
            continue
        yield from map(Path, spec.submodule_search_locations)


def load_settings() -> Settings:
    """The user's settings.

    `ZOO_SETTINGS`, default `$XDG_CONFIG_HOME/preference-zoo/settings.toml`; absent: the defaults.
    """
    config = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config"))
    path = Path(os.environ.get("ZOO_SETTINGS", config / "preference-zoo" / "settings.toml"))
    if not path.exists():
        return Settings()
    return read_toml(path, Settings)


def remote_address() -> str:
    """The address of the remote of artifacts, or an empty text.

    `ZOO_REMOTE`, else `remote` of the settings.
    """
    return os.environ.get("ZOO_REMOTE", "") or load_settings().remote


def interpreter(stage: str) -> Path:
    """The Python that runs a stage: the user's for that stage, else this one."""
    return load_settings().environments.get(stage, Path(sys.executable))


def backend_interpreter(backend: str) -> Path:
    """The Python that has a quantization backend.

    The user's in `[environments]`, else that of `make setup-llmcompressor` or `make setup-autoround`.
    """
    name = backend.replace("-", "")
    own = Path(__file__).parents[1] / f".venv-{name}" / "bin" / "python"
    python = load_settings().environments.get(backend, own)
    if not python.exists():
        raise ZooError(
            f"quantize.backend = {backend!r}: no interpreter at {python}; run `make setup-{name}`, or name one "
            f"that has it in the settings under [environments] as {backend} = PATH"
        )
    return python


def store_folder() -> Path:
    return home() / "store"
