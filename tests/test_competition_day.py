"""docs/competition-day.md, run as far as it needs no account: wheels are stand-ins, and so is what a notebook leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.ensemble.bundle.conftest import VERSIONS
from tests.helpers import guide
from tests.helpers.paths import ROOT
from tests.helpers.wheels import use_index, write_wheel
from zoo.targets import Rates, own_folder
from zoo.targets.quick import QuickRates

PAGE = ROOT / "docs" / "competition-day.md"
pytestmark = [pytest.mark.chain, pytest.mark.slow, pytest.mark.timeout(900)]


def what_a_notebook_leaves(folder: Path) -> None:
    """predict.json as it comes back from two T4s that have measured themselves."""
    rates = QuickRates(
        target="t4x2",
        machine="2 x Tesla T4 15360 MiB",
        compute_capability=(7, 5),
        rates=Rates(matmul_flop_per_second={"float16": 3e13}, attention_flop_per_second=5e12, disk_bytes_per_second=2e8),
        measured_at="2026-11-26T10:00:00+00:00",
        seconds=20.0,
    )
    folder.mkdir()
    (folder / "predict.json").write_text(json.dumps({"rows": 3, "notebook": {"rates": rates.model_dump(mode="json")}}))


def test_the_guide_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide.checkout(tmp_path)
    for name, version in VERSIONS.items():
        write_wheel(tmp_path / "index", name, version)
    use_index(tmp_path / "index", tmp_path, monkeypatch)
    what_a_notebook_leaves(tmp_path / "out")
    said = guide.run(guide.commands(PAGE), tmp_path)

    assert len((tmp_path / "rehearsal.csv").read_text().splitlines()) == 41
    bundle = json.loads((tmp_path / "bundle" / "job" / "bundle.json").read_text())
    assert (bundle["competition"], bundle["owner"], bundle["target"]["name"]) == (
        "llm-classification-finetuning",
        "my-name",
        "t4x2",
    )
    assert (own_folder() / "t4x2.toml").exists()
    assert "2 x Tesla T4 15360 MiB measured of itself" in said, "the last forecast rests on what was brought home"
    assert "lexical alone" in said and "1.0476" in said
