"""Target machines as data, and the machine at hand."""

from zoo.targets.load import (
    PACKAGE_FOLDER,
    Dtype,
    Rates,
    Target,
    is_of_kind,
    list_targets,
    load_target,
    matmul_rate,
    own_folder,
    read_targets,
    target_files,
    target_folders,
)
from zoo.targets.machine import (
    SHARE,
    free_gpu_bytes,
    gpu_uuids,
    host_memory_bytes,
    machine_fingerprint,
    only_gpus,
    process_age_seconds,
    visible_gpus,
)

__all__ = [
    "PACKAGE_FOLDER",
    "SHARE",
    "Dtype",
    "Rates",
    "Target",
    "free_gpu_bytes",
    "gpu_uuids",
    "host_memory_bytes",
    "is_of_kind",
    "list_targets",
    "load_target",
    "machine_fingerprint",
    "matmul_rate",
    "only_gpus",
    "own_folder",
    "process_age_seconds",
    "read_targets",
    "target_files",
    "target_folders",
    "visible_gpus",
]
