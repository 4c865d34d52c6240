"""docs/competition-day.md, run as far as it needs no account: wheels are stand-ins, and so is what a notebook leaves."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.ensemble.bundle.conftest import VERSIONS
from tests.helpers import guide
from tests.helpers.paths import ROOT
from tests.helpers.wheels import use_index, write_wheel
from zoo.targets import Rates
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
    # What this package's own wheel is made with is here already, and an index for it is not.
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")
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
    assert (tmp_path / "mlruns" / "targets" / "t4x2.toml").exists() and "rates" in said
    assert "lexical alone" in said and "1.0476" in said
    shutil.rmtree(tmp_path / "bundle")


def test_the_host_s_commands_are_those_that_a_bundle_prints(made: Path) -> None:
    """But for names: whatever is printed stands on the page, and the other way round."""
    from ensemble.bundle.commands import commands_of
    from zoo.bundle.check import read_bundle

    bundle = read_bundle(made)
    printed = commands_of(bundle, Path("bundle"))
    text = PAGE.read_text()
    told = [line for line in re.findall(r"^kaggle .*$", text, re.MULTILINE) if "competitions download" not in line]
    notebook = printed[-1].split(" -k ")[1].split()[0]
    names = {notebook: "my-name/NOTEBOOK", bundle.name: "NAME", bundle.competition: "llm-classification-finetuning"}
    for own, name in names.items():
        printed = [line.replace(own, name) for line in printed]
    assert sorted(told) == sorted(printed)
