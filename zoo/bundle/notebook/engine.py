"""What engines read from their environment: libraries, no network, the cards' attention."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from .environment import Environment
from .places import Places, State, say

DRIVER_LIBRARIES = "/usr/local/nvidia/lib64"  # where Kaggle mounts the driver's; a process that lacks it finds no libcuda
ALWAYS = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",  # it would be compiled for minutes, and nothing is sampled
    "VLLM_HOST_IP": "127.0.0.1",  # else vLLM asks the network for this machine's address
    "DO_NOT_TRACK": "1",
    "PYTHONNOUSERSITE": "1",
}
IMAGE_OWN = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "MPLBACKEND")  # of the image's packages, not the environment's
# Jupyter's kernel sets these; with them a live display is drawn anew ten times a second, and the notebook keeps every one.
OF_A_TERMINAL = ("FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TERM")
ATTENTION = "ZOO_ATTENTION"  # read by zoo/stages/score/second_start.py
SLOW_ATTENTION = "TRITON_ATTN: without tensor cores on these cards, by estimate 20 to 40 % more time at 1,000 tokens a row"


def variables(
    inherited: Mapping[str, str], job: Path, places: Places, environment: Environment, state: State
) -> dict[str, str]:
    """The environment that members are predicted in."""
    found = {name: value for name, value in inherited.items() if name not in (*IMAGE_OWN, *OF_A_TERMINAL)} | ALWAYS
    found["ZOO_HOME"] = str(places.home)
    found["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [DRIVER_LIBRARIES, inherited.get("LD_LIBRARY_PATH")]))
    if own := sorted((job / "targets").rglob("*.toml")):  # of machines that members were scored on, new to the package
        found["ZOO_TARGETS"] = str(own[0].parent)
    if environment.product:
        found["PYTHONPATH"] = environment.product
    if environment.on_processors:
        found["CUDA_VISIBLE_DEVICES"] = ""  # the engine has no code for cards, should there be some
    elif "vllm" in environment.engines and state.turing:
        found |= _attention(job / "flashinfer", places, environment)
    return found


def _attention(modules: Path, places: Places, environment: Environment) -> dict[str, str]:
    """FlashInfer by the modules that were compiled beforehand, else attention that needs none."""
    try:
        count = _install_modules(modules, environment.python.parent.parent)
        why = "" if count else "the bundle has no FlashInfer modules"
    except OSError as error:
        count, why = 0, f"FlashInfer modules cannot be copied: {error}"
    if not count:
        say(f"{why}; attention by {SLOW_ATTENTION}")
        return {ATTENTION: "TRITON_ATTN"}
    say(f"attention by FlashInfer, from {count} modules compiled beforehand; by TRITON_ATTN where they do not load")
    return {"FLASHINFER_WORKSPACE_BASE": str(places.scratch), "FLASHINFER_DISABLE_JIT": "1"}


def _install_modules(modules: Path, environment: Path) -> int:
    """Copy modules NAME/NAME.so to where FlashInfer looks for what was compiled beforehand; how many.

    That is a folder of its package. With FLASHINFER_DISABLE_JIT it takes nothing from its cache of modules compiled at first
    use, not even those that are there (flashinfer/jit/core.py of 0.6.8.post1, `JitSpec.build_and_load`).
    """
    package = next(iter(sorted(environment.glob("lib/python*/site-packages/flashinfer"))), None)
    found = [path for path in sorted(modules.rglob("*.so")) if path.parent.name == path.stem]
    if package is None:
        return 0
    for path in found:
        target = package / "data" / "aot" / path.stem / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return len(found)
