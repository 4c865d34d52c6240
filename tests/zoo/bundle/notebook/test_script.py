"""The script as a whole: what it may import, where it runs, and how it finds what is attached."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.bundles import SCRIPT
from tests.zoo.bundle.notebook.scenes import make_scene
from zoo.bundle.notebook.find import DEEPEST, find
from zoo.bundle.notebook.places import Refused

MODULES = sorted(SCRIPT.glob("*.py"))


def test_it_is_short_modules_of_the_standard_library_alone() -> None:
    assert len(MODULES) >= 8
    for path in MODULES:
        text = path.read_text()
        assert len(text.splitlines()) < 300
        for node in ast.walk(ast.parse(text, feature_version=(3, 11))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1, path
                names = [] if node.level else [node.module or ""]
            assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names), path


@pytest.mark.parametrize("name", ["script", "notebook-script_2"])
def test_a_copy_of_any_name_runs_without_site_packages_and_leaves_only_its_own_byte_code(tmp_path: Path, name: str) -> None:
    copy = tmp_path / name
    shutil.copytree(SCRIPT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-I", "-S", str(copy)]
    variables = {"PZ_INPUT": str(tmp_path), "PZ_SCRATCH": str(tmp_path / "s")}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "REFUSED: no bundle.json below" in done.stdout, done.stderr
    # Python keeps that of `__main__` before a line of it runs.
    assert [path.name.partition(".")[0] for path in copy.rglob("*.pyc")] in ([], ["__main__"])
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "place", ["input/SLUG", "input/datasets/OWNER/SLUG", "input/models/OWNER/SLUG/transformers/default/1", "input/SLUG/job"]
)
def test_the_job_is_found_wherever_it_is_mounted(tmp_path: Path, place: str) -> None:
    scene = make_scene(tmp_path)
    scene.job.unlink()
    target = tmp_path / place
    shutil.copytree(scene.made / "job", target)
    found = find(scene.inputs)
    assert found.job == target and found.parts == {"model-1": scene.mounted("model-1")} and found.told == ()


def test_folders_that_are_too_deep_or_lead_in_a_circle_are_left_alone(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    deep = scene.inputs.joinpath(*"abcdefghij"[: DEEPEST + 1])
    shutil.copytree(scene.made / "model-1", deep)
    (scene.inputs / "datasets" / "circle").symlink_to(scene.inputs)
    assert find(scene.inputs).told == ()


def test_what_lies_below_a_part_is_no_file_of_the_competition(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    (scene.made / "job" / "store" / "test.csv").write_text("id\n1\n")
    assert find(scene.inputs).battles.parent.name == scene.bundle.competition


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "not JSON"), ('{"schema_version": 2}', "schema_version 2; upload script and job together")],
)
def test_a_job_that_cannot_be_read_is_refused(tmp_path: Path, text: str, said: str) -> None:
    scene = make_scene(tmp_path)
    (scene.made / "job" / "bundle.json").write_text(text)
    with pytest.raises(Refused, match=said):
        find(scene.inputs)


def test_a_marker_that_cannot_be_read_is_a_part_that_is_missing(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    (scene.made / "model-1" / "part.json").write_text("[]")
    found = find(scene.inputs)
    assert found.parts == {} and "cannot be read" in found.told[0] and "model-1 is not mounted" in found.told[1]
