"""`zoo sync`: log every stage and build that the tracking store lacks.

Twice doubles nothing.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

from zoo.contracts import Entry, Manifest
from zoo.errors import ZooError
from zoo.store import list_artifacts
from zoo.tracking.home import mask, one_line, tracking_uri, unlogged_builds

logger = logging.getLogger("zoo")


def sync(store: Path) -> int:
    """Log every artifact of the store and every build that the tracking store lacks.

    Returns how many that were.

    ZooError, with the way out, where the tracking store cannot be reached or used.
    """
    from zoo.tracking.builds import BUILD, mirror_build
    from zoo.tracking.stages import mirror_stage

    added = 0
    try:
        for artifact in list_artifacts(store):
            added += mirror_stage(artifact, entry_of(artifact.manifest))
        for folder in sorted(unlogged_builds().glob("*/")):
            arguments = json.loads((folder / BUILD).read_text())
            added += mirror_build(**arguments, files=sorted(p for p in folder.iterdir() if p.name != BUILD))
            shutil.rmtree(folder)
    except ZooError:
        raise
    except Exception as error:
        logger.debug("sync failed", exc_info=True)
        raise unusable(error, "zoo sync") from None  # the cause's own text can hold the server's credentials
    return added


def unusable(error: Exception, command: str) -> ZooError:
    """A tracking store that cannot be reached or used, as one line with the way out.

    Credentials are left out.
    """
    text = (
        f"{mask(tracking_uri())}: {one_line(error)}; start the server or mend MLFLOW_TRACKING_URI, then run `{command}` again"
    )
    return ZooError(text, exit_code=1)


def entry_of(manifest: Manifest) -> Entry | None:
    """The entry of that name today, or None.

    Removing or renaming an entry never breaks old runs.
    """
    from zoo.entries.load import load_entry

    try:
        return load_entry(manifest.request.entry)
    except ZooError:
        return None
