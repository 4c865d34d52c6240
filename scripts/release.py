"""Check a release: `python scripts/release.py [--try]`.

Version, changelog and tag must agree. With `--try` wheel and source archive are built into dist/, the wheel is installed into a
fresh environment, and that runs the first half of the demo from an empty folder: minutes, and a package index.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).parents[1]
HEADING = re.compile(r"^## \[(?P<name>[^\]]+)\]: (?P<said>\S+)$", re.MULTILINE)
LAST_STEP = "zoo leaderboard"  # of the demo's first half: what follows is the ensembler's


def faults(version: str, changelog: str, here: list[str], tags: list[str]) -> list[str]:
    """What does not agree. `here` are the tags of this commit, `tags` all of the repository."""
    headings = [(found["name"], found["said"]) for found in HEADING.finditer(changelog)]
    released = [name for name, _ in headings if name != "Unreleased"]
    found = [f"tag {tag} has no heading in CHANGELOG.md" for tag in tags if tag.startswith("v") and tag[1:] not in released]
    name, said = headings[0]
    expected = f"{said}.dev0" if name == "Unreleased" else name
    if version != expected:
        found.append(f"pyproject.toml has version {version}; CHANGELOG.md begins with [{name}]: {said}, which wants {expected}")
    if any(Version(later) <= Version(earlier) for later, earlier in itertools.pairwise(released)):
        found.append("CHANGELOG.md: versions are not newest first")
    if released and name == "Unreleased" and Version(said) <= Version(released[0]):
        found.append(f"CHANGELOG.md: {said} is to come, and {released[0]} is out")
    wrong = [tag for tag in here if tag.startswith("v") and tag[1:] != version]
    return found + [f"this commit has tag {tag}, and version {version}" for tag in wrong]


def current_faults() -> list[str]:
    """What does not agree in this checkout."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    here, tags = _git("tag", "--points-at", "HEAD"), _git("tag")
    return faults(version, (ROOT / "CHANGELOG.md").read_text(), here, tags)


def first_half() -> list[list[str]]:
    """Commands of scripts/demo.sh up to the leaderboard."""
    text = (ROOT / "scripts" / "demo.sh").read_text()
    steps = re.findall(r"^step (.+)$", text, re.MULTILINE)
    return [shlex.split(step) for step in steps[: steps.index(LAST_STEP) + 1]]


def run_first_half(environment: Path, folder: Path, commands: list[list[str]]) -> dict[str, str]:
    """Run commands of the demo in an empty folder with an environment's programs; what each printed.

    RuntimeError with the command and its last lines where one fails.
    """
    (folder / "demo").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ZOO_"))}
    variables = kept | {"PATH": f"{environment / 'bin'}:{kept['PATH']}", "VIRTUAL_ENV": str(environment)}
    printed = {}
    for command in commands:
        begun = time.monotonic()
        print("==", *command, file=sys.stderr, flush=True)
        done = subprocess.run(
            [str(environment / "bin" / command[0]), *command[1:]],
            cwd=folder,
            env=variables | {"ZOO_HOME": str(folder / "mlruns")},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        print(f"   {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        printed[shlex.join(command)] = done.stdout
    return printed


def build() -> Path:
    """Source archive and wheel, the wheel from the archive, into dist/; the wheel's path."""
    made = ROOT / "dist"
    for old in made.glob("*"):
        old.unlink()
    command = ["uv", "build", "--quiet", "--no-build-isolation", "--out-dir", str(made), str(ROOT)]
    subprocess.run([sys.executable, "-m", *command], check=True)
    (wheel,) = made.glob("*.whl")
    return wheel


def try_release() -> None:
    """Build, install into a fresh environment, run the demo's first half; ends the process where something fails."""
    wheel = build()
    for path in sorted(wheel.parent.glob("preference_zoo-*")):
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size:,} bytes")
    with tempfile.TemporaryDirectory() as scratch:
        environment, folder = Path(scratch) / "environment", Path(scratch) / "empty"
        folder.mkdir()
        begun = time.monotonic()
        subprocess.run(["sh", str(ROOT / "scripts" / "install.sh"), str(environment), str(wheel)], check=True)
        print(f"installed into a fresh environment in {time.monotonic() - begun:.0f} s")
        begun = time.monotonic()
        printed = run_first_half(environment, folder, first_half())
        print(printed[LAST_STEP], f"the demo's first half took {time.monotonic() - begun:.0f} s", sep="\n")


def _git(*arguments: str) -> list[str]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


if __name__ == "__main__":
    if set(sys.argv[1:]) - {"--try"}:
        raise SystemExit(__doc__)
    if found := current_faults():
        raise SystemExit("\n".join(found))
    if "--try" in sys.argv:
        try_release()
