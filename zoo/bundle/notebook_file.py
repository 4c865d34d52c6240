"""The notebook of a bundle: three short cells that hand over to the script in the job.

The notebook holds nothing that could differ between bundles but the job's name, and fails in the first cell with words when
what it needs is not attached.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from zoo.bundle.contracts import Bundle
from zoo.bundle.parts import slug_of
from zoo.errors import ZooError
from zoo.store import write_atomic

NOTEBOOK, KERNEL = "notebook.ipynb", "kernel-metadata.json"
# The host's names of cards, by a part of the driver's name of them (its command line, version 2.2.5).
ACCELERATORS = {"T4": "NvidiaTeslaT4", "L4": "NvidiaL4", "A100": "NvidiaA100", "H100": "NvidiaH100"}
CELL_KEYS = {
    "code": {"cell_type", "id", "metadata", "execution_count", "outputs", "source"},
    "markdown": {"cell_type", "id", "metadata", "source"},
    "raw": {"cell_type", "id", "metadata", "source"},
}
KERNEL_KEYS = {
    *("id", "title", "code_file", "language", "kernel_type", "is_private", "enable_gpu", "enable_tpu", "enable_internet"),
    *("machine_shape", "dataset_sources", "competition_sources", "kernel_sources", "model_sources", "keywords"),
    *("docker_image", "docker_image_pinning_type"),
}

FIND = """\
# The time is counted from here. All that follows is done by the script in the job, wherever that is mounted.
import os, pathlib, subprocess, sys, time

os.environ.setdefault("PZ_STARTED_AT", repr(time.time()))
inputs = pathlib.Path(os.environ.get("PZ_INPUT", "/kaggle/input"))
found = [path.parent for depth in range(8) for path in inputs.glob("*/" * depth + "bundle.json")]
jobs = [path for path in found if '"name": "{name}"' in (path / "bundle.json").read_text(errors="replace")]
assert jobs, f"job {name} is not attached below {{inputs}}; attached jobs: {{found}}"
script = min(jobs[0].glob("script/**/__main__.py")).parent


def run(stage):
    command = [sys.executable, str(script), stage]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as process:
        for line in process.stdout:
            print(line, end="", flush=True)
    assert process.returncode == 0, f"{{stage}} ended with {{process.returncode}}: {without}"


run("look")
"""
STAGES = {"predict": ("look", "prepare", "predict"), "train": ("look", "prepare", "train")}  # by task, a cell each
WITHOUT = {"predict": "submission.csv is not whole", "train": "see the lines above"}  # what a stage that fails means


def notebook(bundle: Bundle) -> dict[str, Any]:
    """The notebook as nbformat 4.5 has it, its cells with every key that the format asks for."""
    first, *others = STAGES[bundle.task]
    sources = {first: FIND.format(name=bundle.name, without=WITHOUT[bundle.task])}
    sources |= {stage: f'run("{stage}")\n' for stage in others}
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python", "version": bundle.image.python},
        },
        "cells": [_cell(name, source) for name, source in sources.items()],
    }


def _cell(name: str, source: str) -> dict[str, Any]:
    lines = source.rstrip("\n").splitlines(keepends=True)
    return {"cell_type": "code", "id": name, "metadata": {}, "execution_count": None, "outputs": [], "source": lines}


def title_of(bundle: Bundle) -> str:
    """The notebook's title, of which the host makes its address."""
    return f"pz {'train ' if bundle.task == 'train' else ''}{bundle.target.name} {bundle.name}"


def kernel_of(bundle: Bundle) -> str:
    """The notebook's address: its owner, and what the host makes of its title."""
    return f"{bundle.owner}/{slug_of(title_of(bundle))}"


def kernel_metadata(bundle: Bundle, job_slug: str, *, again: bool = False) -> dict[str, Any]:
    """`kernel-metadata.json`: private, GPUs, no network, and the data sets that it reads.

    `again`: its own last output, too, which a training goes on from. ZooError where the host lends no such card.
    """
    title = title_of(bundle)
    own = kernel_of(bundle)
    sets = [f"{bundle.owner}/{slug}" for slug in (job_slug, *(part.slug for part in bundle.parts))]
    is_set = "/" in bundle.competition
    metadata: dict[str, Any] = {
        "id": own,
        "title": title,
        "code_file": NOTEBOOK,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": bundle.target.gpus > 0,
        "enable_tpu": False,
        "enable_internet": False,
        "dataset_sources": [*sets, *([bundle.competition] if is_set else [])],
        "competition_sources": [] if is_set else [bundle.competition],
        "kernel_sources": [own] if again else [],
        "model_sources": [],
        "keywords": [],
    }
    if bundle.target.gpus:
        metadata["machine_shape"] = accelerator(bundle.target.gpu, bundle.target.name)
    if bundle.image.docker_image:
        metadata["docker_image"] = bundle.image.docker_image
    return metadata


def accelerator(gpu: str, target: str) -> str:
    """The host's name of a card; ZooError where it lends none of that name."""
    if gpu not in ACCELERATORS:
        lent = ", ".join(ACCELERATORS)
        raise ZooError(f"target {target}: notebooks are lent {lent}, not {gpu or 'a card without a name'}; give one of these")
    return ACCELERATORS[gpu]


def push_command(folder: Path, bundle: Bundle) -> str:
    """The command that sends a notebook's folder to the host, which runs it."""
    shape = f" --accelerator {accelerator(bundle.target.gpu, bundle.target.name)}" if bundle.target.gpus else ""
    return f"kaggle kernels push -p {shlex.quote(str(folder))}{shape}"


def write_notebook(folder: Path, bundle: Bundle, job_slug: str, *, again: bool = False) -> None:
    """Write the notebook and its metadata into a folder."""
    folder.mkdir()
    write_atomic(folder / NOTEBOOK, json.dumps(notebook(bundle), indent=1) + "\n")
    write_atomic(folder / KERNEL, json.dumps(kernel_metadata(bundle, job_slug, again=again), indent=1) + "\n")


def kernel_faults(metadata: Any, wanted: dict[str, Any]) -> list[str]:
    """What of a notebook's metadata is unknown to the host, or not as the bundle needs it."""
    if not isinstance(metadata, dict):
        return ["is no JSON object"]
    faults = [f"has the unknown key `{key}`" for key in metadata if key not in KERNEL_KEYS]
    for key, value in wanted.items():
        if key not in metadata:
            faults.append(f"lacks `{key}`" + (", which the host takes for true" if key == "enable_internet" else ""))
        elif metadata[key] != value or type(metadata[key]) is not type(value):
            faults.append(f"`{key}` is {json.dumps(metadata[key])}, not {json.dumps(value)}")
    return faults


def notebook_faults(found: Any) -> list[str]:
    """What of a notebook does not follow nbformat 4.5, as far as the host's converter needs it."""
    if not isinstance(found, dict) or found.get("nbformat") != 4 or not isinstance(found.get("cells"), list):
        return ["no notebook of nbformat 4"]
    faults = [f"lacks `{key}`" for key in ("metadata", "nbformat_minor") if key not in found]
    seen: set[object] = set()
    for number, cell in enumerate(found["cells"], 1):
        if not isinstance(cell, dict) or cell.get("cell_type") not in CELL_KEYS:
            faults.append(f"cell {number} is of no known type")
            continue
        wanted = CELL_KEYS[cell["cell_type"]]
        faults += [f"cell {number} lacks `{key}`" for key in sorted(wanted - cell.keys())]
        faults += [f"cell {number} has the unknown key `{key}`" for key in sorted(cell.keys() - wanted - {"attachments"})]
        if not isinstance(cell.get("source"), list | str):
            faults.append(f"cell {number}: `source` is no text")
        if cell.get("id") in seen:
            faults.append(f"cell {number} has the `id` of another")
        seen.add(cell.get("id"))
    return faults


def cell_sources(found: dict[str, Any]) -> list[str]:
    """The code of a notebook's cells, in their order."""
    return ["".join(cell["source"]) for cell in found["cells"] if cell["cell_type"] == "code"]
