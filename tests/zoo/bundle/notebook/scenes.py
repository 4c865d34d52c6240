"""A notebook session for tests: a bundle with stand-in artifacts attached, and its script started as a cell starts it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.bundles import attach, cell_environment, small_bundle
from zoo.bundle import Bundle, Image

PRIOR = (0.4, 0.35, 0.25)
IMAGE = Image(python=f"{sys.version_info[0]}.{sys.version_info[1]}", glibc="2.17", driver=580)
LEXICAL, ENGINE = "lexical-train-aaaaaaaaaaaaaaaa", "quantize-bbbbbbbbbbbbbbbb"
MEMBERS = (
    {"name": "lexical@ab", "checkpoint": "a" * 16, "request": {"stage": "lexical-score"}},
    {"name": "big@ab", "checkpoint": "b" * 16, "request": {"stage": "score"}},
)
T4 = {"name": "Tesla T4", "memory.total": "15360", "compute_cap": "7.5"}


@dataclass
class Scene:
    """What a test changes before the script starts."""

    folder: Path
    bundle: Bundle
    made: Path
    inputs: Path
    job: Path
    environment: dict[str, str]

    @property
    def submission(self) -> Path:
        return self.folder / "working" / "submission.csv"

    def run(self, *stages: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-S", str(self.job / "script"), *stages]
        variables = self.environment | more
        return subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True, timeout=120, check=False)

    def rows(self) -> list[str]:
        return self.submission.read_text().splitlines()

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "working" / "predict.json").read_text())
        return found

    def mounted(self, name: str) -> Path:
        slug = next(part.slug for part in self.bundle.parts if part.name == name)
        return self.inputs / "datasets" / self.bundle.owner / slug


def make_scene(
    folder: Path,
    *,
    rows: int = 3,
    members: Sequence[Mapping[str, Any]] = MEMBERS,
    wheels: Path | None = None,
    light: Sequence[str] = (),
    image: Image = IMAGE,
    budget_seconds: float = 3600,
) -> Scene:
    """A bundle of a lexical member in the job and one of the engine in a part, attached to a session."""
    store = folder / "store"
    for artifact in (LEXICAL, ENGINE):
        (store / artifact / "model").mkdir(parents=True)
        (store / artifact / "manifest.json").write_text(json.dumps({"stage": artifact}))
        (store / artifact / "model" / "weights.bin").write_bytes(artifact.encode() * 100)
    plan = folder / "plan.json"
    plan.write_text(json.dumps({"prior": PRIOR, "members": members}))
    test = folder / "test.csv"
    test.write_text("id,prompt,response_a,response_b\n" + "".join(f'{i},"[""p""]","[""a""]","[""b""]"\n' for i in range(rows)))
    made = folder / "bundle"
    more: dict[str, Any] = {"wheels": wheels, "light": light, "image": image, "budget_seconds": budget_seconds}
    bundle = small_bundle(made, plan, store, in_job=[LEXICAL], models={ENGINE: ["big@ab"]}, **more)
    inputs = folder / "input"
    job = attach(bundle, made, inputs, test)
    environment = cell_environment(folder, inputs, PZ_STARTED_AT=f"{time.time():.3f}")
    return Scene(folder, bundle, made, inputs, job, environment)


def stand_in(folder: Path, body: str, *, engine: str = "") -> str:
    """An environment whose interpreter does this in the place of `ensemble predict`; its folder.

    `body` sees `output`, `test`, `store` (names of what is in it) and `argv`. `engine`: the packages that it seems to have.
    """
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    head = """
        import csv, os, sys, time
        from pathlib import Path
        argv = sys.argv[1:]
        if argv[1:5] == ["zoo", "target", "measure", "--quick"]:
            print(os.environ.get("RATES", ""))
            sys.exit(0)
        output, test = Path(argv[argv.index("-o") + 1]), Path(argv[4])
        store = sorted(p.name for p in Path(argv[argv.index("--store") + 1]).iterdir() if (p / "manifest.json").exists())
        ids = [row["id"] for row in csv.DictReader(test.open())]
        def write(rows):
            text = "id,winner_model_a,winner_model_b,winner_tie\\n" + "".join(f"{i},{a},{b},{c}\\n" for i, a, b, c in rows)
            output.write_text(text)
        """
    python.write_text(f"#!{sys.executable} -S\n{textwrap.dedent(head)}\n{textwrap.dedent(body)}\n")
    python.chmod(0o755)
    for package in engine.split():
        (folder / "lib" / "python3.12" / "site-packages" / f"{package}-0.21.0.dist-info").mkdir(parents=True)
    return str(folder)


MEMBER_IN_EVERY_ROW = """
print("members:", *store)
write([(i, 0.7, 0.2, 0.1) for i in ids])
"""
