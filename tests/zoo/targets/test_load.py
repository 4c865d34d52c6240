"""Targets are data: users' folders before the package's, faults named, rates declared and measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.helpers.clocks import Clock
from zoo.cli.main import app
from zoo.errors import ZooError
from zoo.stages.rates.target import describe_machine, measure_target, write_target
from zoo.targets import (
    Rates,
    Target,
    is_of_kind,
    list_targets,
    load_target,
    machine_fingerprint,
    matmul_rate,
    own_folder,
    target_files,
)

MINE = """name = "{name}"
gpus = 1
memory_bytes = 17179869184
dtypes = ["float16"]
margin = {margin}
gpu = "V100"

[declared]
matmul_flop_per_second = {{ float16 = 112e12 }}
memory_bytes_per_second = 900e9
"""


def write(folder: Path, name: str = "mine", margin: float = 1.5) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text(MINE.format(name=name, margin=margin))
    return path


def test_users_add_targets_and_replace_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(own_folder(), "t4", margin=2.0)
    assert load_target("t4").margin == 2.0
    write(tmp_path / "a", "t4", margin=3.0)
    write(tmp_path / "b", "mine")
    monkeypatch.setenv("ZOO_TARGETS", f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    assert load_target("t4").margin == 3.0 and load_target("mine").gpu == "V100"
    assert "mine" in {t.name for t in list_targets()} and list(target_files()) == sorted(target_files())
    with pytest.raises(ZooError, match=r"no target 'yours'; known: .*mine.*t4x2"):
        load_target("yours")


def test_faults_of_a_target_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_TARGETS", str(tmp_path))
    path = write(tmp_path)
    text = path.read_text()
    for old, new, message in (
        ("gpus = 1", "gpu_count = 1", "unknown key `gpu_count`"),
        ("memory_bytes_per_second", "memory_bandwidth", "unknown key `declared.memory_bandwidth`"),
        ("float16 = 112e12", "int8 = 112e12", r"declared.matmul_flop_per_second.int8"),
        ("112e12", "-1", r"declared.matmul_flop_per_second.float16"),
        ('name = "mine"', 'name = "other"', "differs from the file name"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(ZooError, match=message):
            load_target("mine")


def test_a_broken_target_is_listed_beside_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_TARGETS", str(tmp_path))
    (tmp_path / "bad.toml").write_text('name = "bad"\ngpuss = 1\n')
    done = CliRunner().invoke(app, ["target", "list"])
    assert done.exit_code == 0 and "gpuss" in done.stdout and "t4x2" in done.stdout


@pytest.mark.parametrize("name", ["t4", "t4x2", "l4x2", "a10g", "h200", "h200x2"])
def test_declared_rates_are_in_order(name: str) -> None:
    target = load_target(name)
    rates = target.declared.matmul_flop_per_second
    assert set(rates) == set(target.dtypes) and rates["float16"] > rates["float32"]
    assert 1e11 < (target.declared.memory_bytes_per_second or 0) < 1e13
    assert matmul_rate(target) == (rates["float16"], False)


def test_measured_rates_come_before_declared_ones_and_only_of_usable_dtypes() -> None:
    target = load_target("t4").model_copy(
        update={"measured": Rates(matmul_flop_per_second={"float16": 22e12, "bfloat16": 9e13})}
    )
    assert matmul_rate(target) == (22e12, True)
    assert matmul_rate(load_target("cpu")) is None


@pytest.mark.parametrize(
    ("machine", "kinds"),
    [
        ("2 x Tesla T4 15360 MiB", {"t4x2"}),
        ("1 x Tesla T4 15360 MiB", {"t4"}),
        ("1 x NVIDIA H200 143771 MiB", {"h200"}),
        ("1 x NVIDIA H100 80GB HBM3 81559 MiB", set()),
        ("1 x NVIDIA A10G 23028 MiB", {"a10g"}),
        ("2 x NVIDIA L40S 46068 MiB", set()),
        ("1 x NVIDIA L4 23034 MiB + 1 x Tesla T4 15360 MiB", set()),
        ("Some Processor @ 2.80GHz, 2 cores, 24 GiB", {"cpu"}),
    ],
)
def test_machines_are_told_apart(machine: str, kinds: set[str]) -> None:
    assert {t.name for t in list_targets() if is_of_kind(machine, t)} == kinds


def test_a_target_without_a_name_is_told_by_its_memory() -> None:
    target = Target(name="v", gpus=1, memory_bytes=16 * 2**30, dtypes=("float16",), margin=1.2)
    assert is_of_kind("1 x Tesla V100 16160 MiB", target) and not is_of_kind("1 x Tesla V100 32510 MiB", target)


def test_this_machine_is_measured_written_and_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.stages.rates import measure as rates

    monkeypatch.setattr(rates, "SECONDS", 0.05)
    monkeypatch.setattr(rates, "BLOCK_BYTES", 2**20)
    target = measure_target("my-machine")
    assert is_of_kind(machine_fingerprint(), target) and target.measured_on == machine_fingerprint()
    assert target.measured.matmul_flop_per_second["float32"] > 1e8
    assert (target.measured.memory_bytes_per_second or 0) > 1e7
    assert write_target(target).parent == own_folder()
    assert load_target("my-machine") == target
    shown = CliRunner().invoke(app, ["target", "show", "my-machine", "--json"])
    assert Target.model_validate(json.loads(shown.stdout)) == target


def test_a_machine_is_not_measured_as_another() -> None:
    wrong = "cpu" if load_target("cpu").gpus != 0 or "MiB" in machine_fingerprint() else "t4x2"
    with pytest.raises(ZooError, match=f"target {wrong}: this machine"):
        measure_target(wrong)
    with pytest.raises(ZooError, match="GPUs of several kinds"):
        describe_machine("x", "1 x NVIDIA L4 23034 MiB + 1 x Tesla T4 15360 MiB")


def test_a_name_that_cannot_be_one_is_refused_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.stages.rates import measure as rates

    monkeypatch.setattr(rates, "measure_rates", lambda folder: pytest.fail("measured"))
    for name in ("My Machine", "", "-x", "a/b"):
        done = CliRunner().invoke(app, ["target", "measure", "--", name])
        assert isinstance(done.exception, ZooError)
        assert str(done.exception) == f"{name!r} is not a target's name; use lower-case letters, digits, '.', '_' and '-'"


def test_repeated_counts_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from zoo.stages.rates import measure

    clock = Clock()

    def work() -> None:
        clock.seconds += 0.01

    monkeypatch.setattr(measure, "time", clock.as_module())
    assert measure.repeated(work, torch.device("cpu"), 0.2) == pytest.approx(100)
    assert clock.seconds == pytest.approx(0.2, abs=0.05)
