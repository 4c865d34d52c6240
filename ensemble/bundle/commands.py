"""Commands of the host's own program, from a folder to a score: printed, never run."""

from __future__ import annotations

from pathlib import Path

from zoo.bundle.assemble import JOB, NOTEBOOK
from zoo.bundle.contracts import Bundle
from zoo.bundle.notebook_file import push_command, title_of
from zoo.bundle.parts import slug_of, upload_command


def commands_of(bundle: Bundle, folder: Path) -> list[str]:
    """Upload, push, watch, fetch and submit, in that order.

    A data set that is there already need not be sent again.
    """
    kernel = f"{bundle.owner}/{slug_of(title_of(bundle))}"
    uploads = [upload_command(folder / name) for name in (*(part.name for part in bundle.parts), JOB)]
    return [
        *uploads,
        push_command(folder / NOTEBOOK, bundle),
        f"kaggle kernels status {kernel}",
        f"kaggle kernels logs {kernel}",
        f"kaggle kernels output {kernel} -p out --file-pattern 'submission|predict|log'",
        f'kaggle competitions submit {bundle.competition} -k {kernel} -v 1 -f submission.csv -m "plan {bundle.name}"',
    ]
