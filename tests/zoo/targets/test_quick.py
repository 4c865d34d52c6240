"""Rates that a notebook measured: read from its predict.json, refused where they are another card's, kept with the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from zoo.cli.main import app
from zoo.errors import ZooError
from zoo.stages.rates.quick import quick_measurement
from zoo.stages.rates.target import write_target
from zoo.targets import Rates, load_target, machine_fingerprint, own_folder
from zoo.targets.quick import QuickRates, read_rates, with_rates

T4S = "2 x Tesla T4 15360 MiB"
FOUND = QuickRates(
    target="t4x2",
    machine=T4S,
    compute_capability=(7, 5),
    rates=Rates(
        matmul_flop_per_second={"float16": 24e12},
        attention_flop_per_second=5e12,
        host_to_device_bytes_per_second=6e9,
        disk_bytes_per_second=2e8,
    ),
    measured_at="2026-11-26T10:00:00+00:00",
    seconds=21.0,
)


def in_file(place: Path, what: object) -> Path:
    (place / "predict.json").write_text(what if isinstance(what, str) else json.dumps(what))
    return place / "predict.json"


@pytest.mark.parametrize("wrapped", [True, False])
def test_rates_come_home_from_a_notebook_and_from_what_was_printed(wrapped: bool, tmp_path: Path) -> None:
    plain = FOUND.model_dump(mode="json")
    path = in_file(tmp_path, {"rows": 3, "notebook": {"rates": plain}} if wrapped else plain)
    assert read_rates(path) == FOUND
    done = CliRunner().invoke(app, ["target", "import", str(path)])
    assert done.exit_code == 0 and str(own_folder() / "t4x2.toml") in done.stdout
    target = load_target("t4x2")
    assert target.measured == FOUND.rates and target.measured_on == T4S
    assert target.usable_bytes == 15636037632 and target.margin == 1.5, "what was declared stays"


def test_what_was_not_measured_now_stays_and_what_was_is_replaced() -> None:
    before = Rates(matmul_flop_per_second={"float32": 4e12, "float16": 1e12}, memory_bytes_per_second=2.5e11)
    after = with_rates(load_target("t4x2").model_copy(update={"measured": before}), FOUND).measured
    assert after.matmul_flop_per_second == {"float32": 4e12, "float16": 24e12}
    assert after.memory_bytes_per_second == 2.5e11 and after.disk_bytes_per_second == 2e8


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target": "h200"}, "rates of target h200 are none of t4x2"),
        ({"machine": "1 x Tesla T4 15360 MiB"}, "1 x Tesla T4 15360 MiB, compute capability 7.5 are none of target t4x2"),
        ({"machine": "2 x NVIDIA L4 23034 MiB"}, "NVIDIA L4"),
        ({"machine": f"{T4S} as t4x2"}, "as t4x2"),
        ({"compute_capability": (8, 9)}, "compute capability 8.9"),
        ({"rates": Rates(matmul_flop_per_second={"float16": 700e12})}, "700 TFLOP/s, where the data sheet of t4x2 says 65"),
    ],
)
def test_rates_of_another_name_or_card_are_refused(change: dict, says: str) -> None:
    with pytest.raises(ZooError, match=says) as refused:
        with_rates(load_target("t4x2"), FOUND.model_copy(update=change))
    assert "\n" not in str(refused.value) and not (own_folder() / "t4x2.toml").exists()


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("{", "predict.json"),
        ([], "holds no measured rates"),
        ({"rows": 3, "notebook": {}}, "holds no measured rates"),
        ({"schema_version": 2, "rates": {}}, "schema_version"),
        (FOUND.model_dump(mode="json") | {"rates": {"matmul_flop_per_second": {"float16": -1}}}, "float16"),
        (FOUND.model_dump(mode="json") | {"rates": {"matmul_flop_per_second": {"float16": float("inf")}}}, "float16"),
        (FOUND.model_dump(mode="json") | {"card": "T4"}, "card: Extra inputs"),
    ],
)
def test_a_file_without_such_rates_is_refused_in_one_line(what: object, says: str, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=says) as refused:
        read_rates(in_file(tmp_path, what))
    assert "\n" not in str(refused.value)


def test_this_machine_is_measured_quickly_and_writes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from zoo.stages.rates import measure as rates

    monkeypatch.setattr(rates, "SECONDS", 0.05)
    monkeypatch.setattr(rates, "BLOCK_BYTES", 2**20)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(3 * 2**20))
    done = CliRunner().invoke(app, ["target", "measure", "--quick", "--json", "--read", str(weights)])
    assert done.exit_code == 0, done.output
    found = QuickRates.model_validate_json(done.stdout)
    assert found.machine == machine_fingerprint() and not own_folder().exists()
    assert found.rates.attention_flop_per_second and found.rates.disk_bytes_per_second
    assert len(found.rates.matmul_flop_per_second) == 1
    write_target(with_rates(load_target(found.target), found))
    assert load_target(found.target).measured.attention_flop_per_second == found.rates.attention_flop_per_second


def test_a_file_that_cannot_be_read_is_refused_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.stages.rates import measure as rates

    monkeypatch.setattr(rates, "quick_rates", lambda *_: pytest.fail("measured"))
    with pytest.raises(ZooError, match="nowhere: cannot be read"):
        quick_measurement(Path("nowhere"))


def test_it_needs_nothing_that_a_notebook_s_environment_lacks() -> None:
    """Torch comes with the engine; what reads and writes entries, trains or logs does not."""
    code = """
import sys
for name in ("tomlkit", "mlflow", "optuna", "transformers", "scipy", "sklearn", "matplotlib", "rich"):
    sys.modules[name] = None
import zoo.stages.rates.measure as rates
rates.SECONDS, rates.BLOCK_BYTES = 0.02, 2**16
sys.argv = ["zoo", "target", "measure", "--quick", "--json"]
from zoo.cli.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert QuickRates.model_validate_json(done.stdout).machine == machine_fingerprint()
