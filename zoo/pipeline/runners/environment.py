"""What processes that this one starts may see of its environment."""

from __future__ import annotations

import os
from collections.abc import Sequence

from zoo.pipeline.runners.chosen import current_runner

# What a stage may see of the caller's environment: names, or prefixes ending in `*`.
ENVIRONMENT = (
    *(
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "LC_*",
        "TMPDIR",
        "TERM",
        "COLUMNS",
        "XDG_*",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "PYTHONPATH",
    ),
    *("CUDA_*", "NVIDIA_*", "NCCL_*", "NVSHMEM_*", "TORCH_*", "PYTORCH_*", "TRITON_*", "VLLM_*", "FLASHINFER_*"),
    *("OMP_*", "MKL_*", "OPENBLAS_*", "ZOO_*", "SLURM_CONF"),
    *("HF_HOME", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "TRANSFORMERS_OFFLINE"),
)
# Only fetching weights reaches a network, so only it sees how to, and who it is for gated models.
ENVIRONMENT_NETWORK = ("PIP_*", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "*_proxy", "*_PROXY")
ENVIRONMENT_FETCH = ("HF_TOKEN", "HF_ENDPOINT", *ENVIRONMENT_NETWORK)
# Where a cluster is and how to submit to it, for stages that work there.
ENVIRONMENT_RUNNERS = {"local": (), "ray": ("RAY_*",), "slurm": ("SBATCH_*", "SLURM_JWT")}
# Of the command alone: they say who somebody is elsewhere, and what stages see may end up in a script or on another host.
NOT_OF_STAGES = ("ZOO_REMOTE", "ZOO_STUDY_STORAGE")
ENVIRONMENT_PIP = ("PATH", "HOME", "USER", "LANG", "LC_*", "TMPDIR", "XDG_*", "LD_LIBRARY_PATH", *ENVIRONMENT_NETWORK)
SAFE_PATH = {"PYTHONSAFEPATH": "1"}  # no module comes from the folder that a command is given in: it may be a download
RUNNER = "ZOO_RUNNER_PID"  # the parent's process id, so that an orphaned stage notices, in a container too


def environment_of(allowed: Sequence[str]) -> dict[str, str]:
    """The variables of this process's environment that are on a list.

    The list has names, and patterns with one `*` at either end.
    """

    def matches(name: str, pattern: str) -> bool:
        if pattern.startswith("*"):
            return name.endswith(pattern[1:])
        return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern

    return {name: value for name, value in os.environ.items() if any(matches(name, pattern) for pattern in allowed)}


def stage_environment(stage: str) -> dict[str, str]:
    """The allow-listed environment of a stage's process.

    Quiet, offline but for `fetch`, and byte code cached.
    """
    more = ENVIRONMENT_FETCH if stage == "fetch" else ()
    chosen = environment_of((*ENVIRONMENT, *more, *ENVIRONMENT_RUNNERS[current_runner()]))
    defaults = {
        **SAFE_PATH,
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # Threads that wait at a barrier sleep instead of spinning: with one more busy process on two cores, spinning made
        # NF4 dequantization nine times slower (16.8 ms against 1.9 ms for a 1536 x 576 weight).
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "0" if stage == "fetch" else "1",
        # Passes of many shapes leave gaps that no later one fits: a training that was lent 18.1 GiB failed with 16.0 in use.
        **({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"} if stage == "train" else {}),
    }
    return {**defaults, **{name: value for name, value in chosen.items() if name not in NOT_OF_STAGES}}
