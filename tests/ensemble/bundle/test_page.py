"""The commands of the host's program on docs/competition-day.md are those that a bundle prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ensemble.bundle.commands import commands_of
from tests.helpers.paths import ROOT
from zoo.bundle.check import read_bundle


def test_the_host_s_commands_are_those_that_a_bundle_prints(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for names: whatever is printed stands on the page, and the other way round."""
    monkeypatch.chdir(made.parent)
    bundle = read_bundle(made)
    printed = commands_of(bundle, Path("bundle"))
    text = (ROOT / "docs" / "competition-day.md").read_text()
    told = [line for line in re.findall(r"^kaggle .*$", text, re.MULTILINE) if "competitions download" not in line]
    notebook = printed[-1].split(" -k ")[1].split()[0]
    names = {notebook: "my-name/NOTEBOOK", bundle.name: "NAME", bundle.competition: "llm-classification-finetuning"}
    for own, name in names.items():
        printed = [line.replace(own, name) for line in printed]
    assert sorted(told) == sorted(printed)
