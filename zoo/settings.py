"""Where things lie: the home folder, entry folders, and interpreters of stages that need one of their own."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

from pydantic import Field, ValidationError

from zoo.contracts import Contract
from zoo.errors import ZooError


class Settings(Contract):
    """`[environments]` maps a stage to a Python interpreter, for quantizers that cannot share one with vLLM."""

    environments: dict[str, Path] = Field(default={})


def home() -> Path:
    """The folder of everything machines write (`ZOO_HOME`, default `./mlruns`): store, mlflow.db, artifacts."""
    return Path(os.environ.get("ZOO_HOME", "mlruns")).absolute()


def entry_folders() -> tuple[Path, ...]:
    """Folders searched for NAME.toml, later ones first: the package's own, then each of `ZOO_ENTRIES` (colon separated)."""
    own = Path(__file__).parent / "entries"
    return (own, *(Path(p) for p in os.environ.get("ZOO_ENTRIES", "").split(os.pathsep) if p))


def load_settings() -> Settings:
    """The user's settings: `ZOO_SETTINGS`, default `$XDG_CONFIG_HOME/preference-zoo/settings.toml`; absent: the defaults."""
    config = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config"))
    path = Path(os.environ.get("ZOO_SETTINGS", config / "preference-zoo" / "settings.toml"))
    if not path.exists():
        return Settings()
    try:
        return Settings.model_validate(tomllib.loads(path.read_text()))
    except (ValidationError, tomllib.TOMLDecodeError) as error:
        raise ZooError(f"{path}: {str(error).splitlines()[0]}; known key: [environments] stage = interpreter") from error


def interpreter(stage: str) -> Path:
    """The Python that runs a stage: the user's for that stage, else this one."""
    return load_settings().environments.get(stage, Path(sys.executable))
