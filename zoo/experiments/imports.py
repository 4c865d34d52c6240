"""A table made elsewhere as a member: logged, and held against battles and other members."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.pipeline.import_findings import findings
from zoo.pipeline.import_table import Imported
from zoo.report.imported import imported_page
from zoo.report.text import Page
from zoo.store import read_manifest
from zoo.tracking.sync import log_stage


def admit(imported: Imported, store: Path) -> tuple[Page, dict[str, Any]]:
    """Log an imported table, and say what it is as a page and as plain data."""
    manifest = read_manifest(imported.path)
    log_stage(manifest, imported.path)
    return imported_page(manifest, imported.path, findings(imported, store))
