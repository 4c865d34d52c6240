"""Commands of the host's own program, from a folder to a score: printed, never run."""

from __future__ import annotations

from pathlib import Path

from zoo.bundle.assemble import run_commands
from zoo.bundle.contracts import Bundle
from zoo.bundle.notebook_file import kernel_of


def commands_of(bundle: Bundle, folder: Path) -> list[str]:
    """Upload, push, watch, fetch and submit, in that order."""
    kernel = kernel_of(bundle)
    return [
        *run_commands(folder, bundle),
        f"kaggle kernels output {kernel} -p out --file-pattern 'submission|predict|log'",
        f'kaggle competitions submit {bundle.competition} -k {kernel} -v 1 -f submission.csv -m "plan {bundle.name}"',
    ]
