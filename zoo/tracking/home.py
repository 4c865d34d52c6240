"""The tracking store's location and marks, and texts without credentials.

No MLflow here: what is known of it without asking.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from zoo.settings import home

SECRET_NAME = re.compile(r"(?i)(token|secret|password|passwd|credentials?|key)$")  # of an environment variable
PASSWORD = r"(?:\w*password|\w*passwd|pwd)\s*=\s*"
VALUE = r"(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|(?:[^&\s'\"\\]|\\.)+)"  # of `password=...`, quoted or not
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


def database() -> Path | None:
    """The SQLite file that a tracking URI names and this process makes where it is missing.

    None for anything else.
    """
    path = tracking_uri().removeprefix("sqlite:///")
    if path == tracking_uri() or not path or "?" in path or path.startswith((":memory:", "file:")):
        return None
    return Path(path).absolute()


def is_own_database() -> bool:
    """Whether runs go to the home's own database, which is moved with it."""
    return database() == home() / "mlflow.db"


def artifact_root() -> Path:
    """Where runs' files go unless a server keeps them."""
    return home() / "artifacts"


def kept_builds() -> Path:
    """What each build logged, a folder each: a database that is made again is filled from here."""
    return home() / "builds"


def kept_uses() -> Path:
    """What each prediction and evaluation logs, a file each."""
    return home() / "predictions"


def aliases_file() -> Path:
    """Which checkpoint of an entry has which alias, as people and builds decided it."""
    return home() / "aliases.json"


def mask(text: str) -> str:
    """A text without the credentials that any URI or the environment holds."""
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = re.sub(r"(://)\S*@", r"\1***@", text)
    text = re.sub(r"(?<![^\s'\"(=])([^\s/:'\"(]+:)(?!//)\S+@(?=[\w\[])", r"\1***@", text)  # user:password@host
    text = re.sub(rf"(?i)\b({PASSWORD}){VALUE}", r"\1***", text)
    return re.sub(r"(?i)\b((?:\w*token|\w*key|secret)=)[^&\s'\"]+", r"\1***", text)


def _secrets() -> set[str]:
    """Texts that no message may hold.

    Secret variables of the environment, and the tracking URI's password in each spelling.
    """
    found = {v for k, v in os.environ.items() if SECRET_NAME.search(k) and len(v) >= FEWEST_SECRET_CHARACTERS}
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    spelled = [m.group(1) for m in re.finditer(rf"(?i)\b{PASSWORD}({VALUE})", uri)]
    before = re.sub(r"^[\w+.-]+://", "", uri).rpartition("@")[0]
    spelled += [before.partition(":")[2], before.rpartition(":")[2]] if ":" in before else []
    for password in spelled:
        bare = re.sub(r"\\(.)", r"\1", password.strip("'\""))
        found |= {x for x in (password, bare, unquote(bare)) if len(x) >= FEWEST_SECRET_CHARACTERS}
    return found


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
    if unreachable(error):
        return "the server cannot be reached"
    text = mask(str(error)).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}" if text else type(error).__name__


def unreachable(error: Exception) -> bool:
    """Whether an error says that nobody answered: asking again would cost as much again."""
    return isinstance(error, TimeoutError) or any(sign in str(error) for sign in ("Max retries exceeded", "timed out"))


def refused(error: Exception) -> bool:
    """Whether a store that answers says that it will never take this.

    A name that it does not allow, say, or a setting that changed.
    """
    return getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE"  # of mlflow.exceptions.MlflowException


def is_marked(name: str) -> bool:
    """Whether a stage (`STAGE-FINGERPRINT`) or a build (`build-KEY`) is known to be logged."""
    return (marker_folder() / name).exists() and (not is_own_database() or (home() / "mlflow.db").exists())


def mark_begun(name: str) -> None:
    """Note that logging of a stage or build has begun.

    Until it is `mark`ed, a run may be left that no process goes on with.
    """
    marker_folder().mkdir(parents=True, exist_ok=True)
    (marker_folder() / f"{name}.begun").touch()


def mark(name: str) -> None:
    """Note that a stage or a build is logged to its end where `tracking_uri` points now."""
    marker_folder().mkdir(parents=True, exist_ok=True)
    (marker_folder() / name).touch()
    (marker_folder() / f"{name}.begun").unlink(missing_ok=True)


def unmark(name: str) -> None:
    """Note that what was logged under this name has changed, wherever it was logged."""
    for marked in (home() / ".logged").glob(f"*/{name}"):
        marked.unlink(missing_ok=True)
    mark_begun(name)


def is_owed(name: str) -> bool:
    """Whether a finished stage or build is still to be logged.

    The home's own database holds all, another what was begun.
    """
    if is_own_database():
        return not is_marked(name)
    return (marker_folder() / f"{name}.begun").exists()


def forget_marks() -> None:
    """What was noted of a tracking store counts for no other one that takes its place."""
    shutil.rmtree(marker_folder(), ignore_errors=True)


def marker_folder() -> Path:
    """Where it is noted what the tracking store holds.

    That of the home's own database moves with the home.
    """
    store = "home" if is_own_database() else hashlib.sha256(tracking_uri().encode()).hexdigest()[:12]
    return home() / ".logged" / store
