"""The artifact store: finished stage results, found by the fingerprint of a request."""

from zoo.store.artifacts import (
    ERROR,
    LOG,
    MANIFEST,
    PARTIAL,
    REQUEST,
    RESULT,
    Artifact,
    artifact_name,
    commit,
    differing_field,
    find,
    fingerprint,
    identity,
    list_artifacts,
    read_manifest,
)
from zoo.store.files import file_sha256, folder_fingerprint, locked, open_lock, replacing, scratch_folder, write_atomic
from zoo.store.lineage import recipe_of, source_of, sources

__all__ = [
    "ERROR",
    "LOG",
    "MANIFEST",
    "PARTIAL",
    "REQUEST",
    "RESULT",
    "Artifact",
    "artifact_name",
    "commit",
    "differing_field",
    "file_sha256",
    "find",
    "fingerprint",
    "folder_fingerprint",
    "identity",
    "list_artifacts",
    "locked",
    "open_lock",
    "read_manifest",
    "recipe_of",
    "replacing",
    "scratch_folder",
    "source_of",
    "sources",
    "write_atomic",
]
