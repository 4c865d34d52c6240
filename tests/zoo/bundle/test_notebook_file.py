"""The notebook: by nbformat's own schema, its metadata by the host's keys, and its cells run as a kernel runs them."""

import copy
import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nbformat.validator import iter_validate

from zoo.bundle.contracts import Bundle, BundledFile, BundleTarget, Image
from zoo.bundle.notebook_file import (
    KERNEL,
    NOTEBOOK,
    accelerator,
    cell_sources,
    kernel_faults,
    kernel_metadata,
    notebook,
    notebook_faults,
    write_notebook,
)
from zoo.bundle.undefined import undefined_names
from zoo.errors import ZooError

NAME = "0123456789ab"


@pytest.fixture
def bundle() -> Bundle:
    plan = BundledFile(path="plan.json", bytes=1, sha256="0" * 64, origin="made here", licence="unknown")
    target = BundleTarget(name="t4x2", gpus=2, gpu="T4", compute_capability=(7, 5), usable_bytes=1, engine="0.21.0")
    return Bundle(
        task="predict",
        created_at=datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        name=NAME,
        owner="me",
        competition="lmsys-chatbot-arena",
        target=target,
        image=Image(),
        budget_seconds=100,
        prior=(0.4, 0.3, 0.3),
        plan="plan.json",
        plan_sha256="0" * 64,
        lock="requirements.lock",
        light=(),
        parts=(),
        files=(plan,),
    )


def test_nbformat_s_own_schema(bundle: Bundle) -> None:
    found = notebook(bundle)
    assert list(iter_validate(found)) == []
    assert notebook_faults(found) == [] and len(found["cells"]) == 3
    assert undefined_names(cell_sources(found)) == []


@pytest.mark.parametrize("key", ["cell_type", "metadata", "execution_count", "outputs", "source", "id"])
def test_a_key_that_was_lost_in_editing(bundle: Bundle, key: str) -> None:
    """What nbformat refuses, the check of a bundle refuses too, without nbformat."""
    found = copy.deepcopy(notebook(bundle))
    del found["cells"][1][key]
    assert list(iter_validate(found)) and notebook_faults(found)


@pytest.mark.parametrize("found", [None, [], {}, {"nbformat": 3, "cells": []}, {"nbformat": 4, "cells": [7]}])
def test_what_is_no_notebook(found: Any) -> None:
    assert notebook_faults(found)


def test_kernel_metadata(bundle: Bundle) -> None:
    found = kernel_metadata(bundle, "pz-job-x")
    assert found["enable_internet"] is False and found["enable_gpu"] is True and found["is_private"] is True
    assert found["machine_shape"] == "NvidiaTeslaT4" and found["dataset_sources"] == ["me/pz-job-x"]
    assert found["id"] == f"me/pz-t4x2-{NAME}" and found["competition_sources"] == ["lmsys-chatbot-arena"]
    assert kernel_faults(found, found) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"enable_internet": None}, "takes for true"),
        ({"enable_internet": True}, "`enable_internet` is true, not false"),
        ({"enable_internet": 0}, "`enable_internet` is 0, not false"),
        ({"enable_internet": "false"}, "not false"),
        ({"enable_gpu": False}, "enable_gpu"),
        ({"is_private": False}, "is_private"),
        ({"machine_shap": "x"}, "unknown key `machine_shap`"),
        ({"dataset_sources": []}, "dataset_sources"),
    ],
)
def test_metadata_that_a_day_is_lost_by(bundle: Bundle, change: dict[str, Any], said: str) -> None:
    wanted = kernel_metadata(bundle, "pz-job-x")
    found = {key: value for key, value in {**wanted, **change}.items() if value is not None}
    (fault,) = kernel_faults(found, wanted)
    assert said in fault


@pytest.mark.parametrize("gpu", ["V100", ""])
def test_cards_that_notebooks_are_not_lent(gpu: str) -> None:
    with pytest.raises(ZooError, match="T4"):
        accelerator(gpu, "mine")


SCRIPT = "import sys, os; print('stage', sys.argv[1], float(os.environ['PZ_STARTED_AT']) > 0); sys.exit(sys.argv[1] == {!r})"


@pytest.mark.parametrize("layout", ["pz-job", "datasets/me/pz-job", "datasets/me/pz-job/versions/1/job"])
@pytest.mark.parametrize("fails", ["", "prepare"])
def test_the_cells_find_the_job_and_run_its_script(bundle: Bundle, tmp_path: Path, layout: str, fails: str) -> None:
    write_notebook(tmp_path / "notebook", bundle, "pz-job-x")
    job = tmp_path / "input" / layout
    (job / "script").mkdir(parents=True)
    (job / "bundle.json").write_text(json.dumps({"name": NAME}))
    (job / "script" / "__main__.py").write_text(SCRIPT.format(fails))
    other = tmp_path / "input" / "other"
    other.mkdir()
    (other / "bundle.json").write_text(json.dumps({"name": "another"}))
    done = run_cells(tmp_path)
    assert done.stdout.splitlines()[:2] == ["stage look True", "stage prepare True"]
    if fails:
        assert done.returncode and "prepare ended with 1" in done.stderr
    else:
        assert done.returncode == 0 and done.stdout.splitlines()[2] == "stage predict True"


def test_a_job_that_is_not_attached_is_named(bundle: Bundle, tmp_path: Path) -> None:
    write_notebook(tmp_path / "notebook", bundle, "pz-job-x")
    (tmp_path / "input").mkdir()
    done = run_cells(tmp_path)
    assert done.returncode and f"job {NAME} is not attached" in done.stderr
    assert json.loads((tmp_path / "notebook" / KERNEL).read_text())["code_file"] == NOTEBOOK


def run_cells(folder: Path) -> subprocess.CompletedProcess[str]:
    sources = cell_sources(json.loads((folder / "notebook" / NOTEBOOK).read_text()))
    env = {"PZ_INPUT": str(folder / "input"), "PATH": "/usr/bin:/bin"}
    return subprocess.run([sys.executable, "-c", "\n".join(sources)], capture_output=True, text=True, env=env, timeout=60)
