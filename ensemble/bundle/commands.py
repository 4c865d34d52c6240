"""Commands of the host's own program, from a folder to a score: printed, never run."""

from __future__ import annotations

import shlex
from pathlib import Path

from ensemble.bundle.make import JOB, NOTEBOOK
from zoo.bundle.contracts import Bundle
from zoo.bundle.notebook_file import accelerator, title_of
from zoo.bundle.parts import has_folders, slug_of


def commands_of(bundle: Bundle, folder: Path) -> list[str]:
    """Upload, push, watch, fetch and submit, in that order.

    A data set that is there already need not be sent again.
    """
    kernel = f"{bundle.owner}/{slug_of(title_of(bundle))}"
    uploads = [_upload(folder / name) for name in (*(part.name for part in bundle.parts), JOB)]
    shape = f" --accelerator {accelerator(bundle.target.gpu, bundle.target.name)}" if bundle.target.gpus else ""
    return [
        *uploads,
        f"kaggle kernels push -p {shlex.quote(str(folder / NOTEBOOK))}{shape}",
        f"kaggle kernels status {kernel}",
        f"kaggle kernels logs {kernel}",
        f"kaggle kernels output {kernel} -p out --file-pattern 'submission|predict|log'",
        f'kaggle competitions submit {bundle.competition} -k {kernel} -v 1 -f submission.csv -m "plan {bundle.name}"',
    ]


def _upload(folder: Path) -> str:
    """Of one data set; folders in it are sent as archives without compression, which the host unpacks."""
    return f"kaggle datasets create -p {shlex.quote(str(folder))}" + (" -r tar" if has_folders(folder) else "")
