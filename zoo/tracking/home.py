"""The tracking store's location and marks, and texts without credentials.

No MLflow here: what is known of it without asking.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from zoo.contracts import Manifest
from zoo.settings import home

SECRET_NAME = re.compile(r"(?i)(token|secret|password|passwd|credentials?|key)$")  # of an environment variable
FEWEST_SECRET_CHARACTERS = 6  # a shorter value is a flag or a number, and masking it would eat ordinary text
ABSOLUTE_PATH = re.compile(r"(?:file:/{2,3}|~?/|[A-Za-z]:[\\/])(?:[^\n]*[^\s\\/])?[\\/]*")


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, else SQLite in the home folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def is_server(uri: str) -> bool:
    """Whether a tracking URI names a server rather than a database.

    A server keeps runs' files itself.
    """
    return uri.startswith(("http:", "https:", "databricks", "uc:"))


def artifact_root() -> Path:
    """Where runs' files go unless a server keeps them."""
    return home() / "artifacts"


def unlogged_builds() -> Path:
    """Builds that could not be logged, a folder each, until `zoo sync` logs them."""
    return home() / "unlogged-builds"


def mask(text: str) -> str:
    """A text without the credentials that a tracking URI or the environment holds."""
    for name, secret in os.environ.items():
        if SECRET_NAME.search(name) and len(secret) >= FEWEST_SECRET_CHARACTERS:
            text = text.replace(secret, "***")
    text = re.sub(r"(://)\S*@", r"\1***@", text)
    return re.sub(r"(?i)\b((?:\w*token|\w*key|secret|password|pwd)=)[^&\s'\"]+", r"\1***", text)


def public(text: str) -> str:
    """A text as it may stand in a run: masked, and of an absolute path only its last part."""
    text = mask(text)
    if ABSOLUTE_PATH.fullmatch(text):
        return re.split(r"[\\/]", text.rstrip("\\/"))[-1]
    for folder in {str(home()), str(Path.home()), str(Path.cwd())} - {"/"}:
        text = text.replace(folder + "/", "")
    return text


def public_data(value: Any) -> Any:
    """Nested plain data with every text made `public`."""
    if isinstance(value, dict):
        return {key: public_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [public_data(item) for item in value]
    return public(value) if isinstance(value, str) else value


def one_line(error: Exception) -> str:
    """An error's kind and first line, masked; of a failed connection only that it failed."""
    text = mask(str(error)).strip()
    if "Max retries exceeded" in text:
        return "the server cannot be reached"
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}" if text else type(error).__name__


def is_marked(manifest: Manifest) -> bool:
    """Whether a stage is known to be logged.

    A pipeline that finds everything in the store need not import MLflow.
    """
    database = home() / "mlflow.db"
    return _marker(manifest).exists() and (bool(os.environ.get("MLFLOW_TRACKING_URI")) or database.exists())


def mark(manifest: Manifest) -> None:
    """Note that a stage is logged where `tracking_uri` points now."""
    path = _marker(manifest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def _marker(manifest: Manifest) -> Path:
    store = hashlib.sha256(tracking_uri().encode()).hexdigest()[:12]
    return home() / ".logged" / store / f"{manifest.stage}-{manifest.fingerprint}"
