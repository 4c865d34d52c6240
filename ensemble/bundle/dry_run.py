"""The dry run of a bundle: its own script as a notebook runs it, as planned and with faults.

Every run is the real script on the real parts in namespaces of its own: no network, inputs read-only, an environment with
nothing of this shell. Two things differ from the notebook, and each run says so: this machine's environment stands for the
one made of the wheels, and its engine for the GPU's. Where the kernel grants no namespaces, inputs are links and the network is
not cut off, which is said, too.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ensemble.bundle.cell import OPEN
from ensemble.plan import load_plan
from zoo.bundle import Bundle, Part
from zoo.bundle.contracts import BUNDLE
from zoo.bundle.notebook.submission import fault, form_of
from zoo.contracts import Say
from zoo.errors import ZooError

ROWS, MANY_ROWS = 20, 25_000  # the competition's hidden file is about as long as the latter
CUT_SECONDS = 240.0  # beside loading, of the hours: too little for a long file on processors, which is cut
LONGEST_SECONDS = 1800.0  # of any run, on the clock
PAGE, CELLS_BYTES = 4096, 66  # of a disk in memory; of a submission's row without its id
OWNER = "dry-run"


@dataclass(frozen=True)
class Trial:
    """One run of the script: what was done to it, what came out, and how long it took."""

    name: str
    done: str
    came: str
    seconds: float
    whole: bool

    def line(self) -> str:
        """`ok    one model missing: ...; 20 rows, ...; 12.3 s`."""
        return f"{'ok' if self.whole else 'FAIL':<4}  {self.name}: {self.done}; {self.came}; {self.seconds:.1f} s"


@dataclass
class Scene:
    """What a run finds in its inputs, and how it is started."""

    bundle: Bundle
    folder: Path  # of the bundle
    battles: Path
    work: Path  # of this run
    rows: int = ROWS
    seconds: float | None = None  # of the budget that are left; None: all
    mounts: dict[str, Path] = field(default_factory=dict)  # below the inputs -> what is there
    path: str = "/usr/local/bin:/usr/bin:/bin"
    full: bool = False

    def part(self, name: str) -> str:
        """Where a part is mounted."""
        slug = next((part.slug for part in self.bundle.parts if part.name == name), f"job-{self.bundle.name}")
        return f"datasets/{OWNER}/{slug}"


def dry_run(
    folder: Path, battles: Path, *, environment: Path | None = None, say: Say = lambda _: None, only: Sequence[str] = ()
) -> list[Trial]:
    """Run a bundle's script on rows of a battles file, as planned and with each fault.

    The faults are those that a notebook may meet. `environment`: a virtual environment in the place of the wheels (default:
    this one). `only`: names of runs; all, where none is named. ZooError where the folder is no bundle, or the file has no
    battles.
    """
    path = folder / "job" / BUNDLE
    if not path.is_file():
        raise ZooError(f"{path}: no such file; give the folder that `ensemble bundle PLAN -o FOLDER` made")
    bundle = Bundle.model_validate_json(path.read_bytes())
    refusal = refused()
    if refusal:
        say(
            f"the kernel refuses namespaces ({refusal}): the network is not cut off, and inputs are links; run as root for both"
        )
    found = []
    with tempfile.TemporaryDirectory(prefix="dry-run-") as temporary:
        for place, (name, prepare) in enumerate(TRIALS.items()):
            if only and name not in only:
                continue
            work = Path(temporary) / str(place)
            scene = Scene(bundle, folder.absolute(), battles, work)
            work.mkdir()
            trial = _run(scene, name, prepare, environment or Path(sys.prefix), isolated=not refusal)
            say(trial.line())
            found.append(trial)
            shutil.rmtree(work, ignore_errors=True)
    return found


def refused() -> str:
    """Why this process may make no namespaces of mounts and network; empty where it may."""
    done = subprocess.run([*_unshare(), "true"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip() or f"exit code {done.returncode}")


def _unshare() -> list[str]:
    return ["unshare", "--net", "--mount", "--propagation", "private", *([] if os.geteuid() == 0 else ["--map-root-user"])]


# --- the runs ---------------------------------------------------------------------------------------------------------


def _as_planned(scene: Scene) -> str:
    return "as planned"


def _missing(scene: Scene) -> str:
    part = _model(scene)
    if part is None:
        others = [other.name for other in scene.bundle.parts]
        for name in others:
            del scene.mounts[scene.part(name)]
        return f"no model part in this bundle; {', '.join(others) or 'no other part'} not mounted"
    del scene.mounts[scene.part(part.name)]
    return f"{part.name} ({', '.join(part.members)}) is not mounted"


def _doubled(scene: Scene) -> str:
    part = _model(scene)
    name = part.name if part else "job"
    scene.mounts["datasets/another/copy-of-it"] = scene.mounts[scene.part(name)]
    return f"{name} is mounted twice"


def _damaged(scene: Scene) -> str:
    part = _model(scene)
    name, prefix = (part.name, "") if part else ("job", "store/")
    files = [file for file in (part.files if part else scene.bundle.files) if file.path.startswith(prefix) and file.bytes]
    if not files:
        raise ZooError(f"{name}: no file to damage")
    chosen = max((file for file in files if file.bytes < 64 << 20), key=lambda file: file.bytes)
    copy = scene.work / "damaged"
    _link_tree(scene.mounts[scene.part(name)], copy)
    path = copy / chosen.path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)
    scene.mounts[scene.part(name)] = copy
    return f"one bit of {name}/{chosen.path} is another"


def _one_card(scene: Scene) -> str:
    target, folder = scene.bundle.target, scene.work / "bin"
    capability = ".".join(map(str, target.compute_capability or (7, 5)))
    told = {"index": "0", "name": f"Tesla {target.gpu}", "memory.total": "15360", "compute_cap": capability}
    write_driver(folder, [told], driver=f"{scene.bundle.image.driver or 580}.159.04")
    scene.path = f"{folder}:{scene.path}"
    return f"nvidia-smi tells of one {target.gpu} where {target.gpus} are wanted"


def _full_disk(scene: Scene) -> str:
    scene.full = True
    return "/kaggle/working has room for one submission and a half"


def _spent(scene: Scene) -> str:
    scene.seconds = 2.0
    return f"2 s of the budget of {scene.bundle.budget_seconds:g} s are left"


def _long(scene: Scene) -> str:
    members = load_plan(scene.folder / "job" / scene.bundle.plan).members
    loads = {member.checkpoint: member.cost.load_seconds for member in members}
    scene.rows, scene.seconds = MANY_ROWS, CUT_SECONDS + sum(loads.values())
    return f"test.csv has {MANY_ROWS:,} rows, {scene.seconds:.0f} s are left"


TRIALS: dict[str, Callable[[Scene], str]] = {
    "20 rows": _as_planned,
    "one missing": _missing,
    "one doubled": _doubled,
    "one damaged": _damaged,
    "one card": _one_card,
    "full disk": _full_disk,
    "budget spent": _spent,
    "25,000 rows": _long,
}


def _model(scene: Scene) -> Part | None:
    return next((part for part in scene.bundle.parts if part.kind == "model"), None)


def _link_tree(source: Path, copy: Path) -> None:
    """The same folders with links to the files, so that one of them can be another."""
    shutil.copytree(source, copy, copy_function=lambda file, link: Path(link).symlink_to(Path(file).absolute()))


def write_driver(folder: Path, cards: Sequence[dict[str, str]], *, driver: str) -> None:
    """A program `nvidia-smi` that tells of cards, each by the names of the driver's own fields."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "nvidia-smi"
    told = [{**card, "driver_version": driver} for card in cards]
    program.write_text(
        f"#!{os.path.realpath(sys.executable)}\nimport sys\n"
        "fields = next(a for a in sys.argv if a.startswith('--query-gpu=')).partition('=')[2].split(',')\n"
        f"for card in {told!r}:\n    print(', '.join(card.get(field, '[N/A]') for field in fields))\n"
    )
    program.chmod(0o755)


# --- one run ----------------------------------------------------------------------------------------------------------


def _run(scene: Scene, name: str, prepare: Callable[[Scene], str], environment: Path, *, isolated: bool) -> Trial:
    began = time.monotonic()
    test = _competition(scene)
    done = prepare(scene)
    if scene.rows != ROWS:
        test = _competition(scene)
    if scene.full and not isolated:
        return Trial(name, done, "not tried: a small disk needs namespaces", 0.0, True)
    code, tried = _start(scene, environment, isolated=isolated)
    came, whole = _outcome(scene, test, code, tried)
    return Trial(name, done, came, time.monotonic() - began, whole)


def _competition(scene: Scene) -> Path:
    """Lay out the inputs: the parts, and the competition with so many rows of the battles, without their winners."""
    folder = scene.work / "competition"
    folder.mkdir(exist_ok=True)
    test = folder / "test.csv"
    write_rows(scene.battles, test, scene.rows)
    if not scene.mounts:
        scene.mounts[scene.part("job")] = scene.folder / "job"
        for part in scene.bundle.parts:
            scene.mounts[scene.part(part.name)] = scene.folder / part.name
        scene.mounts[f"competitions/{scene.bundle.competition}"] = folder
    return test


def write_rows(battles: Path, test: Path, rows: int) -> None:
    """The first rows of a battles file as a competition's test.csv.

    Over again, under new ids, where it has fewer. ZooError where it is no CSV with a prompt and two responses.
    """
    csv.field_size_limit(sys.maxsize)
    wanted = ("id", "prompt", "response_a", "response_b")
    with battles.open(encoding="utf-8-sig", newline="") as file:
        found = list(itertools.islice(csv.DictReader(file), rows))
    if not found or not set(wanted) <= set(found[0]):
        raise ZooError(f"{battles}: no battles with the columns {', '.join(wanted)}; give a CSV of the competition's form")
    with test.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, wanted, extrasaction="ignore")
        writer.writeheader()
        for number, row in zip(range(rows), itertools.cycle(found), strict=False):
            writer.writerow(row if number < len(found) else {**row, "id": f"{row['id']}{number:06d}"})


def _start(scene: Scene, environment: Path, *, isolated: bool) -> tuple[int, int]:
    """Run the script; its exit code, and how often something tried to reach a network."""
    inputs, working, scratch = (scene.work / name for name in ("input", "working", "scratch"))
    for folder in (working, scratch, scene.work / "home"):
        folder.mkdir(parents=True)
    for place, source in scene.mounts.items():
        target = inputs / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.mkdir() if isolated else target.symlink_to(source)
    script = inputs / scene.part("job") / "script"
    budget = scene.bundle.budget_seconds
    started = time.time() - max(0.0, budget - (budget if scene.seconds is None else scene.seconds))
    spec = {
        # The bare interpreter, which has the standard library alone. -B: without namespaces the job is the folder itself.
        "command": [os.path.realpath(sys.executable), "-B", str(script)],
        "environment": _cell(scene, inputs, working, scratch, environment, started),
        "folder": str(working),
        "seconds": LONGEST_SECONDS,
        "binds": [[str(source), str(inputs / place)] for place, source in scene.mounts.items()],
        "small_disks": [[str(working), _room(scene)]] if scene.full else [],
        "resolver": str(scene.work / "resolv.conf"),
        "output": str(scene.work / "output.txt"),
        "told": str(scene.work / "told.json"),
        "kept": str(scene.work / "kept"),
    }
    (scene.work / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "ensemble.bundle.cell", str(scene.work / "spec.json")]
    command = [*_unshare(), *command] if isolated else [*command, OPEN]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ZooError(f"the dry run's cell did not start: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    told = json.loads((scene.work / "told.json").read_text())
    return told["code"], told["attempts"]


def _cell(scene: Scene, inputs: Path, working: Path, scratch: Path, environment: Path, started: float) -> dict[str, str]:
    """The variables that a notebook's cell has, and those that put other places into its script."""
    return {
        "PATH": scene.path,
        "HOME": str(scene.work / "home"),
        "LANG": "C.UTF-8",
        "LD_LIBRARY_PATH": "/usr/local/nvidia/lib64",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONPATH": "/kaggle/lib/kagglegym:/kaggle/lib",
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",
        # As Jupyter's kernel sets them.
        "TERM": "xterm-color",
        "FORCE_COLOR": "1",
        "CLICOLOR": "1",
        "CLICOLOR_FORCE": "1",
        "PZ_INPUT": str(inputs),
        "PZ_WORKING": str(working),
        "PZ_SCRATCH": str(scratch),
        "PZ_ENVIRONMENT": str(environment),
        "PZ_STARTED_AT": f"{started:.3f}",
    }


def _room(scene: Scene) -> int:
    """Bytes of a disk with room for a submission and half of another."""
    ids = sum(len(row["id"]) for row in _rows(scene.work / "competition" / "test.csv"))
    pages = -(-(ids + scene.rows * CELLS_BYTES) // PAGE)
    return (pages + pages // 2) * PAGE


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _outcome(scene: Scene, test: Path, code: int, tried: int) -> tuple[str, bool]:
    """What a run left, in a line, and whether that is as it must be: a whole file, and nobody asked for a network."""
    kept = scene.work / "kept"
    form, _ = form_of(None)
    wrong = fault(kept / "submission.csv", test, form)
    told = f"exit code {code}, {wrong or 'the file is whole'}; last line: {_last(scene)}" if wrong or code else _told(scene)
    told += f"; {tried} attempts to reach a network" if tried else ""
    return told.replace(f"{scene.work}/", ""), not (wrong or code or tried)


def _last(scene: Scene) -> str:
    """The last line that the script printed."""
    lines = (scene.work / "output.txt").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"


def _told(scene: Scene) -> str:
    """Rows by the members that made them, and why the others are left out."""
    try:
        report: dict[str, Any] = json.loads((scene.work / "kept" / "predict.json").read_text())
    except (OSError, ValueError):
        return f"whole, without a predict.json; last line: {_last(scene)}"
    patterns = report.get("patterns", {})
    rows = ", ".join(f"{count:,} rows {names}" for names, count in patterns.items()) or report["notebook"]["submission"]
    out: dict[str, list[str]] = {}
    left_out = report["notebook"]["left_out"]
    notes = {member["name"]: member["note"] for member in report.get("members", ()) if member.get("note")}
    for name, why in (notes | left_out).items():
        out.setdefault(why, []).append(name)
    return "; ".join([f"whole, {rows}", *(f"{', '.join(names)} left out ({why})" for why, names in out.items())])
