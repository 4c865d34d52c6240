"""Releases: version, changelog and tag agree, and the wheel alone runs the demo's first half."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from scripts.release import current_faults, faults, first_half, run_first_half
from tests.helpers.paths import ROOT
from zoo.bundle.product import make_wheel

CHANGELOG = "# Changelog\n\n## [Unreleased]: 0.3.0\n\n## [0.2.0]: 2026-12-01\n\n## [0.1.0]: 2026-11-25\n"
CUT = CHANGELOG.replace("[Unreleased]: 0.3.0", "[0.3.0]: 2026-12-24")


def test_version_changelog_and_tags_of_this_checkout_agree() -> None:
    assert current_faults() == []


@pytest.mark.parametrize(
    ("version", "changelog", "here", "tags", "said"),
    [
        ("0.3.0.dev0", CHANGELOG, [], ["v0.1.0", "v0.2.0"], None),
        ("0.3.0", CUT, ["v0.3.0"], ["v0.2.0", "v0.3.0"], None),
        ("0.3.0", CUT, [], [], None),
        ("0.2.0", CHANGELOG, [], [], "wants 0.3.0.dev0"),
        ("0.3.0.dev0", CUT, [], [], "wants 0.3.0"),
        ("0.3.0", CUT, ["v0.3.1"], ["v0.3.1"], "tag v0.3.1 has no heading"),
        ("0.3.0.dev0", CHANGELOG, ["v0.2.0"], ["v0.2.0"], "this commit has tag v0.2.0"),
        ("0.1.9.dev0", CHANGELOG.replace("0.3.0", "0.1.9"), [], [], "0.1.9 is to come, and 0.2.0 is out"),
        ("0.3.0", CUT.replace("[0.2.0]", "[0.4.0]"), [], [], "not newest first"),
    ],
)
def test_what_does_not_agree_is_said(version: str, changelog: str, here: list[str], tags: list[str], said: str | None) -> None:
    found = faults(version, changelog, here, tags)
    assert (found == []) if said is None else any(said in fault for fault in found)


@pytest.fixture
def from_wheel(tmp_path: Path) -> Path:
    """An environment with the wheel's own files, and of this one all other packages."""
    folder = tmp_path / "environment"
    venv.create(folder, symlinks=True)
    install = ["uv", "pip", "install", "-q", "--python", str(folder / "bin" / "python"), "--no-deps", "--no-index"]
    subprocess.run([sys.executable, "-m", *install, str(make_wheel(tmp_path))], check=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")  # no .pth in there is read, so no checkout
    return folder


def test_the_wheel_alone_runs_the_first_half_of_the_demo(from_wheel: Path, tmp_path: Path) -> None:
    """Without the language model, whose training takes minutes: `make release-check` has it."""
    commands = first_half()
    assert [command[:3] for command in commands][2:4] == [["zoo", "run", "lexical"], ["zoo", "run", "smollm2-135m"]]
    light = [command for command in commands if "smollm2-135m" not in command]
    more = [["zoo", "show", "smollm2-135m"], ["zoo", "target", "show", "t4x2"], ["zoo", "report", "lexical@ab"]]
    empty = tmp_path / "empty"
    empty.mkdir()
    printed = run_first_half(from_wheel, empty, light + more)
    assert "lexical@ab" in printed["zoo leaderboard"]
    assert "SmolLM2 135M Instruct" in printed["zoo show smollm2-135m"]
    assert (empty / "report.html").exists()
    asked = "import zoo, importlib.metadata as m; print(zoo.__file__, m.version('preference-zoo'))"
    where = [str(from_wheel / "bin" / "python"), "-P", "-c", asked]
    place, version = subprocess.run(where, cwd=empty, capture_output=True, text=True, check=True).stdout.split()
    assert Path(place).is_relative_to(from_wheel) and not Path(place).is_relative_to(ROOT)
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()
